//! What processes get beside namespaces and credentials: filters, schedulers, clocks, personality, memory policy.

#[cfg(test)]
mod support;

use bulkhead_agent::container::Running;
use bulkhead_protocol::container::{
    Capabilities, Confinement, ContainerSpec, Cpus, ExecCpus, FilterProgram, IdMapping, IoPriority,
    MemoryPolicy, Namespace, NamespaceKind, NamespacePlace, Personality, Scheduler, Seccomp, TimeOffset,
};
use bulkhead_protocol::hook::{Hook, HookState, StartHooks};
use support::{End, capabilities, host, process, remove, spec, wait};

/// asm/unistd_64.h.
const MKDIR: u32 = 83;
/// linux/seccomp.h: what a filter answers.
const ALLOW: u32 = 0x7fff_0000;
const KILL: u32 = 0x8000_0000;
const EPERM: u32 = 0x0005_0001;

/// Answers `verdict` to the system calls and lets all others through.
fn filter(verdict: u32, calls: &[u32]) -> Confinement {
    let instruction = |code: u16, jt: u8, k: u32| {
        let ([c0, c1], [k0, k1, k2, k3]) = (code.to_ne_bytes(), k.to_ne_bytes());
        [c0, c1, jt, 0, k0, k1, k2, k3]
    };
    let checks = calls.iter().enumerate().map(|(place, call)| {
        let to_the_end = u8::try_from(calls.len() - place).expect("few calls");
        instruction(0x15, to_the_end, *call)
    });
    let load = [instruction(0x20, 0, 0)];
    let ends = [instruction(0x06, 0, ALLOW), instruction(0x06, 0, verdict)];
    let program: Vec<u8> = load.into_iter().chain(checks).chain(ends).flatten().collect();
    let program = FilterProgram::try_from(program).expect("whole instructions");
    Confinement { seccomp: Some(Seccomp { program, flags: 0 }), ..Confinement::default() }
}

fn user_namespace(spec: &mut ContainerSpec) {
    spec.namespaces.push(Namespace { kind: NamespaceKind::User, place: NamespacePlace::New });
    let map = vec![IdMapping { container: 0, host: 100_000, size: 65_536 }];
    (spec.uid_mappings, spec.gid_mappings) = (map.clone(), map);
}

async fn end(host: &support::Host, container: Running) {
    container.cgroup.kill_all().expect("a cgroup that is there");
    wait(container.pid);
    remove(&container.cgroup);
    host.assert_clean();
}

#[tokio::test]
async fn a_filter_holds_with_and_without_no_new_privs_for_root_and_users_and_in_a_user_namespace() {
    let Some(host) = host() else { return };
    for (no_new_privileges, uid, nested) in
        [(true, 0, false), (false, 0, false), (true, 1000, false), (false, 1000, false), (false, 1000, true)]
    {
        let change = |spec: &mut ContainerSpec| {
            spec.confinement = filter(EPERM, &[MKDIR]);
            spec.process.no_new_privileges = no_new_privileges;
            spec.process.user.uid = uid;
            if nested {
                user_namespace(spec);
            }
        };
        let script = "grep -E '^(Seccomp|NoNewPrivs|CapPrm|CapEff):' /proc/self/status; /bin/busybox mkdir /tmp/x 2>&1; true";
        let out = host.shell(change, script).await;
        let effective = if uid == 0 { "00000000a80425fb" } else { "0000000000000000" };
        let permitted = if uid == 0 { effective } else { "0000000000000000" };
        let expected = format!(
            "CapPrm:\t{permitted}\nCapEff:\t{effective}\nNoNewPrivs:\t{}\nSeccomp:\t2\nmkdir: can't create directory '/tmp/x': Operation not permitted\n",
            u8::from(no_new_privileges)
        );
        let mut lines: Vec<&str> = out.lines().collect();
        lines.sort_unstable();
        let mut wanted: Vec<&str> = expected.lines().collect();
        wanted.sort_unstable();
        assert_eq!(lines, wanted, "no_new_privs {no_new_privileges}, uid {uid}, nested {nested}");
    }
}

#[tokio::test]
async fn a_filter_holds_for_start_hooks_and_need_not_allow_what_it_takes_to_run_one() {
    let Some(host) = host() else { return };
    // memfd_create, prctl, setpgid, pidfd_open, waitid, wait4, poll: of the process that runs the hook.
    let runner = [319, 157, 109, 434, 247, 61, 7];
    for (no_new_privileges, uid) in [(true, 0), (false, 0), (false, 1000)] {
        let hook = |script: &str| Hook {
            path: "/bin/sh".into(),
            args: vec!["sh".into(), "-c".into(), script.into()],
            env: vec!["PATH=/bin".into()],
            timeout: None,
        };
        let mut spec = spec(&["echo"]);
        spec.mounts.push(support::filesystem("/tmp", "tmpfs", &["mode=1777"]));
        spec.process.no_new_privileges = no_new_privileges;
        spec.process.user.uid = uid;
        // The shell has no wait but wait4.
        let denied = [&[MKDIR], &runner[..5], &runner[6..]].concat();
        let script = "/bin/busybox mkdir /tmp/x && exit 9; grep -q '^Seccomp:.2$' /proc/self/status";
        for (confinement, succeeds) in [(filter(EPERM, &denied), true), (Confinement::default(), false)] {
            spec.confinement = confinement;
            spec.start_hooks = Some(StartHooks { hooks: vec![hook(script)], state: HookState::default() });
            let outcome = host.run(&spec).await;
            assert_eq!(outcome.is_ok(), succeeds, "{outcome:?}, {no_new_privileges}, {uid}");
        }
    }
    host.assert_clean();
}

#[tokio::test]
async fn a_filter_need_not_allow_what_the_set_up_does() {
    let Some(host) = host() else { return };
    // sendmsg, recvmsg, sendto, recvfrom, setresuid, setresgid, setgroups, capget, capset, chroot, pivot_root, keyctl,
    // close_range
    let calls = [46, 47, 44, 45, 117, 119, 116, 125, 126, 161, 155, 250, 436];
    for no_new_privileges in [true, false] {
        let mut spec = spec(&["echo", "passed"]);
        spec.confinement = filter(KILL, &calls);
        spec.process.no_new_privileges = no_new_privileges;
        spec.process.user.uid = 1000;
        let outcome = host.run(&spec).await.unwrap();
        assert_eq!((outcome.end, outcome.stdout.as_str()), (End::Code(0), "passed\n"), "{no_new_privileges}");
    }
}

#[tokio::test]
async fn a_capability_that_the_filter_took_is_gone_unless_the_program_may_have_it() {
    let Some(host) = host() else { return };
    const SYS_ADMIN: u64 = 1 << 21;
    for granted in [0, SYS_ADMIN] {
        let change = |spec: &mut ContainerSpec| {
            spec.confinement = filter(EPERM, &[MKDIR]);
            spec.process.no_new_privileges = false;
            spec.process.user.uid = 1000;
            let ambient = Capabilities { ambient: granted | 1, ..capabilities(granted | 1) };
            spec.process.capabilities = Some(ambient);
        };
        let out = host.shell(change, "grep -E '^Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status").await;
        let set = format!("{:016x}", granted | 1);
        assert_eq!(out.matches(&set).count(), 5, "{out}");
    }
}

#[tokio::test]
async fn a_further_process_gets_filter_personality_memory_policy_and_clocks_of_its_container() {
    let Some(host) = host() else { return };
    let mut spec = spec(&["sleep", "1000"]);
    spec.process.no_new_privileges = false;
    spec.confinement = Confinement {
        personality: Some(Personality::Linux32),
        memory_policy: Some(MemoryPolicy { mode: 2, nodes: 1 }),
        ..filter(EPERM, &[MKDIR])
    };
    spec.namespaces.push(Namespace { kind: NamespaceKind::Time, place: NamespacePlace::New });
    spec.time_offsets.boottime = Some(TimeOffset { seconds: 1_000_000, nanoseconds: 5 });
    let (created, _streams) = host.create(&spec).await.unwrap();
    let container = host.start(created).await;
    let script = "/bin/busybox mkdir /tmp/x 2>/dev/null || echo denied; cat /proc/self/personality;
        head -n 1 /proc/self/numa_maps; cat /proc/uptime; readlink /proc/self/ns/time; readlink /proc/1/ns/time";
    let outcome = host.exec(&container, &process(&["sh", "-c", script])).await.unwrap();
    assert_eq!(outcome.end, End::Code(0), "{outcome:?}");
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    assert_eq!(lines[..2], ["denied", "00000008"], "{outcome:?}");
    assert!(lines[2].contains(" bind:0 ") || lines[2].ends_with(" bind:0"), "{outcome:?}");
    let uptime: f64 = lines[3].split(' ').next().unwrap().parse().unwrap();
    assert!(uptime > 1_000_000.0, "{outcome:?}");
    assert_eq!(lines[4], lines[5]);
    end(&host, container).await;
}

#[tokio::test]
async fn clocks_are_ahead_or_behind_as_given_also_in_a_user_namespace() {
    let Some(host) = host() else { return };
    for nested in [false, true] {
        let change = |spec: &mut ContainerSpec| {
            spec.namespaces.push(Namespace { kind: NamespaceKind::Time, place: NamespacePlace::New });
            spec.time_offsets.monotonic = Some(TimeOffset { seconds: 7000, nanoseconds: 8 });
            spec.time_offsets.boottime = Some(TimeOffset { seconds: -1, nanoseconds: 9 });
            if nested {
                user_namespace(spec);
            }
        };
        let out = host.shell(change, "cat /proc/self/timens_offsets").await;
        let words: Vec<&str> = out.split_whitespace().collect();
        assert_eq!(words, ["monotonic", "7000", "8", "boottime", "-1", "9"], "nested {nested}");
    }
}

#[tokio::test]
async fn a_clock_that_would_be_before_its_beginning_fails_the_creation_and_leaves_nothing() {
    let Some(host) = host() else { return };
    let mut spec = spec(&["sh"]);
    spec.namespaces.push(Namespace { kind: NamespaceKind::Time, place: NamespacePlace::New });
    spec.time_offsets.boottime = Some(TimeOffset { seconds: -1_000_000_000, nanoseconds: 0 });
    let error = host.create(&spec).await.unwrap_err().chain();
    assert!(error.starts_with("set clock offset boottime -1000000000 0: "), "{error}");
    host.assert_clean();
}

/// Fields 18, 19, 40 and 41 of proc_pid_stat(5): priority, nice, rt_priority, policy.
const POLICY: &str = "set -- $(cat /proc/self/stat); shift 17; echo $2; shift 22; echo $1 $2";

#[tokio::test]
async fn schedulers_and_io_priorities_are_set_also_in_a_user_namespace() {
    let Some(host) = host() else { return };
    let base =
        Scheduler { policy: 0, flags: 0, nice: 0, priority: 0, runtime_ns: 0, deadline_ns: 0, period_ns: 0 };
    let batch = Scheduler { policy: 3, nice: 7, ..base.clone() };
    let round_robin = Scheduler { policy: 2, priority: 5, ..base };
    // One that is not set is the caller's.
    let own = rustix::process::getpriority_process(None).unwrap();
    for (scheduler, expected) in [(batch, "7\n0 3\n".to_owned()), (round_robin, format!("{own}\n5 2\n"))] {
        for nested in [false, true] {
            let change = |spec: &mut ContainerSpec| {
                spec.process.scheduling.scheduler = Some(scheduler.clone());
                spec.process.scheduling.io_priority = Some(IoPriority { class: 1, priority: 3 });
                if nested {
                    user_namespace(spec);
                }
            };
            let out = host.shell(change, &format!("{POLICY}; /bin/busybox ionice -p $$")).await;
            assert_eq!(out, format!("{expected}realtime: prio 3\n"), "nested {nested}");
        }
    }
}

#[tokio::test]
async fn an_exec_runs_on_its_cpus_and_one_without_on_all_of_its_container() {
    let Some(host) = host() else { return };
    let (created, _streams) = host.create(&spec(&["sleep", "1000"])).await.unwrap();
    let container = host.start(created).await;
    let cpus = |exec_cpus| {
        let mut process = process(&["grep", "^Cpus_allowed_list", "/proc/self/status"]);
        process.scheduling.exec_cpus = exec_cpus;
        process
    };
    let all = host.exec(&container, &cpus(None)).await.unwrap().stdout;
    for (initial, last, expected) in [
        (None, Cpus::new(1), "Cpus_allowed_list:\t0\n"),
        (Cpus::new(1), Cpus::new(1), "Cpus_allowed_list:\t0\n"),
        (Cpus::new(1), None, all.as_str()),
    ] {
        let outcome = host.exec(&container, &cpus(Some(ExecCpus { initial, last }))).await.unwrap();
        assert_eq!(outcome.stdout, expected, "{initial:?} {last:?}");
    }
    let missing = Cpus::new(1 << 63);
    for (initial, last) in [(missing, None), (None, missing)] {
        let error = host.exec(&container, &cpus(Some(ExecCpus { initial, last }))).await.unwrap_err().chain();
        assert_eq!(error, "set CPUs 0x8000000000000000: the guest has no CPU 63");
    }
    end(&host, container).await;
}

#[tokio::test]
async fn a_setting_of_the_guest_is_written_also_for_a_container_in_a_user_namespace() {
    let Some(host) = host() else { return };
    let file = "/proc/sys/vm/overcommit_ratio";
    let before = std::fs::read_to_string(file).unwrap();
    let change = |spec: &mut ContainerSpec| {
        user_namespace(spec);
        spec.guest_sysctl.insert("vm.overcommit_ratio".into(), "51".into());
    };
    let out = host.shell(change, "cat /proc/sys/vm/overcommit_ratio").await;
    std::fs::write(file, before).unwrap();
    assert_eq!(out, "51\n");
}
