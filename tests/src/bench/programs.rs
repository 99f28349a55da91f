//! Competitors as a machine with a warm page cache has them: copied to memory before anything is timed.
//!
//! The lab's root is a file server that forgets a file's pages at each open, so a program that is large, or started
//! often, would pay for the lab and not for itself. Bulkhead's own programs are copied by `make bench`, which sets
//! `BULKHEAD_STAGE` to the copy.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

const SEARCHED: [&str; 4] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"];

/// Copies of other projects' programs and their libraries in one directory.
#[derive(Debug)]
pub struct Programs {
    dir: PathBuf,
}

impl Programs {
    /// # Errors
    /// A program that is not installed, or no room.
    pub fn copied(names: &[&str], dir: PathBuf) -> io::Result<Self> {
        let libraries = dir.join("lib");
        fs::create_dir_all(&libraries)?;
        for name in names {
            let missing = || io::Error::new(io::ErrorKind::NotFound, format!("{name} is not installed"));
            let mut candidates = SEARCHED.iter().map(|place| Path::new(place).join(name));
            let program = candidates.find(|path| path.exists()).ok_or_else(missing)?;
            fs::copy(&program, dir.join(name))?;
            for library in needed(&program)? {
                fs::copy(&library, libraries.join(library.file_name().unwrap_or_default()))?;
            }
        }
        Ok(Self { dir })
    }

    /// The copy of one of the names.
    pub fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.dir.join(name));
        command.env("LD_LIBRARY_PATH", self.dir.join("lib"));
        command
    }
}

/// The libraries that the loader would open for a program: none for a static one.
fn needed(program: &Path) -> io::Result<Vec<PathBuf>> {
    // "	libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f...)"
    let listed = Command::new("ldd").arg(program).output()?;
    let text = String::from_utf8_lossy(&listed.stdout);
    let paths = text.lines().filter_map(|line| line.split_once(" => ")?.1.split_whitespace().next());
    Ok(paths.filter(|path| path.starts_with('/')).map(PathBuf::from).collect())
}
