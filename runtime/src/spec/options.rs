//! The mount options of runtime-spec 1.3.0 as one table, and what a list of them comes to.
//!
//!   options ─in order, the later one wins─▶ Options: MOUNT_ATTR_* bits to set and clear (also recursively),
//!                                           flags of the superblock, propagation, bind, and the rest as data
//!
//! An option that is not in the table belongs to the filesystem (`size=`, `mode=`, `newinstance`).

use bulkhead_protocol::container::{Propagation, PropagationMode};

// linux/mount.h
const RDONLY: u64 = 0x1;
const NOSUID: u64 = 0x2;
const NODEV: u64 = 0x4;
const NOEXEC: u64 = 0x8;
/// Three values in one field: relatime 0, noatime 0x10, strictatime 0x20. To change it is to clear all of it.
const ATIME: u64 = 0x70;
const NOATIME: u64 = 0x10;
const STRICTATIME: u64 = 0x20;
const NODIRATIME: u64 = 0x80;
const NOSYMFOLLOW: u64 = 0x0020_0000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    Set(u64),
    Clear(u64),
    /// The value of the access time field.
    Atime(u64),
    RecursiveSet(u64),
    RecursiveClear(u64),
    RecursiveAtime(u64),
    /// A flag of the superblock, which the second one takes back.
    Superblock(&'static str, &'static str),
    Propagation(PropagationMode, bool),
    Bind(bool),
    IdMap(bool),
    CopyUp,
    Remount,
    /// The kernel's default, or without effect since its flag is gone from the new mount API.
    Nothing,
}

use Effect::{
    Atime, Bind, Clear, CopyUp, IdMap, Nothing, RecursiveAtime, RecursiveClear, RecursiveSet, Remount, Set,
    Superblock,
};
use PropagationMode::{Private, Shared, Slave, Unbindable};

const TABLE: [(&str, Effect); 63] = [
    ("async", Superblock("async", "sync")),
    ("atime", Atime(0)),
    ("bind", Bind(false)),
    ("defaults", Nothing),
    ("dev", Clear(NODEV)),
    ("diratime", Clear(NODIRATIME)),
    ("dirsync", Superblock("dirsync", "")),
    ("exec", Clear(NOEXEC)),
    ("idmap", IdMap(false)),
    ("iversion", Nothing),
    ("lazytime", Superblock("lazytime", "nolazytime")),
    ("loud", Nothing),
    ("mand", Superblock("mand", "nomand")),
    ("noatime", Atime(NOATIME)),
    ("nodev", Set(NODEV)),
    ("nodiratime", Set(NODIRATIME)),
    ("noexec", Set(NOEXEC)),
    ("noiversion", Nothing),
    ("nolazytime", Superblock("nolazytime", "lazytime")),
    ("nomand", Superblock("nomand", "mand")),
    ("norelatime", Nothing),
    ("nostrictatime", Atime(0)),
    ("nosuid", Set(NOSUID)),
    ("nosymfollow", Set(NOSYMFOLLOW)),
    ("private", Effect::Propagation(Private, false)),
    ("ratime", RecursiveAtime(0)),
    ("rbind", Bind(true)),
    ("rdev", RecursiveClear(NODEV)),
    ("rdiratime", RecursiveClear(NODIRATIME)),
    ("relatime", Atime(0)),
    ("remount", Remount),
    ("rexec", RecursiveClear(NOEXEC)),
    ("ridmap", IdMap(true)),
    ("rnoatime", RecursiveAtime(NOATIME)),
    ("rnodev", RecursiveSet(NODEV)),
    ("rnodiratime", RecursiveSet(NODIRATIME)),
    ("rnoexec", RecursiveSet(NOEXEC)),
    ("rnorelatime", Nothing),
    ("rnostrictatime", RecursiveAtime(0)),
    ("rnosuid", RecursiveSet(NOSUID)),
    ("rnosymfollow", RecursiveSet(NOSYMFOLLOW)),
    ("ro", Set(RDONLY)),
    ("rprivate", Effect::Propagation(Private, true)),
    ("rrelatime", RecursiveAtime(0)),
    ("rro", RecursiveSet(RDONLY)),
    ("rrw", RecursiveClear(RDONLY)),
    ("rshared", Effect::Propagation(Shared, true)),
    ("rslave", Effect::Propagation(Slave, true)),
    ("rstrictatime", RecursiveAtime(STRICTATIME)),
    ("rsuid", RecursiveClear(NOSUID)),
    ("rsymfollow", RecursiveClear(NOSYMFOLLOW)),
    ("runbindable", Effect::Propagation(Unbindable, true)),
    ("rw", Clear(RDONLY)),
    ("shared", Effect::Propagation(Shared, false)),
    ("silent", Nothing),
    ("slave", Effect::Propagation(Slave, false)),
    ("strictatime", Atime(STRICTATIME)),
    ("suid", Clear(NOSUID)),
    ("symfollow", Clear(NOSYMFOLLOW)),
    ("sync", Superblock("sync", "async")),
    ("tmpcopyup", CopyUp),
    ("unbindable", Effect::Propagation(Unbindable, false)),
    // Written by callers that mean "none".
    ("", Nothing),
];

/// The options that are honoured, in order.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|(name, _)| *name).filter(|name| !name.is_empty())
}

/// What a list of options comes to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub set: u64,
    pub clear: u64,
    pub recursive_set: u64,
    pub recursive_clear: u64,
    pub super_flags: Vec<String>,
    pub data: Vec<String>,
    pub propagation: Option<Propagation>,
    /// `Some(true)`: rbind.
    pub bind: Option<bool>,
    /// `Some(true)`: ridmap.
    pub id_map: Option<bool>,
    pub copy_up: bool,
    pub remount: bool,
}

impl Options {
    pub(super) fn parse(options: &[String]) -> Self {
        let mut sum = Self::default();
        for option in options {
            match TABLE.iter().find(|(name, _)| name == option) {
                Some((_, effect)) => sum.add(*effect),
                None => sum.data.push(option.clone()),
            }
        }
        sum
    }

    /// The mount itself is read-only.
    pub(super) fn read_only(&self) -> bool {
        (self.set | self.recursive_set) & RDONLY != 0
    }

    /// So are the mounts below it.
    pub(super) fn read_only_recursive(&self) -> bool {
        self.recursive_set & RDONLY != 0
    }

    fn add(&mut self, effect: Effect) {
        let change = |on: &mut u64, off: &mut u64, bits: u64| {
            *on |= bits;
            *off &= !bits;
        };
        match effect {
            Set(bits) => change(&mut self.set, &mut self.clear, bits),
            Clear(bits) => change(&mut self.clear, &mut self.set, bits),
            RecursiveSet(bits) => change(&mut self.recursive_set, &mut self.recursive_clear, bits),
            RecursiveClear(bits) => change(&mut self.recursive_clear, &mut self.recursive_set, bits),
            Atime(value) => {
                self.clear |= ATIME;
                self.set = self.set & !ATIME | value;
            }
            RecursiveAtime(value) => {
                self.recursive_clear |= ATIME;
                self.recursive_set = self.recursive_set & !ATIME | value;
            }
            Superblock(flag, opposite) => {
                self.super_flags.retain(|earlier| earlier != flag && earlier != opposite);
                self.super_flags.push(flag.to_owned());
            }
            Effect::Propagation(mode, recursive) => self.propagation = Some(Propagation { mode, recursive }),
            Bind(recursive) => self.bind = Some(recursive || self.bind == Some(true)),
            IdMap(recursive) => self.id_map = Some(recursive || self.id_map == Some(true)),
            CopyUp => self.copy_up = true,
            Remount => self.remount = true,
            Nothing => {}
        }
    }
}

#[cfg(test)]
mod tests;
