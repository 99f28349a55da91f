//! Finds the host processes of a container, which no command names.

use std::{fs, path::PathBuf};

/// The pid of the process whose executable is `name`, whose command line has all `words`, and whose command line or
/// cgroup has `id`.
pub fn process(name: &str, words: &[&str], id: &str) -> Option<u32> {
    let ours = |path: PathBuf| {
        let pid = path.file_name()?.to_str()?.parse().ok()?;
        let exe = fs::read_link(path.join("exe")).ok()?;
        let read =
            |file: &str| String::from_utf8_lossy(&fs::read(path.join(file)).unwrap_or_default()).into_owned();
        let cmdline = read("cmdline").replace('\0', " ");
        let named = cmdline.contains(id) || read("cgroup").contains(id);
        (exe.ends_with(name) && named && words.iter().all(|word| cmdline.contains(word))).then_some(pid)
    };
    fs::read_dir("/proc").into_iter().flatten().flatten().find_map(|entry| ours(entry.path()))
}
