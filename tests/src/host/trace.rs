//! Looks for what a container may leave behind: processes, cgroups, mounts, sockets, state directories.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Everything on the machine that names `id`, or lies in the state root under that name.
pub(super) fn of(id: &str, root: &Path) -> Vec<String> {
    let mut left = Vec::new();
    left.extend(processes(id));
    left.extend(
        cgroups(Path::new("/sys/fs/cgroup"), id).into_iter().map(|path| format!("cgroup {}", path.display())),
    );
    left.extend(lines("/proc/thread-self/mountinfo", id).map(|line| format!("mount {line}")));
    left.extend(lines("/proc/net/unix", id).map(|line| format!("socket {line}")));
    // Containers and, beside them, sandboxes.
    let directories = [root.to_owned(), root.join("@sandboxes")];
    let states = directories.iter().flat_map(|path| fs::read_dir(path).into_iter().flatten().flatten());
    left.extend(
        states
            .filter(|entry| entry.file_name().to_string_lossy().contains(id))
            .map(|entry| format!("state {}", entry.path().display())),
    );
    left
}

/// Processes with the id on their command line or in their cgroup's path, but for this one and zombies.
fn processes(id: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        if pid == std::process::id() {
            continue;
        }
        let read = |file: &str| fs::read(entry.path().join(file)).unwrap_or_default();
        let cmdline = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
        let cgroup = String::from_utf8_lossy(&read("cgroup")).into_owned();
        let zombie = String::from_utf8_lossy(&read("stat")).contains(") Z ");
        if !zombie && (cmdline.contains(id) || cgroup.contains(id)) {
            found.push(format!("process {pid}: {cmdline} {}", cgroup.trim()));
        }
    }
    found
}

fn cgroups(dir: &Path, id: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if entry.file_name().to_string_lossy().contains(id) {
                found.push(entry.path());
            }
            found.extend(cgroups(&entry.path(), id));
        }
    }
    found
}

fn lines(file: &str, id: &str) -> impl Iterator<Item = String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let id = id.to_owned();
    text.lines().filter(move |line| line.contains(&id)).map(str::to_owned).collect::<Vec<_>>().into_iter()
}
