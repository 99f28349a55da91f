//! Packs the agent into a reproducible initramfs.
