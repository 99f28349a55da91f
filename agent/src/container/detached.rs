//! Mounts by descriptor: a mount is made or cloned detached, given its attributes, then attached to a place.
//!
//!   fsopen ─ fsconfig … ─ fsmount ┐
//!   open_tree(CLONE) of a source ─┴─▶ detached mount ─ mount_setattr ─▶ move_mount onto an O_PATH descriptor
//!
//! The place was resolved by `path::Root` and is never looked up again, so a container that swaps links meanwhile
//! cannot send a mount elsewhere. Kernel messages of a filesystem that refuses an option go into the error.

use std::os::fd::{AsFd, OwnedFd};

use bulkhead_protocol::container::{Propagation, PropagationMode};
use bulkhead_sys::mount::Attributes;
use rustix::{
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
        fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
    },
};

use super::error::Cause;

/// Attaches a detached mount to a place.
pub(super) fn attach(mount: impl AsFd, place: impl AsFd) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", place, "", flags)
}

/// A detached copy of the mount at `place`, from there downwards.
pub(super) fn clone_tree(place: impl AsFd, recursive: bool) -> Result<OwnedFd, Errno> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    open_tree(place, "", flags)
}

/// A detached mount of a new filesystem. `flags` are options without value, `data` those with or without.
pub(super) fn filesystem(kind: &str, source: &str, flags: &[&str], data: &[&str]) -> Result<OwnedFd, Cause> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    let configured = (|| {
        fsconfig_set_string(&context, "source", source)?;
        for flag in flags {
            fsconfig_set_flag(&context, *flag)?;
        }
        for option in data {
            match option.split_once('=') {
                Some((key, value)) => fsconfig_set_string(&context, key, value)?,
                None => fsconfig_set_flag(&context, *option)?,
            }
        }
        fsconfig_create(&context)
    })();
    if let Err(errno) = configured {
        return Err(with_kernel_message(errno, &context));
    }
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?)
}

/// The filesystem context can be read: each read is one message on what was wrong.
fn with_kernel_message(errno: Errno, context: &OwnedFd) -> Cause {
    let mut cause = Cause::from(errno);
    let mut message = [0; 256];
    if let Ok(length) = rustix::io::read(context, &mut message) {
        let text = String::from_utf8_lossy(&message[..length]);
        // "e " for error, "w " for warning, "i " for information come first.
        let text = text.trim().split_once(' ').map_or("", |(_, text)| text);
        cause.text = format!("{} ({text})", cause.text);
    }
    cause
}

/// What mount_setattr changes for the propagation that the specification wants.
pub(super) fn propagation(wanted: Propagation) -> Attributes {
    let propagation = match wanted.mode {
        PropagationMode::Private => libc::MS_PRIVATE,
        PropagationMode::Shared => libc::MS_SHARED,
        PropagationMode::Slave => libc::MS_SLAVE,
        PropagationMode::Unbindable => libc::MS_UNBINDABLE,
    };
    Attributes { propagation, recursive: wanted.recursive, ..Attributes::default() }
}
