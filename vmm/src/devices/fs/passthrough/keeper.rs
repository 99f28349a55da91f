//! Which inodes have a descriptor that the guest uses without having opened it.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use super::{
    inode::Inode,
    opened::{Opened, Use},
};

/// Those inodes: the `MOST` that were opened last.
#[derive(Debug, Default)]
pub(super) struct Keeper(Mutex<VecDeque<Weak<Inode>>>);

impl Keeper {
    /// Descriptors at once. Who reads another file over and over has it opened once more now and then.
    const MOST: usize = 256;

    fn queue(&self) -> MutexGuard<'_, VecDeque<Weak<Inode>>> {
        // Every change leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is kept of an inode, or else what `open` makes.
    ///
    /// # Errors
    /// Those of `open`.
    pub(super) fn opened(
        &self,
        inode: &Arc<Inode>,
        purpose: Use,
        open: impl FnOnce() -> io::Result<Opened>,
    ) -> io::Result<Arc<Opened>> {
        if let Some(opened) = inode.kept().serves(purpose) {
            return Ok(opened);
        }
        let opened = Arc::new(open()?);
        self.keep(inode, purpose, Arc::clone(&opened));
        Ok(opened)
    }

    pub(super) fn keep(&self, inode: &Arc<Inode>, purpose: Use, opened: Arc<Opened>) {
        let before = inode.kept().slot().replace((purpose, opened));
        if before.is_none() {
            let mut queue = self.queue();
            queue.push_back(Arc::downgrade(inode));
            let oldest = if queue.len() > Self::MOST { queue.pop_front() } else { None };
            drop(queue);
            close(oldest.iter());
        }
    }

    /// Closes all: the guest has no descriptor left for something else.
    pub(super) fn close_all(&self) {
        let queue = std::mem::take(&mut *self.queue());
        close(queue.iter());
    }
}

fn close<'a>(inodes: impl Iterator<Item = &'a Weak<Inode>>) {
    for inode in inodes.filter_map(Weak::upgrade) {
        let kept = inode.kept().slot().take();
        drop(kept);
    }
}
