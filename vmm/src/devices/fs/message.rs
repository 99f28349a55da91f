//! One descriptor chain is one FUSE message: from the chain to the library and back to a used length.
//!
//!   readable part ─▶ `Reader` ─▶ Server::handle_message ─▶ `Writer` ─▶ writable part; used length = bytes written
//!
//! A chain that is no message is returned with length 0. The library takes for granted that a reply header fits into
//! the writable part, so it only sees chains where that holds; FORGET, which has no reply and in Linux no writable
//! part, is decoded here. The message is read through copies, in both places: the guest may change it meanwhile.

use std::{ops::Deref, sync::Arc};

use vhost_user_backend::bitmap::BitmapMmapRegion;
use virtio_queue::DescriptorChain;
use virtiofsd::{
    descriptor_utils::{Reader, Writer},
    filesystem::{Context, FileSystem},
    fuse::{BatchForgetIn, ForgetIn, ForgetOne, InHeader, Opcode, OutHeader},
    server::Server,
};
use vm_memory::GuestMemoryMmap;

use super::{filter::Filter, metrics::FsMetrics};

/// The library's type for guest memory; it stays in this device.
pub(super) type FileMemory = GuestMemoryMmap<BitmapMmapRegion>;

/// More than any honest batch (Linux sends what fits into one page), and what one message may hold up the store for.
const MAX_BATCH: u32 = 64 << 10;

/// The library's server and, for what it does not do, the file system behind it.
pub(super) struct FileServer {
    server: Server<Filter>,
    filter: Filter,
    metrics: Arc<FsMetrics>,
}

impl std::fmt::Debug for FileServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileServer").finish_non_exhaustive()
    }
}

impl FileServer {
    pub(super) fn new(filter: Filter, metrics: Arc<FsMetrics>) -> Self {
        Self { server: Server::new(filter.clone()), filter, metrics }
    }

    /// Drops every inode and handle.
    pub(super) fn forget_all(&self) {
        self.server.destroy();
    }

    /// Answers one request; returns the used length.
    pub(super) fn serve<M>(&self, memory: &FileMemory, chain: DescriptorChain<M>) -> u32
    where
        M: Deref<Target = FileMemory> + Clone,
    {
        self.metrics.requests.increment();
        let written = self.answer(memory, chain);
        if written.is_none() {
            self.metrics.bad_requests.increment();
        }
        written.unwrap_or(0)
    }

    fn answer<M>(&self, memory: &FileMemory, chain: DescriptorChain<M>) -> Option<u32>
    where
        M: Deref<Target = FileMemory> + Clone,
    {
        let reader = Reader::new(memory, chain.clone()).ok()?;
        let writer = Writer::new(memory, chain).ok()?;
        if writer.available_bytes() < size_of::<OutHeader>() {
            return self.without_reply(reader);
        }
        let written = self.server.handle_message::<()>(reader, writer, None).ok()?;
        u32::try_from(written).ok()
    }

    /// FORGET and its batch: the guest drops references.
    fn without_reply(&self, mut reader: Reader<'_>) -> Option<u32> {
        let header: InHeader = reader.read_obj().ok()?;
        let context = Context::from(header);
        match Opcode::try_from(header.opcode).ok()? {
            Opcode::Forget => {
                let ForgetIn { nlookup } = reader.read_obj().ok()?;
                self.filter.forget(context, header.nodeid, nlookup);
            }
            Opcode::BatchForget => {
                let BatchForgetIn { count, .. } = reader.read_obj().ok()?;
                if count > MAX_BATCH {
                    return None;
                }
                let mut batch = Vec::new();
                for _ in 0..count {
                    let ForgetOne { nodeid, nlookup } = reader.read_obj().ok()?;
                    batch.push((nodeid, nlookup));
                }
                self.filter.batch_forget(context, batch);
            }
            // Nothing else can be answered without room for an answer; an interrupt need not be.
            Opcode::Interrupt => {}
            _ => return None,
        }
        Some(0)
    }
}
