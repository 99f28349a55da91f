//! `hooks`: programs of the host for five steps of a container's life, and of the container for `startContainer`.

use bulkhead_protocol::hook::Hook;

use super::{
    Hooks, SpecError,
    process::{check_absolute, check_variable, refuse_nul},
    raw,
};

/// In the order in which they run.
const NAMES: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// For `features`.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    NAMES.into_iter()
}

pub(super) fn parse(raw: &raw::Hooks) -> Result<Hooks, SpecError> {
    let [prestart, create_runtime, create_container, start_container, poststart, poststop] = NAMES;
    Ok(Hooks {
        prestart: list(&raw.prestart, prestart)?,
        create_runtime: list(&raw.create_runtime, create_runtime)?,
        create_container: list(&raw.create_container, create_container)?,
        start_container: list(&raw.start_container, start_container)?,
        poststart: list(&raw.poststart, poststart)?,
        poststop: list(&raw.poststop, poststop)?,
    })
}

fn list(raw: &[raw::Hook], name: &str) -> Result<Vec<Hook>, SpecError> {
    raw.iter().enumerate().map(|(index, hook)| one(hook, &format!("hooks.{name}[{index}]"))).collect()
}

fn one(raw: &raw::Hook, field: &str) -> Result<Hook, SpecError> {
    let path = raw.path.as_deref().filter(|path| !path.is_empty());
    let path = path.ok_or_else(|| SpecError::Missing { field: format!("{field}.path") })?;
    check_absolute(path, || format!("{field}.path"))?;
    for (index, argument) in raw.args.iter().enumerate() {
        refuse_nul(argument, || format!("{field}.args[{index}]"))?;
    }
    for (index, variable) in raw.env.iter().enumerate() {
        check_variable(variable, || format!("{field}.env[{index}]"))?;
    }
    let timeout = raw.timeout.map(|seconds| {
        u32::try_from(seconds).ok().filter(|seconds| *seconds > 0).ok_or_else(|| SpecError::Invalid {
            field: format!("{field}.timeout"),
            reason: format!("{seconds} is not a number of seconds above 0"),
        })
    });
    Ok(Hook {
        path: path.to_owned(),
        args: raw.args.clone(),
        env: raw.env.clone(),
        timeout: timeout.transpose()?,
    })
}

#[cfg(test)]
mod tests;
