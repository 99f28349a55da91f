//! One descriptor chain is one FUSE message: from the chain to the file system and back to a used length.
//!
//!   readable part ─▶ `Reader` ─▶ header ─┬▶ the library's server ─▶ `Filter` ─┬▶ `Writer` ─▶ writable part; used length =
//!                                        └▶ `direct` ─▶ `Filter` ─────────────┘             bytes written
//!
//! A chain that is no message is returned with length 0. The library takes for granted that a reply header fits into
//! the writable part, so it only sees chains where that holds; FORGET and INTERRUPT, which have no reply and in Linux no
//! writable part, are decoded here. The message is read through copies, in all places: the guest may change it meanwhile.

use std::{ops::Deref, sync::Arc};

use rustix::io::Errno;
use vhost_user_backend::bitmap::BitmapMmapRegion;
use virtio_queue::DescriptorChain;
use virtiofsd::{
    descriptor_utils::{Reader, Writer},
    filesystem::{Context, FileSystem, FsOptions},
    fuse::{
        BatchForgetIn, ForgetIn, ForgetOne, InHeader, InitInCompat, InitInExt, InterruptIn, Opcode, OutHeader,
    },
    server::Server,
};
use vm_memory::GuestMemoryMmap;

use super::{
    direct::{self, Served},
    filter::Filter,
    locks::Answer,
    metrics::FsMetrics,
};

/// The library's type for guest memory; it stays in this device.
pub(super) type FileMemory = GuestMemoryMmap<BitmapMmapRegion>;

/// More than any honest batch (Linux sends what fits into one page), and what one message may hold up the store for.
const MAX_BATCH: u32 = 64 << 10;

/// Private to our guest kernel (`guest-kernel-config/patches/virtiofs-trust.patch`): bit 62 of INIT's flags.
const KNOWS_EXCLUSIVE: u32 = 1 << 30;

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

    /// Serves one request. `answer`, given the number of the request, makes what is called for it when it has to wait.
    pub(super) fn serve<M>(
        &self,
        memory: &FileMemory,
        chain: DescriptorChain<M>,
        answer: impl FnOnce(u64) -> Answer,
    ) -> Served
    where
        M: Deref<Target = FileMemory> + Clone,
    {
        self.metrics.requests.increment();
        self.answer(memory, chain, answer).unwrap_or_else(|| {
            self.metrics.bad_requests.increment();
            Served::Now(0)
        })
    }

    fn answer<M>(
        &self,
        memory: &FileMemory,
        chain: DescriptorChain<M>,
        answer: impl FnOnce(u64) -> Answer,
    ) -> Option<Served>
    where
        M: Deref<Target = FileMemory> + Clone,
    {
        let mut reader = Reader::new(memory, chain.clone()).ok()?;
        let writer = Writer::new(memory, chain.clone()).ok()?;
        if writer.available_bytes() < size_of::<OutHeader>() {
            return self.without_reply(reader).map(|()| Served::Now(0));
        }
        let header: InHeader = reader.read_obj().ok()?;
        let opcode = Opcode::try_from(header.opcode).ok();
        if let Some(opcode) = opcode {
            self.metrics.operation(header.opcode);
            if direct::takes(opcode) {
                return direct::serve(&self.filter, &header, opcode, reader, writer, || {
                    answer(header.unique)
                });
            }
            if matches!(opcode, Opcode::Init) {
                self.filter.knows_exclusive(knows_exclusive(&mut reader));
            }
        }
        // It reads the header itself.
        let reader = Reader::new(memory, chain).ok()?;
        let written = self.server.handle_message::<()>(reader, writer, None).ok()?;
        u32::try_from(written).ok().map(Served::Now)
    }

    /// FORGET and its batch: the guest drops references. INTERRUPT: it wants no answer but an early one.
    fn without_reply(&self, mut reader: Reader<'_>) -> Option<()> {
        let header: InHeader = reader.read_obj().ok()?;
        let context = Context::from(header);
        self.metrics.operation(header.opcode);
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
            Opcode::Interrupt => {
                let InterruptIn { unique } = reader.read_obj().ok()?;
                self.filter.interrupt_lock(unique);
            }
            // Nothing else can be answered without room for an answer.
            _ => return None,
        }
        Some(())
    }
}

/// What an INIT says beyond what the library knows.
fn knows_exclusive(reader: &mut Reader<'_>) -> bool {
    let base: Result<InitInCompat, _> = reader.read_obj();
    let extension: Result<InitInExt, _> = reader.read_obj();
    let extended = base.is_ok_and(|base| u64::from(base.flags) & FsOptions::INIT_EXT.bits() != 0);
    extended && extension.is_ok_and(|extension| extension.flags2 & KNOWS_EXCLUSIVE != 0)
}

/// Writes the reply to the request `unique`, which has waited, into its chain; returns the used length.
pub(super) fn late<M>(
    memory: &FileMemory,
    chain: DescriptorChain<M>,
    unique: u64,
    result: Result<(), Errno>,
) -> u32
where
    M: Deref<Target = FileMemory> + Clone,
{
    let writer = Writer::new(memory, chain).ok();
    writer.and_then(|writer| direct::late(writer, unique, result)).unwrap_or(0)
}
