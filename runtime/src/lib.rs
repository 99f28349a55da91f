//! The host side of Bulkhead: bundles in, running containers out.
