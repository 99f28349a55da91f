//! `linux.seccomp`: checked when the bundle is read, compiled by libseccomp when the microVM is booting already.
//!
//!   raw ─check()─▶ Profile ─compile()─▶ BPF ─▶ container-init, which installs it, also for `exec`
//!
//! As runc does: a name that libseccomp does not know is left out with a warning, conditions are joined by "and"
//! unless two of them are about the same argument, and system calls newer than the profile answer ENOSYS (`newer`).
//! The guest is an x86_64 machine: architectures that it does not execute are accepted and add nothing.

mod compile;
mod newer;

use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpSyscall};

use super::{SpecError, raw};

/// Rules of a profile: more would not fit into a filter.
const RULES_MAX: usize = bulkhead_protocol::limits::FILTER;
/// Names of unknown system calls that a warning shows.
const UNKNOWN_SHOWN: usize = 8;
/// Arguments of a system call.
const ARGUMENTS: u32 = 6;
/// `MAX_ERRNO` of the kernel.
const ERRNO_MAX: u32 = 4095;

pub(crate) const ACTIONS: [&str; 8] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];

pub(crate) const OPERATORS: [&str; 7] = [
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_LE",
    "SCMP_CMP_LT",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_CMP_NE",
];

/// All of the specification's, and what each is for the guest.
pub(crate) const ARCHITECTURES: [(&str, Option<ScmpArch>); 23] = [
    ("SCMP_ARCH_AARCH64", None),
    ("SCMP_ARCH_ARM", None),
    ("SCMP_ARCH_LOONGARCH64", None),
    ("SCMP_ARCH_M68K", None),
    ("SCMP_ARCH_MIPS", None),
    ("SCMP_ARCH_MIPS64", None),
    ("SCMP_ARCH_MIPS64N32", None),
    ("SCMP_ARCH_MIPSEL", None),
    ("SCMP_ARCH_MIPSEL64", None),
    ("SCMP_ARCH_MIPSEL64N32", None),
    ("SCMP_ARCH_PARISC", None),
    ("SCMP_ARCH_PARISC64", None),
    ("SCMP_ARCH_PPC", None),
    ("SCMP_ARCH_PPC64", None),
    ("SCMP_ARCH_PPC64LE", None),
    ("SCMP_ARCH_RISCV64", None),
    ("SCMP_ARCH_S390", None),
    ("SCMP_ARCH_S390X", None),
    ("SCMP_ARCH_SH", None),
    ("SCMP_ARCH_SHEB", None),
    ("SCMP_ARCH_X32", Some(ScmpArch::X32)),
    ("SCMP_ARCH_X86", Some(ScmpArch::X86)),
    ("SCMP_ARCH_X86_64", Some(ScmpArch::X8664)),
];

/// Names, and bits of linux/seccomp.h where they can be honoured.
pub(crate) const FLAGS: [(&str, Option<u32>); 4] = [
    ("SECCOMP_FILTER_FLAG_LOG", Some(1 << 1)),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", Some(SPEC_ALLOW)),
    ("SECCOMP_FILTER_FLAG_TSYNC", Some(1)),
    ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", None),
];
const SPEC_ALLOW: u32 = 1 << 2;

const NO_LISTENER: &str = "a listener on the host would need a descriptor of the guest, and those cannot cross into or out of a microVM";

/// A checked profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    default: ScmpAction,
    /// Those that the guest executes.
    architectures: Vec<ScmpArch>,
    flags: u32,
    rules: Vec<Rule>,
}

/// One entry of `syscalls`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    /// Its JSON path.
    field: String,
    /// Those that libseccomp knows.
    syscalls: Vec<(String, ScmpSyscall)>,
    action: ScmpAction,
    /// Any of these lists, all conditions of it.
    alternatives: Vec<Vec<ScmpArgCompare>>,
}

pub(super) fn check(raw: &raw::Seccomp, warnings: &mut Vec<String>) -> Result<Profile, SpecError> {
    for (name, value) in [("listenerPath", &raw.listener_path), ("listenerMetadata", &raw.listener_metadata)]
    {
        if value.as_deref().is_some_and(|value| !value.is_empty()) {
            return Err(refused(format!("linux.seccomp.{name}"), NO_LISTENER));
        }
    }
    let default = raw.default_action.as_deref().filter(|action| !action.is_empty());
    let default =
        default.ok_or_else(|| SpecError::Missing { field: "linux.seccomp.defaultAction".into() })?;
    let default =
        action("linux.seccomp", ("defaultAction", default), ("defaultErrnoRet", raw.default_errno_ret))?;
    let mut unknown = Vec::new();
    let mut rules = Vec::new();
    let mut count = 0;
    for (index, syscalls) in raw.syscalls.iter().enumerate() {
        let rule = rule(index, syscalls, &mut unknown)?;
        count += rule.syscalls.len() * rule.alternatives.len();
        if count > RULES_MAX {
            return Err(invalid("linux.seccomp.syscalls".into(), format!("has more than {RULES_MAX} rules")));
        }
        rules.push(rule);
    }
    if !unknown.is_empty() {
        warnings.push(left_out(&unknown));
    }
    Ok(Profile {
        default,
        architectures: architectures(&raw.architectures)?,
        flags: flags(raw.flags.as_deref())?,
        rules,
    })
}

fn rule<'a>(index: usize, raw: &'a raw::Syscalls, unknown: &mut Vec<&'a str>) -> Result<Rule, SpecError> {
    let field = format!("linux.seccomp.syscalls[{index}]");
    if raw.names.is_empty() {
        return Err(SpecError::Missing { field: format!("{field}.names") });
    }
    let action = action(&field, ("action", &raw.action), ("errnoRet", raw.errno_ret))?;
    let mut syscalls = Vec::with_capacity(raw.names.len());
    for name in &raw.names {
        match ScmpSyscall::from_name(name) {
            Ok(syscall) => syscalls.push((name.clone(), syscall)),
            Err(_) => unknown.push(name),
        }
    }
    let condition = |(place, argument): (usize, &raw::SyscallArg)| condition(&field, place, argument);
    let conditions = raw.args.iter().enumerate().map(condition).collect::<Result<Vec<_>, _>>()?;
    let mut seen = [false; ARGUMENTS as usize];
    let twice = raw.args.iter().any(|argument| std::mem::replace(&mut seen[argument.index as usize], true));
    let alternatives =
        if twice { conditions.into_iter().map(|one| vec![one]).collect() } else { vec![conditions] };
    Ok(Rule { field, syscalls, action, alternatives })
}

/// `action` and `errno` with the names of their fields below `parent`.
fn action(
    parent: &str,
    (field, name): (&str, &str),
    (errno_field, errno): (&str, Option<u32>),
) -> Result<ScmpAction, SpecError> {
    let number = |most: u32| match errno {
        None => Ok(libc::EPERM.unsigned_abs()),
        Some(number) if number <= most => Ok(number),
        Some(number) => {
            Err(invalid(format!("{parent}.{errno_field}"), format!("{number} is more than {most}")))
        }
    };
    let plain = match name {
        "SCMP_ACT_ERRNO" => return Ok(ScmpAction::Errno(number(ERRNO_MAX)?.cast_signed())),
        "SCMP_ACT_TRACE" => {
            let message = number(u32::from(u16::MAX))?;
            return Ok(ScmpAction::Trace(u16::try_from(message).unwrap_or(u16::MAX)));
        }
        "SCMP_ACT_ALLOW" => ScmpAction::Allow,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => ScmpAction::KillThread,
        "SCMP_ACT_KILL_PROCESS" => ScmpAction::KillProcess,
        "SCMP_ACT_LOG" => ScmpAction::Log,
        "SCMP_ACT_TRAP" => ScmpAction::Trap,
        "SCMP_ACT_NOTIFY" => {
            return Err(refused(format!("{parent}.{field} \"SCMP_ACT_NOTIFY\""), NO_LISTENER));
        }
        other => {
            let reason = format!("{other:?} is not one of {}", ACTIONS.join(", "));
            return Err(invalid(format!("{parent}.{field}"), reason));
        }
    };
    match errno {
        None => Ok(plain),
        Some(_) => Err(invalid(format!("{parent}.{errno_field}"), format!("{name} has no errno"))),
    }
}

fn condition(rule: &str, place: usize, raw: &raw::SyscallArg) -> Result<ScmpArgCompare, SpecError> {
    let field = |name: &str| format!("{rule}.args[{place}].{name}");
    if raw.index >= ARGUMENTS {
        return Err(invalid(field("index"), format!("{} is not between 0 and {}", raw.index, ARGUMENTS - 1)));
    }
    let (operator, datum) = match raw.op.as_str() {
        "SCMP_CMP_NE" => (ScmpCompareOp::NotEqual, raw.value),
        "SCMP_CMP_LT" => (ScmpCompareOp::Less, raw.value),
        "SCMP_CMP_LE" => (ScmpCompareOp::LessOrEqual, raw.value),
        "SCMP_CMP_EQ" => (ScmpCompareOp::Equal, raw.value),
        "SCMP_CMP_GE" => (ScmpCompareOp::GreaterEqual, raw.value),
        "SCMP_CMP_GT" => (ScmpCompareOp::Greater, raw.value),
        "SCMP_CMP_MASKED_EQ" => (ScmpCompareOp::MaskedEqual(raw.value), raw.value_two),
        other => {
            return Err(invalid(field("op"), format!("{other:?} is not one of {}", OPERATORS.join(", "))));
        }
    };
    Ok(ScmpArgCompare::new(raw.index, operator, datum))
}

fn architectures(raw: &[String]) -> Result<Vec<ScmpArch>, SpecError> {
    let mut list = Vec::new();
    for (index, name) in raw.iter().enumerate() {
        let Some((_, arch)) = ARCHITECTURES.iter().find(|(known, _)| known == name) else {
            let reason = format!("{name:?} is not an architecture");
            return Err(invalid(format!("linux.seccomp.architectures[{index}]"), reason));
        };
        list.extend(arch.filter(|arch| !list.contains(arch)));
    }
    Ok(list)
}

fn flags(raw: Option<&[String]>) -> Result<u32, SpecError> {
    // runc's habit where a profile says nothing.
    let Some(names) = raw else { return Ok(SPEC_ALLOW) };
    let mut bits = 0;
    for (index, name) in names.iter().enumerate() {
        let field = format!("linux.seccomp.flags[{index}]");
        match FLAGS.iter().find(|(known, _)| known == name) {
            Some((_, Some(bit))) => bits |= bit,
            Some((_, None)) => return Err(refused(format!("{field} {name:?}"), NO_LISTENER)),
            None => return Err(invalid(field, format!("{name:?} is not a flag"))),
        }
    }
    Ok(bits)
}

fn left_out(unknown: &[&str]) -> String {
    let version = libseccomp::ScmpVersion::current().map_or(String::new(), |version| format!(" {version}"));
    let shown: Vec<String> =
        unknown.iter().take(UNKNOWN_SHOWN).map(|name| name.chars().take(32).collect()).collect();
    let more = match unknown.len().saturating_sub(UNKNOWN_SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let names = shown.join(", ");
    format!(
        "linux.seccomp.syscalls: names that libseccomp{version} does not know are left out: {names}{more}"
    )
}

fn invalid(field: String, reason: String) -> SpecError {
    SpecError::Invalid { field, reason }
}

fn refused(field: String, reason: &str) -> SpecError {
    SpecError::Refused { field, reason: reason.to_owned() }
}

#[cfg(test)]
mod machine;
#[cfg(test)]
mod tests;
