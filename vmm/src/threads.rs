//! How the VMM makes a thread.

use std::thread::Builder;

/// Bytes of the stack of each thread. The largest frames hold a few buffers of a page. It is far below 2 MiB, since the kernel may
/// back an aligned stack of that size with a huge page: then each thread costs the host 2 MiB.
const STACK: usize = 256 << 10;

/// A thread that can be told by its name, of at most 15 bytes (PR_SET_NAME(2const)).
pub(crate) fn named(name: impl Into<String>) -> Builder {
    Builder::new().name(name.into()).stack_size(STACK)
}
