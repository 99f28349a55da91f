//! The program: found in the container before parking, so that a missing one fails `create`; then exec'd.
//!
//! The search is the one callers know: with a slash the path itself, else each directory of PATH in the
//! container's own environment. The words of the errors are matched by callers and must stay as they are.

use std::{collections::HashSet, convert::Infallible, ffi::CString, fs};

use rustix::{
    fs::{Access, AtFlags, CWD, FileType, OFlags, accessat, stat},
    io::Errno,
};

use super::{
    error::{ContainerError, During, errno_text},
    path::Root,
};

/// Bytes of /etc/passwd that are searched for a home directory.
const PASSWD_MAX: usize = 1 << 20;

/// Ready to be exec'd, but for the release.
#[derive(Debug)]
pub(super) struct Program {
    name: String,
    path: CString,
    args: Vec<CString>,
    env: Vec<CString>,
}

impl Program {
    /// Looks `args[0]` up as the user we are, in the working directory we are in.
    pub(super) fn find(args: &[String], env: &[String]) -> Result<Self, ContainerError> {
        let name = args.first().ok_or_else(|| ContainerError::refused("process.args is empty"))?;
        let path = look_up(name, variable(env, "PATH").unwrap_or_default())
            .map_err(|problem| ContainerError::program(name, &problem))?;
        let strings = |list: &[String], what| -> Result<Vec<CString>, ContainerError> {
            list.iter().map(|text| CString::new(text.as_str()).map_err(|_| nul(what))).collect()
        };
        Ok(Self {
            name: name.clone(),
            path: CString::new(path).map_err(|_| nul("process.args"))?,
            args: strings(args, "process.args")?,
            env: strings(env, "process.env")?,
        })
    }

    /// Returns only with the reason why the kernel refused.
    pub(super) fn exec(&self) -> ContainerError {
        let answer: nix::Result<Infallible> = nix::unistd::execve(&self.path, &self.args, &self.env);
        match answer {
            Ok(never) => match never {},
            Err(errno) => ContainerError::program(&self.name, &errno_text(errno as i32)),
        }
    }
}

fn nul(what: &str) -> ContainerError {
    ContainerError::refused(format_args!("{what} contains a NUL byte"))
}

fn look_up(name: &str, path: &str) -> Result<String, String> {
    if name.contains('/') {
        return executable(name).map(|()| name.to_owned()).map_err(|errno| match errno {
            Errno::NOENT | Errno::NOTDIR => format!("stat {name}: {}", errno_text(errno.raw_os_error())),
            other => errno_text(other.raw_os_error()),
        });
    }
    if !name.is_empty() {
        for directory in path.split(':') {
            let directory = if directory.is_empty() { "." } else { directory };
            let candidate = format!("{directory}/{name}");
            if executable(&candidate).is_ok() {
                return Ok(candidate);
            }
        }
    }
    Err("executable file not found in $PATH".to_owned())
}

fn executable(path: &str) -> Result<(), Errno> {
    let kind = FileType::from_raw_mode(stat(path)?.st_mode);
    match kind {
        FileType::Directory => return Err(Errno::ISDIR),
        FileType::RegularFile => {}
        _ => return Err(Errno::ACCESS),
    }
    accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)
}

/// The environment for exec: the last value of a name counts, and HOME comes from the image where it is missing.
pub(super) fn environment(given: &[String], uid: u32, root: &Root) -> Vec<String> {
    let mut seen = HashSet::new();
    let mut env: Vec<String> =
        given.iter().rev().filter(|entry| seen.insert(name_of(entry))).cloned().collect();
    env.reverse();
    if variable(&env, "HOME").is_none_or(str::is_empty) {
        env.retain(|entry| name_of(entry) != "HOME");
        let passwd = read_passwd(root).unwrap_or_default();
        env.push(format!("HOME={}", home_of(&passwd, uid).unwrap_or("/")));
    }
    env
}

fn name_of(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(name, _)| name)
}

fn variable<'a>(env: &'a [String], name: &str) -> Option<&'a str> {
    env.iter().rev().find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='))
}

fn read_passwd(root: &Root) -> Option<String> {
    use std::io::Read as _;
    // The image may have put a fifo there: never wait for a writer.
    let file = root.open("/etc/passwd", OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY).ok()?;
    let file = fs::File::from(file);
    file.metadata().ok()?.is_file().then_some(())?;
    let mut text = Vec::new();
    file.take(PASSWD_MAX as u64).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// passwd(5): name:password:uid:gid:comment:directory:shell
fn home_of(passwd: &str, uid: u32) -> Option<&str> {
    let uid = uid.to_string();
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.nth(2)? == uid).then_some(())?;
        fields.nth(2).filter(|directory| directory.starts_with('/'))
    })
}

/// Enters the working directory. Tried as root first, again as the user when root may not (NFS-like mounts).
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entered {
    Yes,
    AgainAsUser,
}

pub(super) fn enter(directory: &str) -> Result<Entered, ContainerError> {
    match rustix::process::chdir(directory) {
        Ok(()) => Ok(Entered::Yes),
        Err(Errno::ACCESS | Errno::PERM) => Ok(Entered::AgainAsUser),
        Err(errno) => Err(errno).during("enter working directory", directory),
    }
}

/// The working directory must be below our root: a descriptor that leaked from outside would make it lead to the
/// guest's own tree (CVE-2024-21626).
pub(super) fn check_working_directory() -> Result<(), ContainerError> {
    let path = rustix::process::getcwd(Vec::new()).during("check", "working directory")?;
    if path.as_bytes().starts_with(b"/") {
        return Ok(());
    }
    Err("it is outside of the container's root").during("check", "working directory")
}

#[cfg(test)]
mod tests;
