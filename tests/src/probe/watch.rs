//! `probe watch`: an inotify watcher that says what it hears, and what it sees when it looks right then.
//!
//!   CREATE /data/new        CLOSE_WRITE /data/new =fresh        MOVED_TO /data/other #1 =fresh        IGNORED /data/gone
//!
//! One line for each event: its name, the path, a number that joins a rename, and the content of the file, or of the file
//! `key` in a directory. `PATH/*` watches each directory in PATH.

use std::{
    collections::HashMap,
    fs, io,
    mem::MaybeUninit,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

const EVENTS: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF);

/// Watches until it is killed. `say` gets the lines, `watching` first.
///
/// # Errors
/// The first watch that cannot be had.
pub fn watch(paths: &[&str], say: impl Fn(&str)) -> io::Result<()> {
    let group = inotify::init(CreateFlags::CLOEXEC)?;
    let mut watched = HashMap::new();
    for path in paths {
        for path in expanded(path)? {
            watched.insert(inotify::add_watch(&group, &path, EVENTS)?, path);
        }
    }
    say("watching");
    let mut renames = Vec::new();
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(&group, &mut buffer);
    loop {
        let event = events.next()?;
        let mut path = watched.get(&event.wd()).cloned().unwrap_or_default();
        if let Some(name) = event.file_name() {
            path.push(std::ffi::OsStr::from_bytes(name.to_bytes()));
        }
        let names: Vec<_> = event.events().iter_names().map(|(name, _)| name).collect();
        let mut line = format!("{} {}", names.join("|"), path.display());
        if event.cookie() != 0 {
            let known = renames.iter().position(|cookie| *cookie == event.cookie());
            let number = known.unwrap_or_else(|| {
                renames.push(event.cookie());
                renames.len() - 1
            });
            line += &format!(" #{}", number + 1);
        }
        let changed = ReadFlags::CLOSE_WRITE | ReadFlags::MOVED_TO;
        if event.events().intersects(changed)
            && let Ok(content) = content(&path)
        {
            line += &format!(" ={content}");
        }
        say(&line);
    }
}

fn content(path: &Path) -> io::Result<String> {
    fs::read_to_string(path).or_else(|_| fs::read_to_string(path.join("key")))
}

fn expanded(path: &str) -> io::Result<Vec<PathBuf>> {
    match path.strip_suffix("/*") {
        Some(directory) => fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect(),
        None => Ok(vec![path.into()]),
    }
}
