//! What the operator lets a bundle ask for: the part of the configuration that specs are checked against.

use std::path::Path;

use serde::Deserialize;

/// The defaults allow nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// Settings of no namespace that `linux.sysctl` may change, for the whole guest.
    pub sysctls: AllowedSysctls,
    pub apparmor: Apparmor,
    /// Unix sockets of the host that a bundle may mount.
    pub sockets: AllowedSockets,
}

/// What becomes of a `process.apparmorProfile`: the guest has no AppArmor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Apparmor {
    /// A warning. Callers give every container a profile where the host has AppArmor.
    #[default]
    Warn,
    Refuse,
}

/// Names with dots (`vm.swappiness`), and prefixes that end with `.*`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedSysctls(Vec<String>);

impl AllowedSysctls {
    pub(super) fn allow(&self, name: &str) -> bool {
        self.0.iter().any(|allowed| match allowed.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == allowed,
        })
    }
}

impl TryFrom<Vec<String>> for AllowedSysctls {
    type Error = String;

    fn try_from(list: Vec<String>) -> Result<Self, String> {
        let sound = |entry: &String| {
            let name = entry.strip_suffix(".*").unwrap_or(entry);
            let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-');
            name.split('.').all(|part| !part.is_empty() && part.chars().all(plain))
        };
        match list.iter().find(|entry| !sound(entry)) {
            None => Ok(Self(list)),
            Some(entry) => {
                Err(format!("{entry:?} is neither a name such as vm.swappiness nor a prefix such as vm.*"))
            }
        }
    }
}

/// Absolute paths, in whose names `*` stands for any letters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedSockets(Vec<String>);

/// Patterns of sockets.
const SOCKETS: usize = 256;

impl AllowedSockets {
    /// Whether a path without links is that of a socket which may be mounted.
    pub(super) fn allow(&self, path: &Path) -> bool {
        let matches = |pattern: &String| {
            let (mut names, mut patterns) = (path.iter().skip(1), pattern.split('/').skip(1));
            loop {
                match (names.next(), patterns.next()) {
                    (None, None) => return true,
                    (Some(name), Some(pattern))
                        if name.to_str().is_some_and(|name| is_like(name, pattern)) => {}
                    _ => return false,
                }
            }
        };
        path.is_absolute() && self.0.iter().any(matches)
    }
}

/// Whether a name is the parts of the pattern in their order, with anything for each `*` between them.
fn is_like(name: &str, pattern: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return name == pattern };
    let Some(mut name) = name.strip_prefix(first) else { return false };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    // The first place that fits leaves the most for what follows.
    for part in middle.split('*') {
        let Some(at) = name.find(part) else { return false };
        name = &name[at + part.len()..];
    }
    name.ends_with(last)
}

impl TryFrom<Vec<String>> for AllowedSockets {
    type Error = String;

    fn try_from(list: Vec<String>) -> Result<Self, String> {
        if list.len() > SOCKETS {
            return Err(format!("{} patterns are more than {SOCKETS}", list.len()));
        }
        let sound = |entry: &String| {
            let plain = |name: &str| !matches!(name, "" | "." | ".." | "**") && !name.contains('\0');
            entry.strip_prefix('/').is_some_and(|names| names.split('/').all(plain))
        };
        match list.iter().find(|entry| !sound(entry)) {
            None => Ok(Self(list)),
            Some(entry) => {
                Err(format!("{entry:?} is no absolute path of plain names, such as /run/spire/agent/*.sock"))
            }
        }
    }
}

#[cfg(test)]
mod tests;
