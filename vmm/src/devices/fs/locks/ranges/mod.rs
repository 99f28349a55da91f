//! The byte ranges that one owner has locked: a copy of what the host's kernel keeps for the owner's description.
//!
//! As there, a lock replaces what the owner had of its range, and neighbours of one sort are one lock (`posix_lock_inode`).
//! It is asked whether a lock stands in another's way, and how many there are: the kernel's cost memory of the host.

use super::request::{Access, Range};

/// In order, apart from each other.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Ranges(Vec<(Range, Access)>);

impl Ranges {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Range, Access)> {
        self.0.iter().copied()
    }

    /// What stands in the way of such a lock of another owner.
    pub(super) fn conflict(&self, range: Range, access: Access) -> Option<(Range, Access)> {
        let first = self.0.partition_point(|(own, _)| own.end() < range.start());
        let overlapping = self.0.get(first..)?.iter().take_while(|(own, _)| own.overlaps(range));
        overlapping.copied().find(|(_, own)| *own == Access::Write || access == Access::Write)
    }

    /// Locks a range, or frees it.
    pub(super) fn set(&mut self, range: Range, access: Option<Access>) {
        let (start, end) = (range.start(), range.end());
        // Neighbours too: they may become one with the new lock.
        let first = self.0.partition_point(|(own, _)| own.end() < start.saturating_sub(1));
        let last = self.0.partition_point(|(own, _)| own.start() <= end.saturating_add(1));
        let touched = self.0.get(first..last).unwrap_or_default();
        let mut kept: Vec<(Range, Access)> = Vec::with_capacity(3);
        let mut new = range;
        let mut behind = None;
        for (own, of) in touched.iter().copied() {
            if Some(of) == access {
                // Both are not empty, and so is what covers them.
                new = Range::new(new.start().min(own.start()), new.end().max(own.end())).unwrap_or(new);
                continue;
            }
            kept.extend(before(own, start).map(|part| (part, of)));
            behind = after(own, end).map(|part| (part, of)).or(behind);
        }
        kept.extend(access.map(|access| (new, access)));
        kept.extend(behind);
        self.0.splice(first..last, kept);
    }
}

/// The part of `range` below `start`.
fn before(range: Range, start: u64) -> Option<Range> {
    Range::new(range.start(), range.end().min(start.checked_sub(1)?))
}

/// The part of `range` above `end`.
fn after(range: Range, end: u64) -> Option<Range> {
    Range::new(range.start().max(end.checked_add(1)?), range.end())
}

#[cfg(test)]
mod tests;
