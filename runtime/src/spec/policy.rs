//! What the operator lets a bundle ask for: the part of the configuration that specs are checked against.

use serde::Deserialize;

/// The defaults allow nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// Settings of no namespace that `linux.sysctl` may change, for the whole guest.
    pub sysctls: AllowedSysctls,
    pub apparmor: Apparmor,
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

#[cfg(test)]
mod tests;
