//! Compiles the lists of system calls into filters, as constants of the program: see `src/confine`.

use std::{collections::BTreeMap, env, error::Error, fmt::Write as _, fs, path::PathBuf};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

#[allow(dead_code, unreachable_pub, reason = "it is a module of the program too")]
#[path = "src/confine/lists.rs"]
mod lists;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/confine/lists.rs");
    let mut code = String::new();
    for kind in lists::Kind::ALL {
        let filter = compile(kind)?;
        let (name, length) = (kind.name().to_uppercase(), filter.len());
        writeln!(code, "static {name}: [libc::sock_filter; {length}] = [")?;
        for seccompiler::sock_filter { code: operation, jt, jf, k } in filter {
            writeln!(code, "libc::sock_filter {{ code: {operation}, jt: {jt}, jf: {jf}, k: {k} }},")?;
        }
        code.push_str("];\n");
    }
    let directory = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    Ok(fs::write(directory.join("filters.rs"), code)?)
}

/// A call of another ABI ends the process without a word, a call without a rule by SIGSYS.
fn compile(kind: lists::Kind) -> Result<BpfProgram, Box<dyn Error>> {
    let mut calls: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let mut unconditional = Vec::new();
    for rule in kind.rules() {
        let of_call = calls.entry(rule.call).or_default();
        if rule.arguments.is_empty() {
            unconditional.push(rule.call);
            continue;
        }
        let conditions = rule.arguments.iter().map(|argument| {
            let comparison = match argument.mask {
                u32::MAX => SeccompCmpOp::Eq,
                mask => SeccompCmpOp::MaskedEq(mask.into()),
            };
            SeccompCondition::new(argument.index, SeccompCmpArgLen::Dword, comparison, argument.value.into())
        });
        of_call.push(SeccompRule::new(conditions.collect::<Result<_, _>>()?)?);
    }
    // An empty list of rules is what the crate takes for "always".
    for call in unconditional {
        calls.insert(call, Vec::new());
    }
    let filter = SeccompFilter::new(calls, SeccompAction::Trap, SeccompAction::Allow, TargetArch::x86_64)?;
    Ok(filter.try_into()?)
}
