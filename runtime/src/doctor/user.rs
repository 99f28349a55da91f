//! What an ordinary user needs for containers of a rootless engine.
//!
//!   User ─▶ devices (their groups), ranges of ids, a cgroup that systemd has delegated ─▶ Findings

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::{Access, access};

use super::Finding;
use crate::network::VHOST;

const KVM: &str = "dev/kvm";
const TUN: &str = "dev/net/tun";
/// Programs that write the maps of a user namespace for its user (newuidmap(1)).
const MAPPERS: [&str; 2] = ["usr/bin/newuidmap", "usr/bin/newgidmap"];
const RANGES: [&str; 2] = ["etc/subuid", "etc/subgid"];

/// Who runs this.
#[derive(Debug)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) name: String,
}

impl User {
    /// By passwd(5); one that is not in there has its number for a name.
    pub(super) fn find(root: &Path, uid: u32) -> Self {
        let number = uid.to_string();
        let passwd = fs::read_to_string(root.join("etc/passwd")).unwrap_or_default();
        let named = passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)? == number).then(|| name.to_owned())
        });
        Self { uid, name: named.unwrap_or(number) }
    }
}

/// All that is looked at for a user, in the order in which a start would meet it.
pub(super) fn examine(root: &Path, user: &User) -> [Finding; 5] {
    [privileges(user), ids(root, user), device(root), tap(root), delegation(root, user)]
}

fn privileges(user: &User) -> Finding {
    Finding::ok("privileges", format!("user {}: containers by a rootless engine (docs/podman.md)", user.name))
}

/// Without them an engine has one id, and most images have more.
fn ids(root: &Path, user: &User) -> Finding {
    let subject = "ids of the user";
    if let Some(missing) = MAPPERS.iter().find(|program| !root.join(program).exists()) {
        let detail = format!("/{missing} is missing: a rootless engine has one id for all files");
        return Finding::warn(subject, detail, "install the package uidmap or shadow-utils");
    }
    let number = user.uid.to_string();
    let listed = |file: &&str| {
        let text = fs::read_to_string(root.join(file)).unwrap_or_default();
        text.lines().filter_map(|line| line.split_once(':')).any(|(who, _)| who == user.name || who == number)
    };
    match RANGES.iter().find(|file| !listed(file)) {
        None => Finding::ok(subject, "there are ranges in /etc/subuid and /etc/subgid"),
        Some(file) => Finding::warn(
            subject,
            format!("/{file} has no range for {}: a rootless engine has one id for all files", user.name),
            "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER",
        ),
    }
}

fn device(root: &Path) -> Finding {
    let subject = "KVM device";
    match opens(root, KVM) {
        Ok(()) => Finding::ok(subject, "/dev/kvm may be opened"),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let detail = format!("/dev/kvm may not be opened: it is for {}", who_may(root, KVM));
            Finding::fail(
                subject,
                detail,
                "usermod --append --groups kvm USER, and log in again; where /dev/kvm is of no group, have udev give it to kvm",
            )
        }
        Err(error) => Finding::fail(
            subject,
            format!("/dev/kvm: {error}"),
            "enable virtualization in firmware, then load kvm_intel or kvm_amd",
        ),
    }
}

fn tap(root: &Path) -> Finding {
    let subject = "tap device";
    match opens(root, TUN) {
        Ok(()) => Finding::ok(subject, "/dev/net/tun may be opened"),
        Err(error) => Finding::warn(
            subject,
            format!("/dev/net/tun: {error}: no container can have a network"),
            "load the module tun; chmod 0666 /dev/net/tun, as udev does",
        ),
    }
}

/// systemd gives a user a cgroup whose limits are the user's to set.
fn delegation(root: &Path, user: &User) -> Finding {
    let subject = "cgroup of the user";
    let hint = "log in by way of systemd-logind, or: loginctl enable-linger USER";
    let uid = user.uid;
    let group = PathBuf::from(format!("sys/fs/cgroup/user.slice/user-{uid}.slice/user@{uid}.service"));
    let manager = root.join(format!("run/user/{uid}/systemd/private"));
    if access(root.join(&group).join("cgroup.procs"), Access::WRITE_OK).is_err() || !manager.exists() {
        let detail = "systemd has delegated none: microVMs stay in the cgroup of their caller, and the host bounds none of them";
        return Finding::warn(subject, detail, hint);
    }
    let controllers = fs::read_to_string(root.join(&group).join("cgroup.controllers")).unwrap_or_default();
    let has = |name: &&str| controllers.split_whitespace().any(|controller| controller == *name);
    let lacking: Vec<&str> = ["cpu", "memory", "pids"].into_iter().filter(|name| !has(name)).collect();
    if lacking.is_empty() {
        return Finding::ok(subject, "delegated by systemd with cpu, memory and pids");
    }
    Finding::warn(
        subject,
        format!("delegated by systemd without {}", lacking.join(", ")),
        "set Delegate=cpu memory pids for user@.service, and log in again",
    )
}

/// Whether vhost-net is for this user: without it the VMM moves the frames.
pub(super) fn may_use_vhost(root: &Path) -> bool {
    opens(root, VHOST.trim_start_matches('/')).is_ok()
}

fn opens(root: &Path, device: &str) -> io::Result<()> {
    Ok(access(root.join(device), Access::READ_OK | Access::WRITE_OK)?)
}

/// Owner, group and mode of a device, for people.
fn who_may(root: &Path, device: &str) -> String {
    let Ok(found) = fs::metadata(root.join(device)) else { return "others".to_owned() };
    let gid = found.gid().to_string();
    let groups = fs::read_to_string(root.join("etc/group")).unwrap_or_default();
    let named = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == gid).then(|| name.to_owned())
    });
    format!("user {} and group {} (mode {:04o})", found.uid(), named.unwrap_or(gid), found.mode() & 0o7777)
}

#[cfg(test)]
mod tests;
