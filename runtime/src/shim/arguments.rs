//! The command line of a shim, which is that of Go's `flag`: `-id ID`, `--id ID`, `-id=ID`, then the action.

use std::{ffi::OsString, path::PathBuf};

use bulkhead_protocol::id::{ContainerId, IdError};

/// Bytes of a namespace's name; containerd's own bound.
const NAMESPACE_MAX: usize = 76;

#[derive(Debug, thiserror::Error)]
pub(super) enum ArgumentsError {
    #[error("the argument {0:?} is not UTF-8")]
    Text(OsString),
    #[error("-{0} needs a value")]
    Value(String),
    #[error("unknown flag {0}")]
    Flag(String),
    #[error("the action is `start` or `delete`, not {0:?}")]
    Action(String),
    #[error("say what to do: `start` or `delete`")]
    NoAction,
    #[error("-id")]
    Id(#[source] IdError),
    #[error("-namespace {0:?} is not a name: letters, digits, `.`, `_` and `-`, at most 76")]
    Namespace(String),
}

/// What a shim is called for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Start,
    Delete,
    /// The daemon that `start` leaves behind.
    Serve,
    Info,
    /// CRI-O's two questions.
    Version,
    Features,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Arguments {
    pub(super) action: Action,
    /// containerd's namespace: ids are unique in one.
    pub(super) namespace: String,
    /// `None` only for questions about the shim.
    pub(super) id: Option<ContainerId>,
    /// Of `delete`, whose working directory is the bundle as well.
    pub(super) bundle: Option<PathBuf>,
    pub(super) debug: bool,
}

impl Arguments {
    /// # Errors
    /// What is not one of a shim's command lines.
    pub(super) fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Self, ArgumentsError> {
        let mut words = arguments.map(|word| word.into_string().map_err(ArgumentsError::Text));
        let mut action = None;
        let (mut id, mut namespace, mut bundle, mut debug) = (None, None, None, false);
        while let Some(word) = words.next().transpose()? {
            let Some(flag) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
                action = Some(named(word)?);
                continue;
            };
            let (flag, given) = match flag.split_once('=') {
                Some((flag, value)) => (flag, Some(value.to_owned())),
                None => (flag, None),
            };
            match flag {
                "debug" => debug = given.is_none_or(|value| value != "false"),
                "v" | "version" => action = Some(Action::Version),
                "info" => action = Some(Action::Info),
                "namespace" | "id" | "bundle" | "address" | "publish-binary" | "socket" => {
                    let value = given.map_or_else(|| words.next().transpose(), |value| Ok(Some(value)))?;
                    let value = value.ok_or_else(|| ArgumentsError::Value(flag.to_owned()))?;
                    match flag {
                        "namespace" => namespace = Some(checked(value)?),
                        "id" => id = Some(value),
                        "bundle" => bundle = Some(PathBuf::from(value)),
                        // Events go to TTRPC_ADDRESS, and the address is the shim's to choose.
                        _ => {}
                    }
                }
                _ => return Err(ArgumentsError::Flag(word)),
            }
        }
        let action = action.ok_or(ArgumentsError::NoAction)?;
        let about_a_container = matches!(action, Action::Start | Action::Delete | Action::Serve);
        let id = about_a_container.then(|| id.unwrap_or_default().parse()).transpose();
        let id = id.map_err(ArgumentsError::Id)?;
        Ok(Self { action, namespace: namespace.unwrap_or_else(|| "default".to_owned()), id, bundle, debug })
    }
}

fn named(word: String) -> Result<Action, ArgumentsError> {
    Ok(match word.as_str() {
        "start" => Action::Start,
        "delete" => Action::Delete,
        "serve" => Action::Serve,
        "features" => Action::Features,
        _ => return Err(ArgumentsError::Action(word)),
    })
}

/// It becomes a part of paths.
fn checked(name: String) -> Result<String, ArgumentsError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let is_name = name.len() <= NAMESPACE_MAX
        && name.bytes().all(plain)
        && name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if is_name { Ok(name) } else { Err(ArgumentsError::Namespace(name)) }
}

#[cfg(test)]
mod tests;
