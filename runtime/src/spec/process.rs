//! A `process` object: of `config.json`, of `exec --process`, or the container's own as changed by the flags of
//! `exec`. User and group ids are numbers in a spec; names belong to whoever made it.

use bulkhead_protocol::container::{ProcessSpec, User};

use super::{Apparmor, ExecFlags, Policy, SpecError, capabilities, raw, rlimits, scheduling};

/// Permission bits, with setuid, setgid and sticky.
const UMASK_MAX: u32 = 0o777;
/// The profile that confines nothing.
const UNCONFINED: &str = "unconfined";
/// What oom_score_adj of proc(5) takes.
const OOM_SCORE_ADJ: std::ops::RangeInclusive<i32> = -1000..=1000;

/// Errors name their field with `process` in front.
pub(super) fn check(
    raw: &raw::Process,
    policy: &Policy,
    warnings: &mut Vec<String>,
) -> Result<ProcessSpec, SpecError> {
    if raw.args.is_empty() {
        return Err(SpecError::Missing { field: "process.args".into() });
    }
    for (index, argument) in raw.args.iter().enumerate() {
        refuse_nul(argument, || format!("process.args[{index}]"))?;
    }
    for (index, variable) in raw.env.iter().enumerate() {
        check_variable(variable, || format!("process.env[{index}]"))?;
    }
    let cwd = raw.cwd.clone().ok_or_else(|| SpecError::Missing { field: "process.cwd".into() })?;
    check_absolute(&cwd, || "process.cwd".into())?;
    if raw.oom_score_adj.is_some_and(|score| !OOM_SCORE_ADJ.contains(&score)) {
        return Err(invalid("process.oomScoreAdj", "is not between -1000 and 1000"));
    }
    // These name profiles of the host's security module; the guest has none, and the VM is the wall instead.
    if raw.apparmor_profile.as_deref().is_some_and(|profile| !matches!(profile, "" | UNCONFINED)) {
        match policy.apparmor {
            Apparmor::Warn => {
                warnings.push("process.apparmorProfile is not applied: the guest has no AppArmor".into());
            }
            Apparmor::Refuse => {
                let reason = "the guest has no AppArmor".to_owned();
                return Err(SpecError::Refused { field: "process.apparmorProfile".into(), reason });
            }
        }
    }
    if raw.selinux_label.as_deref().is_some_and(|label| !label.is_empty()) {
        warnings.push("process.selinuxLabel is not applied: the guest has no SELinux".into());
    }
    Ok(ProcessSpec {
        args: raw.args.clone(),
        env: raw.env.clone(),
        cwd,
        user: check_user(&raw.user)?,
        terminal: raw.terminal,
        console_size: console_size(raw)?,
        // Whoever is to have the terminal knows.
        plain_line_feeds: false,
        capabilities: raw
            .capabilities
            .as_ref()
            .map(|sets| capabilities::parse(sets, warnings))
            .transpose()?,
        rlimits: rlimits::parse(&raw.rlimits)?,
        // The command knows whose they are.
        inherited_rlimits: Vec::new(),
        no_new_privileges: raw.no_new_privileges,
        oom_score_adj: raw.oom_score_adj,
        scheduling: scheduling::parse(raw)?,
    })
}

fn check_user(raw: &raw::User) -> Result<User, SpecError> {
    // -1 is "leave it as it is" for setresuid and setresgid: the process would stay root.
    let ids = [("uid", raw.uid), ("gid", raw.gid)]
        .into_iter()
        .map(|(name, id)| (format!("process.user.{name}"), id));
    let more = raw.additional_gids.iter().enumerate();
    let more = more.map(|(index, gid)| (format!("process.user.additionalGids[{index}]"), *gid));
    for (field, id) in ids.chain(more) {
        if id == u32::MAX {
            return Err(SpecError::Invalid { field, reason: format!("{id} is not an id") });
        }
    }
    if raw.umask.is_some_and(|umask| umask > UMASK_MAX) {
        return Err(invalid(
            "process.user.umask",
            "has more than permission bits (511, 0777 in octal, is the most)",
        ));
    }
    let additional_gids = raw.additional_gids.clone();
    Ok(User { uid: raw.uid, gid: raw.gid, additional_gids, umask: raw.umask })
}

/// Ignored without a terminal, as the spec says.
fn console_size(raw: &raw::Process) -> Result<Option<(u16, u16)>, SpecError> {
    let size = match &raw.console_size {
        Some(size) if raw.terminal => size,
        _ => return Ok(None),
    };
    let side = |name: &str, value: u64| {
        let field = format!("process.consoleSize.{name}");
        u16::try_from(value).map_err(|_| invalid(&field, &format!("{value} is more than 65535")))
    };
    Ok(Some((side("width", size.width)?, side("height", size.height)?)))
}

/// What `exec` runs: `raw` is the container's own process.
pub(super) fn with_flags(mut raw: raw::Process, flags: &ExecFlags) -> Result<raw::Process, SpecError> {
    raw.args = flags.args.clone();
    for variable in &flags.env {
        check_variable(variable, || "--env".into())?;
    }
    raw.env.extend(flags.env.iter().cloned());
    if let Some(cwd) = &flags.cwd {
        check_absolute(cwd, || "--cwd".into())?;
        raw.cwd = Some(cwd.clone());
    }
    if let Some(user) = &flags.user {
        let (uid, gid) = user.split_once(':').map_or((user.as_str(), None), |(uid, gid)| (uid, Some(gid)));
        let id = |text: &str| {
            text.parse::<u32>()
                .map_err(|_| invalid("--user", &format!("{text:?} is not a number (UID or UID:GID)")))
        };
        raw.user.uid = id(uid)?;
        if let Some(gid) = gid {
            raw.user.gid = id(gid)?;
        }
    }
    raw.user.additional_gids.extend(&flags.additional_gids);
    raw.terminal = flags.terminal;
    // The size of the container's terminal says nothing about the caller's terminal.
    raw.console_size = None;
    raw.no_new_privileges |= flags.no_new_privileges;
    for (given, own) in
        [(&flags.apparmor_profile, &mut raw.apparmor_profile), (&flags.selinux_label, &mut raw.selinux_label)]
    {
        if let Some(given) = given {
            *own = Some(given.clone());
        }
    }
    for name in &flags.capabilities {
        if capabilities::bit(name).is_none() {
            return Err(invalid("--cap", &format!("{name:?} is not a capability")));
        }
    }
    if !flags.capabilities.is_empty() {
        let sets = raw.capabilities.get_or_insert_default();
        for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
            set.extend(flags.capabilities.iter().cloned());
        }
    }
    Ok(raw)
}

pub(super) fn check_variable(variable: &str, field: impl Fn() -> String) -> Result<(), SpecError> {
    refuse_nul(variable, &field)?;
    match variable.split_once('=') {
        Some((name, _)) if !name.is_empty() => Ok(()),
        _ => Err(invalid(&field(), &format!("{variable:?} is not NAME=value"))),
    }
}

/// A path in the container.
pub(super) fn check_absolute(path: &str, field: impl Fn() -> String) -> Result<(), SpecError> {
    refuse_nul(path, &field)?;
    if path.starts_with('/') {
        Ok(())
    } else {
        Err(invalid(&field(), &format!("{path:?} is not an absolute path")))
    }
}

/// The kernel would take the string to end there.
pub(super) fn refuse_nul(text: &str, field: impl Fn() -> String) -> Result<(), SpecError> {
    if text.contains('\0') { Err(invalid(&field(), "contains a NUL byte")) } else { Ok(()) }
}

fn invalid(field: &str, reason: &str) -> SpecError {
    SpecError::Invalid { field: field.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests;
