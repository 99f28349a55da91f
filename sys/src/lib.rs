//! What more than one of Bulkhead's programs asks of the kernel, and the ways in which an error becomes a line and a line becomes
//! harmless.
//!
//! Each module stands alone: it knows no message, no container and no async runtime, and nothing else of ours. For system
//! calls rustix comes first, libc where rustix lacks the call.

pub mod bpf;
pub mod cgroup_file;
pub mod error_chain;
pub mod hook;
pub mod in_root;
pub mod loopback;
pub mod meminfo;
pub mod mount;
pub mod mount_table;
pub mod namespace;
pub mod pidfd;
pub mod text;
pub mod user_namespace;

pub use error_chain::chain;
