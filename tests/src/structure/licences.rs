//! Dependencies under a licence, or from a place, that `deny.toml` does not allow. cargo-deny (`make audit`) goes by the same
//! file, but takes minutes to build; this is there wherever the tests are.

use std::collections::BTreeSet;

use spdx::{Expression, LicenseReq, ParseMode};

/// A package as `cargo metadata` describes it.
#[derive(Debug, serde::Deserialize)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) license: Option<String>,
    /// None for those of the workspace.
    pub(super) source: Option<String>,
}

/// The licences that `deny.toml` allows.
pub(super) fn allowed(deny: &str) -> BTreeSet<String> {
    #[derive(serde::Deserialize)]
    struct Deny {
        licenses: Licenses,
    }
    #[derive(serde::Deserialize)]
    struct Licenses {
        allow: BTreeSet<String>,
    }
    toml::from_str::<Deny>(deny).expect("deny.toml has a list of licences").licenses.allow
}

/// One line for each package that is not allowed.
pub(super) fn refused(packages: &[Package], allowed: &BTreeSet<String>) -> Vec<String> {
    let refused = |package: &Package| {
        let Package { name, version, license, source } = package;
        if source.as_ref().is_some_and(|source| !source.starts_with("registry+")) {
            return Some(format!("{name} {version} is not from a registry"));
        }
        match license {
            None => Some(format!("{name} {version} names no licence")),
            Some(license) if may_be_used(license, allowed) => None,
            Some(license) => Some(format!("{name} {version} is under {license}")),
        }
    };
    packages.iter().filter_map(refused).collect()
}

/// Whether the allowed licences are enough for the expression. One with an exception is another licence.
fn may_be_used(license: &str, allowed: &BTreeSet<String>) -> bool {
    let is_allowed = |asked: &LicenseReq| {
        asked.addition.is_none() && asked.license.id().is_some_and(|id| allowed.contains(id.name))
    };
    Expression::parse_mode(license, ParseMode::LAX).is_ok_and(|expression| expression.evaluate(is_allowed))
}
