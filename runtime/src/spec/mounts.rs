//! `mounts`: each becomes one mount of the guest; a bind also becomes an `Export`, the one host file or directory
//! that the guest sees for it.
//!
//!   bind  source (host) ─Export <id>/mounts/<n>─▶ a volume of the sandbox ─MountSource::Export─▶ destination
//!   ext4, erofs  source (host) ─DiskMount <id>/disks/<n>─▶ a disk of the guest ─MountSource::Export─▶ destination
//!   other type ─MountSource::Filesystem, made by the guest's kernel─▶ destination
//!
//! The host looks at a source once, through symlinks, to refuse what a share cannot carry, and sockets that the operator does not
//! allow.

use std::{
    fs, io,
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
};

use bulkhead_protocol::{
    container::{DiskFilesystem, IdMap, IdMapping, Mount, MountSource, PropagationMode, SharePath},
    id::ContainerId,
    limits,
};

use super::{
    AllowedSockets, DiskMount, Export, ExportKind, SpecError, disks,
    namespaces::checked,
    options::Options,
    process::{check_absolute, refuse_nul},
    raw,
};

/// Filesystems that the guest makes.
const FILESYSTEMS: [&str; 5] = ["proc", "sysfs", "tmpfs", "devpts", "mqueue"];

/// The mounts in order, and what the host must share for them.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    pub mounts: Vec<Mount>,
    pub exports: Vec<Export>,
    pub disks: Vec<DiskMount>,
}

/// The maps of the container's user namespace; empty without one.
#[derive(Debug, Clone, Copy)]
pub(super) struct OwnMaps<'a> {
    pub uids: &'a [IdMapping],
    pub gids: &'a [IdMapping],
}

pub(super) fn parse(
    raw: &[raw::Mount],
    bundle: &Path,
    id: &ContainerId,
    own_maps: OwnMaps<'_>,
    sockets: &AllowedSockets,
    warnings: &mut Vec<String>,
) -> Result<Mounts, SpecError> {
    if raw.len() > limits::MOUNTS {
        let reason = format!("{} are more than {}", raw.len(), limits::MOUNTS);
        return Err(SpecError::Invalid { field: "mounts".into(), reason });
    }
    let mut all = Mounts::default();
    for (index, mount) in raw.iter().enumerate() {
        let field = |name: &str| format!("mounts[{index}].{name}");
        let destination =
            mount.destination.clone().ok_or_else(|| SpecError::Missing { field: field("destination") })?;
        check_absolute(&destination, || field("destination"))?;
        for (option, text) in mount.options.iter().enumerate() {
            refuse_nul(text, || format!("mounts[{index}].options[{option}]"))?;
        }
        let mut options = Options::parse(&mount.options);
        let source = if options.bind.is_some() || mount.kind.as_deref() == Some("bind") {
            let export = export(mount, &options, index, bundle, id, all.exports.len(), sockets)?;
            as_bind(&mut options, index, warnings)?;
            let source = MountSource::Export { name: export.share.clone() };
            all.exports.push(export);
            source
        } else if options.remount {
            remount(&options, index)?
        } else if let Some(filesystem) = disks::filesystem_of(mount) {
            let named = host_source(mount, index, bundle)?;
            let disk = disks::of_mount(&named, filesystem, &mut options, index, (id, all.disks.len()))?;
            let source = MountSource::Export { name: disk.name.clone() };
            all.disks.push(disk);
            source
        } else {
            filesystem(mount, index)?
        };
        let is_bind = all.exports.last().is_some_and(|export| source.is_export(&export.share));
        let can_map = is_bind || source.is_tmpfs();
        let mut id_map = id_map(mount, &options, can_map, index, own_maps)?;
        if options.copy_up && !source.is_tmpfs() {
            let reason = "only a tmpfs can have tmpcopyup".to_owned();
            return Err(SpecError::Refused { field: format!("{} tmpcopyup", field("options")), reason });
        }
        if let (true, Some(export)) = (is_bind, all.exports.last_mut()) {
            // The guest's kernel cannot map the ids of a directory in the share: each is a filesystem of its own there.
            export.id_map = id_map.take();
            if export.kind == ExportKind::Socket && export.id_map.is_some() {
                let reason = "a unix socket of the host has no id mapping".to_owned();
                return Err(SpecError::Refused { field: field("source"), reason });
            }
        }
        all.mounts.push(Mount {
            destination,
            source,
            set: options.set,
            clear: options.clear,
            recursive_set: options.recursive_set,
            recursive_clear: options.recursive_clear,
            super_flags: options.super_flags,
            data: options.data,
            propagation: options.propagation,
            copy_up: options.copy_up,
            id_map,
        });
    }
    Ok(all)
}

/// The attributes of what an earlier entry has mounted there. Its filesystem may be the guest's own as well, so what
/// belongs to that stays.
fn remount(options: &Options, index: usize) -> Result<MountSource, SpecError> {
    match options.super_flags.iter().chain(&options.data).next() {
        None => Ok(MountSource::Remount),
        Some(option) => {
            let field = format!("mounts[{index}].options {option:?} with remount");
            let reason = "a filesystem keeps the options it was mounted with".to_owned();
            Err(SpecError::Refused { field, reason })
        }
    }
}

/// The mappings of the mount. A mount with `idmap` and without mappings gets the mappings of the container.
fn id_map(
    mount: &raw::Mount,
    options: &Options,
    can_map: bool,
    index: usize,
    own: OwnMaps<'_>,
) -> Result<Option<IdMap>, SpecError> {
    let field = |name: &str| format!("mounts[{index}].{name}");
    let (uids, gids) = match (mount.uid_mappings.is_empty(), mount.gid_mappings.is_empty()) {
        (true, true) if options.id_map.is_none() => return Ok(None),
        (true, true) if own.uids.is_empty() => {
            let reason =
                "an id-mapped mount needs its own mappings, or a user namespace of the container".to_owned();
            return Err(SpecError::Invalid { field: field("options idmap or ridmap"), reason });
        }
        (true, true) => (own.uids.to_vec(), own.gids.to_vec()),
        (false, false) => (
            checked(&mount.uid_mappings, &field("uidMappings"))?,
            checked(&mount.gid_mappings, &field("gidMappings"))?,
        ),
        (uids, _) => {
            let missing = if uids { "uidMappings" } else { "gidMappings" };
            return Err(SpecError::Missing { field: field(missing) });
        }
    };
    if !can_map {
        let reason = "only a bind or a tmpfs can have an id mapping".to_owned();
        return Err(SpecError::Refused { field: field("type"), reason });
    }
    Ok(Some(IdMap { uids, gids, recursive: options.id_map == Some(true) }))
}

fn filesystem(mount: &raw::Mount, index: usize) -> Result<MountSource, SpecError> {
    let field = || format!("mounts[{index}].type");
    let kind = mount.kind.as_deref().unwrap_or_default();
    let source = mount.source.clone().unwrap_or_else(|| kind.to_owned());
    refuse_nul(&source, || format!("mounts[{index}].source"))?;
    match kind {
        "" | "none" => Err(SpecError::Missing { field: field() }),
        "cgroup" | "cgroup2" => Ok(MountSource::Cgroup),
        _ if FILESYSTEMS.contains(&kind) => Ok(MountSource::Filesystem { kind: kind.to_owned(), source }),
        _ => {
            let disks = DiskFilesystem::ALL.map(DiskFilesystem::name).join(", ");
            let others = FILESYSTEMS.join(", ");
            let reason = format!("{kind:?} is not one of bind, cgroup, cgroup2, {others}, {disks}");
            Err(SpecError::Refused { field: field(), reason })
        }
    }
}

/// A path of the host that a mount names, as it is written.
fn host_source(mount: &raw::Mount, index: usize, bundle: &Path) -> Result<PathBuf, SpecError> {
    let field = || format!("mounts[{index}].source");
    let source = mount.source.as_deref().filter(|source| !source.is_empty());
    let source = source.ok_or_else(|| SpecError::Missing { field: field() })?;
    refuse_nul(source, field)?;
    Ok(bundle.join(source))
}

fn export(
    mount: &raw::Mount,
    options: &Options,
    index: usize,
    bundle: &Path,
    id: &ContainerId,
    number: usize,
    sockets: &AllowedSockets,
) -> Result<Export, SpecError> {
    let field = || format!("mounts[{index}].source");
    let named = host_source(mount, index, bundle)?;
    let (source, kind) = look_at(&named, sockets).map_err(|refusal| match refusal {
        Refusal::Io(source) => SpecError::Path { field: field(), path: named.clone(), source },
        Refusal::Kind(reason) => {
            SpecError::Refused { field: field(), reason: format!("{} {reason}", named.display()) }
        }
    })?;
    let share = SharePath::try_from(format!("{id}/mounts/{number}"))
        .map_err(|error| SpecError::Invalid { field: field(), reason: error.to_string() })?;
    let recursive = options.bind == Some(true);
    Ok(Export {
        source,
        share,
        kind,
        read_only: options.read_only(),
        read_only_recursive: recursive && options.read_only_recursive(),
        recursive,
        shared_memory: is_shared_memory(mount.destination.as_deref()),
        id_map: None,
    })
}

/// By its name alone: what the image has there, such as a link to /run/shm, is the guest's to follow.
fn is_shared_memory(destination: Option<&str>) -> bool {
    let names =
        destination.into_iter().flat_map(|path| path.split('/')).filter(|name| !matches!(*name, "" | "."));
    names.eq(["dev", "shm"])
}

enum Refusal {
    Io(io::Error),
    Kind(&'static str),
}

/// The real path of a bind's source, and what it is.
fn look_at(path: &Path, sockets: &AllowedSockets) -> Result<(PathBuf, ExportKind), Refusal> {
    let path = fs::canonicalize(path).map_err(Refusal::Io)?;
    let kind = fs::metadata(&path).map_err(Refusal::Io)?.file_type();
    if kind.is_dir() {
        Ok((path, ExportKind::Directory))
    } else if kind.is_file() {
        Ok((path, ExportKind::File))
    } else if kind.is_socket() && sockets.allow(&path) {
        Ok((path, ExportKind::Socket))
    } else if kind.is_socket() {
        Err(Refusal::Kind(
            "is a unix socket: what listens on it is on the host, outside of the microVM, and no pattern in host_sockets of the \
             configuration fits its real path",
        ))
    } else if kind.is_fifo() {
        Err(Refusal::Kind("is a fifo: its other end is on the host, outside of the microVM"))
    } else {
        Err(Refusal::Kind("is a device of the host, which the microVM does not have"))
    }
}

/// What a bind cannot do with some options.
fn as_bind(options: &mut Options, index: usize, warnings: &mut Vec<String>) -> Result<(), SpecError> {
    match options.propagation.map(|propagation| propagation.mode) {
        Some(PropagationMode::Shared) => {
            let reason = "mounts of the container cannot appear on the host".to_owned();
            return Err(SpecError::Refused {
                field: format!("mounts[{index}].options shared or rshared"),
                reason,
            });
        }
        Some(PropagationMode::Slave) => {
            // A mount that propagates brings its own attributes: below a read-only volume it would be writable.
            warnings
                .push(format!("mounts[{index}]: later mounts of the host do not appear in the container"));
        }
        Some(PropagationMode::Private | PropagationMode::Unbindable) | None => {}
    }
    // mount(2) with MS_BIND ignores both, so callers pass on what they were given.
    if !options.data.is_empty() {
        warnings.push(format!("mounts[{index}]: {} has no meaning for a bind", options.data.join(",")));
    }
    options.data.clear();
    options.super_flags.clear();
    Ok(())
}

#[cfg(test)]
mod tests;
