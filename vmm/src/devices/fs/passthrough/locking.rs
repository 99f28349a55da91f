//! Which file and which opening of it a lock is asked for: from the guest's numbers to `locks`.

use std::{io, sync::Arc};

use rustix::fs::OFlags;

use super::{
    super::locks::{Answer, Description, Outcome, Request, Via},
    Passthrough,
    handle::Handle,
    inode::Inode,
};

impl Passthrough {
    /// Tells what stands in the way of a lock: the request as it would have to be made of its holder, or `None`.
    pub(in super::super) fn test_lock(
        &self,
        inode: u64,
        handle: u64,
        request: &Request,
    ) -> io::Result<Option<Request>> {
        let handle = self.table.handle(inode, handle)?;
        Ok(self.locks.test(handle.inode().locked(), handle.file(), request)?)
    }

    /// Sets or removes a lock, without waiting.
    ///
    /// # Errors
    /// EAGAIN when another holds it; EBADF when the guest has no such opening, or one that may not have such a lock; ENOLCK beyond
    /// what a guest may hold.
    pub(in super::super) fn set_lock(&self, number: u64, handle: u64, request: &Request) -> io::Result<()> {
        let opening = self.table.handle(number, handle)?;
        let open = |writable| self.describe(opening.inode(), writable);
        Ok(self.locks.set(opening.inode().locks(), &via(handle, &opening, &open), request)?)
    }

    /// Sets a lock, and waits for it if it must: then `answer` is called for what is told when it has ended. `unique` is the number
    /// of the guest's request.
    pub(in super::super) fn wait_for_lock(
        &self,
        number: u64,
        handle: u64,
        request: Request,
        unique: u64,
        answer: impl FnOnce() -> Answer,
    ) -> Outcome {
        let opening = match self.table.handle(number, handle) {
            Ok(opening) => opening,
            Err(error) => return Outcome::Done(Err(error)),
        };
        let open = |writable| self.describe(opening.inode(), writable);
        let locks = opening.inode().locks();
        self.locks.set_waiting(locks, &via(handle, &opening, &open), request, unique, answer)
    }

    pub(in super::super) fn interrupt_lock(&self, unique: u64) {
        self.locks.interrupt(unique);
    }

    /// A description for the locks of one owner alone.
    fn describe(&self, inode: &Inode, writable: bool) -> io::Result<Description> {
        let slot = self.slot()?;
        let access = if writable { OFlags::RDWR } else { OFlags::RDONLY };
        let file = self.reopen(inode, access | OFlags::NONBLOCK)?;
        Ok(Description::new(file, writable, slot))
    }
}

fn via<'a>(
    number: u64,
    handle: &'a Arc<Handle>,
    open: &'a dyn Fn(bool) -> io::Result<Description>,
) -> Via<'a> {
    Via {
        handle: number,
        file: handle.file(),
        readable: handle.readable(),
        writable: handle.writable(),
        open,
    }
}
