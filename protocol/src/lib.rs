//! The borders between Bulkhead's processes: every message, id and limit that two of them must agree on.
//!
//!   bulkhead, proxy ──Task API + sandbox.proto──▶ server ──vmm (SEQPACKET + fds)──▶ bulkhead-vmm
//!                                                   └────greeting, then agent.proto──▶ bulkhead-agent
//!   proxy ──stdio (one vsock stream each)────────────────────────────────────────────▶ bulkhead-agent
//!                                         server ──relay (one vsock stream each)─────▶ bulkhead-agent
//!
//! Depends on nothing of ours. Everything that arrives over one of these borders is hostile until it has become
//! one of these types.

pub mod binfmt;
pub mod container;
pub mod cpu_list;
pub mod greeting;
pub mod hook;
pub mod id;
pub mod limits;
pub mod packet;
pub mod ports;
pub mod relay;
pub mod slots;
pub mod stdio;
pub mod timeline;
pub mod tuning;
pub mod vmm;
pub mod watch;

mod generated {
    #![allow(clippy::all, clippy::pedantic, clippy::undocumented_unsafe_blocks, clippy::unwrap_used)]
    #![allow(missing_debug_implementations, unreachable_pub, unused_imports)]
    include!(concat!(env!("OUT_DIR"), "/services.rs"));
}

/// The agent's RPCs: messages of `proto/agent.proto` and its ttrpc client and service trait.
pub mod agent {
    pub use crate::generated::{agent::*, agent_ttrpc::*};
}

/// What CRI says of a pod: messages of `proto/pod.proto`.
pub mod pod {
    pub use crate::generated::pod::*;
}

/// The sandbox server's own RPCs: messages of `proto/sandbox.proto` and its ttrpc client and service trait.
pub mod sandbox {
    pub use crate::generated::{sandbox::*, sandbox_ttrpc::*};
}
