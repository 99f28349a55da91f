use bulkhead_protocol::container::{FilterProgram, Seccomp};
use serde_json::{Value, json};

use super::{
    super::fixture::{Fixture, bundle, one},
    machine::{ALLOW, I386, KILL_PROCESS, KILL_THREAD, LOG, TRAP, X32, X86_64, errno, run, trace},
};

/// asm/unistd_64.h and unistd_32.h.
const READ: u32 = 0;
const WRITE: u32 = 1;
const PERSONALITY: u32 = 135;
const GETCPU: u32 = 309;
const I386_WRITE: u32 = 4;

fn with(profile: Value) -> Fixture {
    bundle().set("linux.seccomp", profile)
}

fn compiled(profile: Value) -> Seccomp {
    with(profile).load().unwrap().seccomp.unwrap().compile().unwrap()
}

fn program(profile: Value) -> FilterProgram {
    compiled(profile).program
}

/// `write` and nothing else.
fn only_write() -> Value {
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [{"names": ["write"], "action": "SCMP_ACT_ALLOW"}]
    })
}

fn changed(path: &str, value: Value) -> String {
    with(only_write()).set(&format!("linux.seccomp.{path}"), value).refusal()
}

/// With one rule for `personality` on its arguments.
fn on_arguments(args: &Value) -> FilterProgram {
    program(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": args}]
    }))
}

#[test]
fn without_a_profile_nothing_is_filtered() {
    assert_eq!(bundle().load().unwrap().seccomp, None);
    assert_eq!(bundle().set("linux.seccomp", json!(null)).load().unwrap().seccomp, None);
}

#[test]
fn an_allowed_call_passes_and_others_get_the_default_on_every_architecture_of_the_profile() {
    let program = program(only_write());
    let denied = errno(libc::EPERM);
    for (arch, write, read) in
        [(X86_64, WRITE, READ), (I386, I386_WRITE, 3), (X86_64, X32 | WRITE, X32 | READ)]
    {
        assert_eq!(run(&program, arch, write, &[]), ALLOW, "{arch:#x}");
        assert_eq!(run(&program, arch, read, &[]), denied, "{arch:#x}");
    }
}

#[test]
fn an_architecture_that_the_profile_lacks_kills() {
    let mut profile = only_write();
    profile["architectures"] = json!([]);
    let program = program(profile);
    assert_eq!(run(&program, X86_64, WRITE, &[]), ALLOW);
    assert_eq!(run(&program, I386, I386_WRITE, &[]), KILL_THREAD);
    assert_eq!(run(&program, X86_64, X32 | WRITE, &[]), KILL_THREAD);
}

#[test]
fn an_architecture_that_the_guest_lacks_adds_nothing() {
    let mut profile = only_write();
    profile["architectures"] = super::ARCHITECTURES.map(|(name, _)| name).to_vec().into();
    assert_eq!(program(profile), program(only_write()));
    let refusal = changed("architectures", json!(["SCMP_ARCH_X86", "SCMP_ARCH_VAX"]));
    assert_eq!(refusal, "linux.seccomp.architectures[1]: \"SCMP_ARCH_VAX\" is not an architecture");
}

#[test]
fn every_action_is_what_the_kernel_calls_it() {
    for (action, ret) in [
        ("SCMP_ACT_KILL", KILL_THREAD),
        ("SCMP_ACT_KILL_THREAD", KILL_THREAD),
        ("SCMP_ACT_KILL_PROCESS", KILL_PROCESS),
        ("SCMP_ACT_TRAP", TRAP),
        ("SCMP_ACT_ERRNO", errno(libc::EPERM)),
        ("SCMP_ACT_TRACE", trace(1)),
        ("SCMP_ACT_LOG", LOG),
    ] {
        let profile = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["read"], "action": action}]
        });
        let program = program(profile);
        assert_eq!(run(&program, X86_64, READ, &[]), ret, "{action}");
        assert_eq!(run(&program, X86_64, WRITE, &[]), ALLOW, "{action}");
    }
    let refusal = changed("defaultAction", json!("ALLOW"));
    assert!(refusal.starts_with("linux.seccomp.defaultAction: \"ALLOW\" is not one of SCMP_ACT_ALLOW, "));
    assert_eq!(changed("defaultAction", json!("")), "linux.seccomp.defaultAction is missing");
    assert_eq!(with(json!({})).refusal(), "linux.seccomp.defaultAction is missing");
}

#[test]
fn an_errno_is_taken_where_there_is_one_and_refused_where_there_is_none() {
    let program = program(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 95,
        "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13},
            {"names": ["getcpu"], "action": "SCMP_ACT_TRACE", "errnoRet": 65535}
        ]
    }));
    assert_eq!(run(&program, X86_64, READ, &[]), errno(13));
    assert_eq!(run(&program, X86_64, GETCPU, &[]), trace(65535));
    assert_eq!(run(&program, X86_64, WRITE, &[]), errno(95));
    let allow = json!([{"names": ["read"], "action": "SCMP_ACT_ALLOW", "errnoRet": 1}]);
    let refused = "linux.seccomp.syscalls[0].errnoRet: SCMP_ACT_ALLOW has no errno";
    assert_eq!(changed("syscalls", allow), refused);
    assert_eq!(
        changed("defaultErrnoRet", json!(4096)),
        "linux.seccomp.defaultErrnoRet: 4096 is more than 4095"
    );
    let spec = with(only_write()).set("linux.seccomp.defaultErrnoRet", json!(1));
    let refusal = spec.set("linux.seccomp.defaultAction", json!("SCMP_ACT_KILL")).refusal();
    assert_eq!(refusal, "linux.seccomp.defaultErrnoRet: SCMP_ACT_KILL has no errno");
}

#[test]
fn every_operator_compares_as_its_name_says() {
    // Beyond 32 bits, so that both halves count.
    let value = 0x1_0000_0005_u64;
    for (op, [below, equal, above]) in [
        ("SCMP_CMP_NE", [true, false, true]),
        ("SCMP_CMP_LT", [true, false, false]),
        ("SCMP_CMP_LE", [true, true, false]),
        ("SCMP_CMP_EQ", [false, true, false]),
        ("SCMP_CMP_GE", [false, true, true]),
        ("SCMP_CMP_GT", [false, false, true]),
    ] {
        let program = on_arguments(&json!([{"index": 0, "value": value, "op": op}]));
        let passes = |argument| run(&program, X86_64, PERSONALITY, &[argument]) == ALLOW;
        assert_eq!([passes(5), passes(value), passes(value << 1)], [below, equal, above], "{op}");
    }
    let masked = json!([{"index": 1, "value": 0xf0, "valueTwo": 0x30, "op": "SCMP_CMP_MASKED_EQ"}]);
    let program = on_arguments(&masked);
    assert_eq!(run(&program, X86_64, PERSONALITY, &[0, 0x3f]), ALLOW);
    assert_eq!(run(&program, X86_64, PERSONALITY, &[0, 0x4f]), errno(libc::EPERM));
}

#[test]
fn conditions_on_different_arguments_must_all_hold_and_on_the_same_one_any() {
    let equals = |index: u32, value: u64| json!({"index": index, "value": value, "op": "SCMP_CMP_EQ"});
    let both = on_arguments(&json!([equals(0, 8), equals(5, 9)]));
    let passes = |program: &FilterProgram, args: &[u64]| run(program, X86_64, PERSONALITY, args) == ALLOW;
    assert!(passes(&both, &[8, 0, 0, 0, 0, 9]));
    assert!(!passes(&both, &[8, 0, 0, 0, 0, 0]) && !passes(&both, &[0, 0, 0, 0, 0, 9]));
    let any = on_arguments(&json!([equals(0, 0), equals(0, 8)]));
    assert!(passes(&any, &[0]) && passes(&any, &[8]) && !passes(&any, &[9]));
}

#[test]
fn a_bad_condition_is_named() {
    let refusal = |argument: Value| {
        let rules = json!([{"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [argument]}]);
        changed("syscalls", rules)
    };
    assert_eq!(
        refusal(json!({"index": 6, "value": 0, "op": "SCMP_CMP_EQ"})),
        "linux.seccomp.syscalls[0].args[0].index: 6 is not between 0 and 5"
    );
    assert!(
        refusal(json!({"index": 0, "value": 0, "op": "=="}))
            .starts_with("linux.seccomp.syscalls[0].args[0].op: \"==\" is not one of SCMP_CMP_EQ, ")
    );
    let missing = refusal(json!({"index": 0, "op": "SCMP_CMP_EQ"}));
    assert!(missing.starts_with("linux.seccomp.syscalls[0].args[0]: missing field `value`"), "{missing}");
    let nameless = changed("syscalls", json!([{"names": [], "action": "SCMP_ACT_ALLOW"}]));
    assert_eq!(nameless, "linux.seccomp.syscalls[0].names is missing");
}

#[test]
fn unknown_names_are_left_out_with_one_warning() {
    let names: Vec<String> = (0..10).map(|n| format!("no_such_{n}")).chain(["write".to_owned()]).collect();
    let rules = json!([{"names": names, "action": "SCMP_ACT_ALLOW"}]);
    let spec = with(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}));
    let warnings = spec.warnings();
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].starts_with("linux.seccomp.syscalls: names that libseccomp 2."), "{warnings:?}");
    assert!(warnings[0].ends_with(
        "no_such_0, no_such_1, no_such_2, no_such_3, no_such_4, no_such_5, no_such_6, no_such_7 and 2 more"
    ));
    let program = spec.load().unwrap().seccomp.unwrap().compile().unwrap().program;
    assert_eq!(run(&program, X86_64, WRITE, &[]), ALLOW);
}

#[test]
fn flags_become_bits_and_none_given_is_what_runc_takes() {
    assert_eq!(compiled(only_write()).flags, super::SPEC_ALLOW);
    let flags = |names: Value| {
        let mut profile = only_write();
        profile["flags"] = names;
        compiled(profile).flags
    };
    assert_eq!(flags(json!([])), 0);
    let all = ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"];
    assert_eq!(flags(json!(all)), 7);
    assert_eq!(changed("flags", json!(["TSYNC"])), "linux.seccomp.flags[0]: \"TSYNC\" is not a flag");
    let refusal = changed("flags", one(json!("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV")));
    let start =
        "linux.seccomp.flags[0] \"SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV\" is not supported: a listener";
    assert!(refusal.starts_with(start), "{refusal}");
}

#[test]
fn what_needs_a_listener_on_the_host_is_refused_with_the_reason() {
    let reason = "is not supported: a listener on the host would need a descriptor of the guest";
    for (path, value, field) in [
        ("listenerPath", json!("/run/x.sock"), "linux.seccomp.listenerPath"),
        ("listenerMetadata", json!("x"), "linux.seccomp.listenerMetadata"),
        ("defaultAction", json!("SCMP_ACT_NOTIFY"), "linux.seccomp.defaultAction \"SCMP_ACT_NOTIFY\""),
        (
            "syscalls",
            json!([{"names": ["read"], "action": "SCMP_ACT_NOTIFY"}]),
            "linux.seccomp.syscalls[0].action \"SCMP_ACT_NOTIFY\"",
        ),
    ] {
        let refusal = changed(path, value);
        assert!(refusal.starts_with(&format!("{field} {reason}")), "{refusal}");
    }
    with(only_write()).set("linux.seccomp.listenerPath", json!("")).load().unwrap();
}

#[test]
fn a_call_newer_than_the_profile_does_not_exist_for_the_program() {
    let program = program(only_write());
    for (arch, number) in [(X86_64, 2), (X86_64, 5000), (I386, 5), (X86_64, X32 | 2)] {
        assert_eq!(run(&program, arch, number, &[]), errno(libc::ENOSYS), "{number}");
    }
}

#[test]
fn a_profile_that_lets_newer_calls_through_or_names_their_error_is_left_as_it_is() {
    let newest = |default: Value| {
        let mut profile = only_write();
        for (key, value) in default.as_object().unwrap() {
            profile[key] = value.clone();
        }
        profile["syscalls"][0]["action"] = json!("SCMP_ACT_TRAP");
        run(&program(profile), X86_64, 5000, &[])
    };
    assert_eq!(newest(json!({"defaultAction": "SCMP_ACT_ALLOW"})), ALLOW);
    assert_eq!(newest(json!({"defaultAction": "SCMP_ACT_LOG"})), LOG);
    assert_eq!(newest(json!({"defaultAction": "SCMP_ACT_KILL"})), errno(libc::ENOSYS));
    assert_eq!(newest(json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38})), errno(38));
}

#[test]
fn a_rule_that_says_what_holds_anyway_changes_nothing() {
    let mut profile = only_write();
    let rule = json!({"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1});
    profile["syscalls"].as_array_mut().unwrap().push(rule);
    assert_eq!(run(&program(profile), X86_64, READ, &[]), errno(1));
}

#[test]
fn a_profile_of_the_size_that_callers_send_compiles() {
    let profile = caller_profile();
    let names = profile["syscalls"].as_array().unwrap().iter();
    let names: usize = names.map(|rule| rule["names"].as_array().unwrap().len()).sum();
    assert!(names > 300, "{names}");
    let program = program(profile);
    assert!(program.instructions().len() < 2000, "{}", program.instructions().len());
    assert_eq!(run(&program, X86_64, WRITE, &[]), ALLOW);
    assert_eq!(run(&program, X86_64, PERSONALITY, &[8]), ALLOW);
    assert_eq!(run(&program, X86_64, PERSONALITY, &[7]), errno(libc::EPERM));
}

#[test]
fn a_profile_beyond_what_the_kernel_takes_is_refused() {
    let rule = |value: u64| {
        json!({"names": ["personality"], "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": value << 32 | value, "op": "SCMP_CMP_EQ"}]})
    };
    let profile = |rules: u64| json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": (0..rules).map(rule).collect::<Vec<_>>()});
    let refusal = with(profile(4097)).refusal();
    assert_eq!(refusal, "linux.seccomp.syscalls: has more than 4096 rules");
    let long = with(profile(2000)).load().unwrap().seccomp.unwrap().compile().unwrap_err().to_string();
    assert!(
        long.starts_with("linux.seccomp: compiles to ") && long.ends_with("the kernel takes 4096"),
        "{long}"
    );
}

/// What a container engine's own profile is like: everything that a number below 335 names but for some, conditions
/// on a few, and three architectures.
fn caller_profile() -> Value {
    let kept_back = ["bpf", "kexec_load", "mount", "personality", "ptrace", "reboot", "setns", "unshare"];
    let names: Vec<String> = (0..335)
        .filter_map(|number| libseccomp::ScmpSyscall::from_raw_syscall(number).get_name().ok())
        .filter(|name| !kept_back.contains(&name.as_str()))
        .collect();
    let personality = |value: u64| {
        json!({"names": ["personality"], "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]})
    };
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [
            {"names": names, "action": "SCMP_ACT_ALLOW"},
            personality(0), personality(8), personality(0x20000), personality(0x20008), personality(0xffff_ffff),
            {"names": ["clone3", "fchmodat2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
            {"names": ["socketcall", "clock_gettime64", "statx", "openat2", "faccessat2", "close_range"],
             "action": "SCMP_ACT_ALLOW"}
        ]
    })
}
