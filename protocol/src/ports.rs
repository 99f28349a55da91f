//! vsock addresses. The host side is user space in the VMM: no AF_VSOCK on the host, so CIDs never collide.

/// The guest's context id, the same in every VM.
pub const GUEST_CID: u64 = 3;
/// The host's context id (VMADDR_CID_HOST).
pub const HOST_CID: u64 = 2;

/// Guest to host: the agent's control stream, connected to a descriptor that the server holds already.
pub const AGENT: u32 = 1024;
/// Host to guest: the agent accepts stdio streams here, each opened by its header line (`stdio`).
pub const STDIO: u32 = 1025;
/// Host to guest: the agent connects each stream to a place in the guest, which its header line names (`relay`).
pub const RELAY: u32 = 1026;
