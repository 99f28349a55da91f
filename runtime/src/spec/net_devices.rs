//! `linux.netDevices`: interfaces of the host that move into the container's network namespace.

use std::collections::{BTreeMap, BTreeSet};

use super::{SpecError, raw};

/// `IFNAMSIZ`, without the NUL at the end.
const NAME_MAX: usize = 15;

/// An interface of the host that the container gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetDevice {
    /// The JSON path that names it.
    pub field: String,
    /// Its name in the network namespace of who creates the container.
    pub interface: String,
    /// Its name in the container.
    pub name: String,
}

/// In the order of the names on the host.
pub(super) fn parse(raw: &BTreeMap<String, raw::NetDevice>) -> Result<Vec<NetDevice>, SpecError> {
    let mut names = BTreeSet::new();
    let one = |(interface, device): (&String, &raw::NetDevice)| {
        let field = format!("linux.netDevices[{interface:?}]");
        check(interface, || field.clone())?;
        let name = device.name.as_ref().filter(|name| !name.is_empty()).unwrap_or(interface);
        check(name, || format!("{field}.name"))?;
        if !names.insert(name.clone()) {
            let reason = format!("another interface is to have the name {name} too");
            return Err(SpecError::Invalid { field, reason });
        }
        Ok(NetDevice { field, interface: interface.clone(), name: name.clone() })
    };
    raw.iter().map(one).collect()
}

/// As the kernel's `dev_valid_name`. A name with `%` would be a pattern.
fn check(name: &str, field: impl FnOnce() -> String) -> Result<(), SpecError> {
    let bad = |byte: u8| byte.is_ascii_whitespace() || byte.is_ascii_control() || b"/:%".contains(&byte);
    let valid = !matches!(name, "" | "." | "..") && name.len() <= NAME_MAX && !name.bytes().any(bad);
    if valid {
        return Ok(());
    }
    Err(SpecError::Invalid { field: field(), reason: format!("{name:?} is no name of an interface") })
}

#[cfg(test)]
mod tests;
