//! Where each device of a sandbox sits: the table is the protocol's.

pub(crate) use bulkhead_protocol::slots::{BALLOON, CONSOLE, DISKS, FS, MEM, NICS, RNG, VSOCK, disk, nic};
