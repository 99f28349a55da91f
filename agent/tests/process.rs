//! Processes made by `container-init` on this machine: identity, limits, terminal, further ones, failures.

#[cfg(test)]
mod support;

use std::{fs, io::Write, os::fd::AsFd};

use bulkhead_agent::container::Created;
use bulkhead_protocol::container::{
    Capabilities, ContainerSpec, IdMapping, Namespace, NamespaceKind, NamespacePlace, Rlimit, User,
};
use rustix::process::{Pid, Signal, WaitOptions, pidfd_send_signal, waitpid};
use support::{End, capabilities, dead, host, process, remove, spec, user_namespace, wait};

/// Capability numbers of linux/capability.h.
const NET_BIND_SERVICE: u64 = 1 << 10;
const UNKNOWN: u64 = 1 << 60;

#[tokio::test]
async fn ids_groups_and_umask_are_those_of_the_specification() {
    let Some(host) = host() else { return };
    let change = |spec: &mut ContainerSpec| {
        spec.process.user = User { uid: 1000, gid: 1001, additional_gids: vec![7, 8], umask: Some(0o077) };
    };
    let out = host.shell(change, "id -u; id -g; id -G; umask; echo $HOME").await;
    assert_eq!(out, "1000\n1001\n1001 7 8\n0077\n/home/user\n");
}

#[tokio::test]
async fn the_five_capability_sets_arrive_and_unknown_ones_are_left_out() {
    let Some(host) = host() else { return };
    let change = |spec: &mut ContainerSpec| {
        spec.process.user.uid = 1000;
        spec.process.capabilities = Some(Capabilities {
            bounding: NET_BIND_SERVICE | 0x3 | UNKNOWN,
            ambient: NET_BIND_SERVICE,
            ..capabilities(NET_BIND_SERVICE)
        });
    };
    let out = host.shell(change, "grep ^Cap /proc/self/status; grep NoNewPrivs /proc/self/status").await;
    assert_eq!(
        out,
        "CapInh:\t0000000000000400\nCapPrm:\t0000000000000400\nCapEff:\t0000000000000400\n\
         CapBnd:\t0000000000000403\nCapAmb:\t0000000000000400\nNoNewPrivs:\t1\n"
    );
}

#[tokio::test]
async fn capability_sets_that_contradict_each_other_are_the_kernels_to_refuse() {
    let Some(host) = host() else { return };
    for sets in [
        Capabilities { permitted: 0, ..capabilities(NET_BIND_SERVICE) },
        Capabilities { bounding: 0, ..capabilities(NET_BIND_SERVICE) },
    ] {
        let mut spec = spec(&["sh"]);
        spec.process.capabilities = Some(sets);
        let error = host.create(&spec).await.unwrap_err();
        assert_eq!(error.chain(), "set capabilities: operation not permitted");
        host.assert_clean();
    }
}

#[tokio::test]
async fn no_capabilities_in_the_specification_means_none() {
    let Some(host) = host() else { return };
    let change = |spec: &mut ContainerSpec| spec.process.capabilities = None;
    let out = host.shell(change, "grep -c '^Cap.*0000000000000000' /proc/self/status").await;
    assert_eq!(out, "5\n");
}

#[tokio::test]
async fn limits_and_oom_score_reach_the_program_however_small() {
    let Some(host) = host() else { return };
    let change = |spec: &mut ContainerSpec| {
        spec.process.rlimits =
            vec![Rlimit { resource: 7, soft: 5, hard: 6 }, Rlimit { resource: 4, soft: 0, hard: u64::MAX }];
        // Of the caller: the stack, but not what the specification sets.
        spec.process.inherited_rlimits = vec![
            Rlimit { resource: 3, soft: 4 << 20, hard: 5 << 20 },
            Rlimit { resource: 4, soft: 7, hard: 7 },
        ];
        spec.process.oom_score_adj = Some(123);
    };
    let out = host
        .shell(change, "ulimit -Sn; ulimit -Hn; ulimit -Hc; ulimit -Ss; cat /proc/self/oom_score_adj")
        .await;
    assert_eq!(out, "5\n6\nunlimited\n4096\n123\n");
}

#[tokio::test]
async fn only_stdio_is_open_and_signals_have_their_defaults() {
    let Some(host) = host() else { return };
    assert_eq!(host.shell(|_| {}, "ls /proc/$$/fd; true").await, "0\n1\n2\n");
    let outcome = host.run(&spec(&["grep", "-E", "^Sig(Ign|Blk)", "/proc/self/status"])).await.unwrap();
    assert_eq!(outcome.stdout, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

#[tokio::test]
async fn a_missing_working_directory_is_made() {
    let Some(host) = host() else { return };
    let out = host.shell(|spec| spec.process.cwd = "/srv/deep/down".into(), "pwd").await;
    assert_eq!(out, "/srv/deep/down\n");
    assert!(host.rootfs().join("srv/deep/down").is_dir());
}

#[tokio::test]
async fn a_missing_program_fails_create_and_leaves_nothing() {
    let Some(host) = host() else { return };
    for (program, words) in [
        ("nothing", r#"exec: "nothing": executable file not found in $PATH"#),
        ("/no/such", r#"exec: "/no/such": stat /no/such: no such file or directory"#),
        ("/etc/passwd", r#"exec: "/etc/passwd": permission denied"#),
    ] {
        let error = host.create(&spec(&[program])).await.unwrap_err();
        assert_eq!(error.chain(), words);
        host.assert_clean();
    }
}

#[tokio::test]
async fn a_program_the_kernel_cannot_run_fails_the_release() {
    let Some(host) = host() else { return };
    let script = host.rootfs().join("bin/script");
    fs::write(&script, "#!/no/interpreter\n").unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let (created, _streams) = host.create(&spec(&["script"])).await.unwrap();
    let error = created.gate.release().await.unwrap_err();
    assert_eq!(error.chain(), r#"exec: "script": no such file or directory"#);
    assert_eq!(wait(created.pid), End::Code(1));
    remove(&created.cgroup);
    host.assert_clean();
}

#[tokio::test]
async fn a_parked_init_ends_with_its_gate() {
    let Some(host) = host() else { return };
    let (created, _streams) = host.create(&spec(&["sh"])).await.unwrap();
    let Created { pid, pidfd, cgroup, gate, .. } = created;
    assert_eq!(cgroup.processes().unwrap(), [pid]);
    drop(gate);
    assert!(dead(pidfd));
    assert_eq!(wait(pid), End::Code(1));
    remove(&cgroup);
    host.assert_clean();
}

#[tokio::test]
async fn a_parked_init_can_be_asked_to_end() {
    let Some(host) = host() else { return };
    let (created, _streams) = host.create(&spec(&["sh"])).await.unwrap();
    pidfd_send_signal(created.pidfd.as_fd(), Signal::TERM).unwrap();
    assert_eq!(wait(created.pid), End::Code(128 + 15));
    remove(&created.cgroup);
    host.assert_clean();
}

#[tokio::test]
async fn a_killed_container_reports_the_signal() {
    let Some(host) = host() else { return };
    let (created, _streams) = host.create(&spec(&["sleep", "1000"])).await.unwrap();
    created.gate.release().await.unwrap();
    created.cgroup.kill_all().unwrap();
    assert_eq!(wait(created.pid), End::Signal(9));
    remove(&created.cgroup);
    host.assert_clean();
}

#[tokio::test]
async fn a_terminal_is_the_controlling_one_with_its_size_and_the_console() {
    let Some(host) = host() else { return };
    let script = "tty; stty size; tty < /dev/console; stat -c %u /dev/pts/0; echo in > /dev/tty; read line; echo got $line";
    let mut spec = spec(&["sh", "-c", script]);
    spec.process.terminal = true;
    spec.process.console_size = Some((132, 43));
    spec.process.user.uid = 1000;
    let (created, _streams) = host.create(&spec).await.unwrap();
    let mut master = fs::File::from(created.pty_master.unwrap());
    created.gate.release().await.unwrap();
    master.write_all(b"word\n").unwrap();
    let mut seen = Vec::new();
    // The other end of a pty reads as an I/O error once the last slave is closed.
    let _ = std::io::copy(&mut master, &mut seen);
    assert_eq!(wait(created.pid), End::Code(0));
    let seen = String::from_utf8(seen).unwrap().replace('\r', "");
    for line in ["/dev/pts/0\n", "43 132\n", "/dev/console\n", "1000\n", "in\n", "got word\n"] {
        assert!(seen.contains(line), "{line:?} is missing: {seen}");
    }
    remove(&created.cgroup);
}

#[tokio::test]
async fn a_further_process_lives_in_the_container() {
    let Some(host) = host() else { return };
    let (created, _streams) = host.create(&spec(&["sleep", "1000"])).await.unwrap();
    let container = host.start(created).await;

    let outcome = host
        .exec(&container, &process(&["sh", "-c", "hostname; ls /proc | grep -c '^1$'; cat /proc/1/comm /proc/self/cgroup | grep -E '^(sleep|0)'; readlink /proc/self/ns/pid; readlink /proc/1/ns/pid; exit 3"]))
        .await
        .unwrap();
    assert_eq!(outcome.end, End::Code(3), "{outcome:?}");
    let lines: Vec<_> = outcome.stdout.lines().collect();
    assert_eq!(&lines[..4], ["web", "1", "sleep", "0::/"], "{outcome:?}");
    assert_eq!(lines[4], lines[5]);

    let mut other = process(&["sh", "-c", "id -u; pwd; ls /proc/$$/fd; true"]);
    other.user.uid = 1000;
    other.cwd = "/tmp".into();
    let outcome = host.exec(&container, &other).await.unwrap();
    assert_eq!(outcome.stdout, "1000\n/tmp\n0\n1\n2\n", "{outcome:?}");

    let mut limited = process(&["sh", "-c", "ulimit -n"]);
    limited.rlimits = vec![Rlimit { resource: 7, soft: 9, hard: 9 }];
    let outcome = host.exec(&container, &limited).await.unwrap();
    assert_eq!(outcome.stdout, "9\n", "{outcome:?}");

    let error = host.exec(&container, &process(&["nothing"])).await.unwrap_err();
    assert_eq!(error.chain(), r#"exec: "nothing": executable file not found in $PATH"#);

    pidfd_send_signal(container.pidfd.as_fd(), Signal::KILL).unwrap();
    assert_eq!(wait(container.pid), End::Signal(9));
    assert!(host.exec(&container, &process(&["id"])).await.is_err());
    remove(&container.cgroup);
    host.assert_clean();
}

#[tokio::test]
async fn a_container_that_pauses_needs_no_program_and_reaps_and_ends_on_a_signal() {
    let Some(host) = host() else { return };
    let mut pausing = spec(&["there-is-none"]);
    pausing.pauses = true;
    let (created, _streams) = host.create(&pausing).await.unwrap();
    let container = host.start(created).await;

    // The parent of the second `true` has ended before it is waited for.
    let script = "(true &); for i in $(seq 10000); do
        grep -q 'State:.Z' /proc/[0-9]*/status 2>/dev/null || { echo reaped; exit; }
    done; grep Z /proc/[0-9]*/status";
    let outcome = host.exec(&container, &process(&["sh", "-c", script])).await.unwrap();
    assert_eq!(outcome.stdout, "reaped\n", "{outcome:?}");
    let held = fs::read_dir(format!("/proc/{}/fd", container.pid)).unwrap().count();
    assert_eq!(held, 3, "its streams alone");

    pidfd_send_signal(&container.pidfd, Signal::TERM).unwrap();
    assert_eq!(wait(container.pid), End::Code(143));
    remove(&container.cgroup);
    host.assert_clean();
}

#[tokio::test]
async fn a_further_process_may_have_a_terminal_of_its_own() {
    let Some(host) = host() else { return };
    let (created, _streams) = host.create(&spec(&["sleep", "1000"])).await.unwrap();
    let container = host.start(created).await;
    let mut shell = process(&["sh", "-c", "tty; stty size; echo x > /dev/tty"]);
    shell.terminal = true;
    shell.console_size = Some((80, 25));
    shell.plain_line_feeds = true;
    let null = || std::os::fd::OwnedFd::from(fs::File::open("/dev/null").unwrap());
    let stdio = bulkhead_agent::container::ChildStdio {
        stdin: null(),
        stdout: null(),
        stderr: null(),
        terminal: true,
    };
    let spawned = bulkhead_agent::container::exec(&host.layout, &container, &shell, "", stdio).await.unwrap();
    let mut seen = Vec::new();
    let _ = std::io::copy(&mut fs::File::from(spawned.pty_master.unwrap()), &mut seen);
    assert_eq!(wait(spawned.pid), End::Code(0));
    assert_eq!(String::from_utf8(seen).unwrap(), "/dev/pts/0\n25 80\nx\n");
    container.cgroup.kill_all().unwrap();
    wait(container.pid);
    remove(&container.cgroup);
}

#[tokio::test]
async fn a_further_process_enters_the_user_namespace_as_well() {
    let Some(host) = host() else { return };
    let mut spec = spec(&["sleep", "1000"]);
    spec.namespaces.push(Namespace { kind: NamespaceKind::User, place: NamespacePlace::New });
    let map = vec![IdMapping { container: 0, host: 100_000, size: 65_536 }];
    (spec.uid_mappings, spec.gid_mappings) = (map.clone(), map);
    let (created, _streams) = host.create(&spec).await.unwrap();
    let container = host.start(created).await;
    let mut user = process(&["sh", "-c", "id -u; cat /proc/self/uid_map; grep ^0:: /proc/self/cgroup"]);
    user.user.uid = 1000;
    let outcome = host.exec(&container, &user).await.unwrap();
    let words: Vec<_> = outcome.stdout.split_whitespace().collect();
    assert_eq!(words, ["1000", "0", "100000", "65536", "0::/"], "{outcome:?}");
    container.cgroup.kill_all().unwrap();
    wait(container.pid);
    remove(&container.cgroup);
}

#[tokio::test]
async fn streams_are_opened_by_name_by_root_and_users_also_in_a_user_namespace() {
    let Some(host) = host() else { return };
    let script = "echo out >/dev/stdout; echo err >/proc/self/fd/2; cat /dev/stdin; echo more >>/dev/fd/1";
    for namespace in [false, true] {
        let container = |uid| {
            let mut spec = spec(&["sh", "-c", script]);
            if namespace {
                user_namespace(&mut spec);
            }
            spec.process.user.uid = uid;
            spec.process.user.gid = uid;
            // Or root could open what belongs to others.
            spec.process.capabilities = None;
            spec
        };
        for uid in [0, 101] {
            let outcome = host.run(&container(uid)).await.unwrap_or_else(|error| panic!("{}", error.chain()));
            let said = (outcome.stdout.as_str(), outcome.stderr.as_str());
            assert_eq!(said, ("out\nmore\n", "err\n"), "{uid} {namespace}");
        }
        let mut sleeping = container(0);
        sleeping.process.args = ["sleep", "1000"].map(str::to_owned).into();
        let (created, _streams) = host.create(&sleeping).await.unwrap();
        let running = host.start(created).await;
        for uid in [0, 101] {
            let outcome = host.exec(&running, &container(uid).process).await.unwrap();
            let said = (outcome.stdout.as_str(), outcome.stderr.as_str());
            assert_eq!(said, ("out\nmore\n", "err\n"), "exec {uid} {namespace}");
        }
        running.cgroup.kill_all().unwrap();
        wait(running.pid);
        remove(&running.cgroup);
    }
}

#[tokio::test]
async fn the_same_name_can_be_used_again() {
    let Some(host) = host() else { return };
    for _ in 0..5 {
        assert_eq!(host.shell(|_| {}, "echo again").await, "again\n");
        host.assert_clean();
    }
}

#[tokio::test]
async fn a_name_that_is_in_use_is_refused_and_the_owner_lives_on() {
    let Some(host) = host() else { return };
    let (created, _streams) = host.create(&spec(&["sh"])).await.unwrap();
    let error = host.create(&spec(&["sh"])).await.unwrap_err().chain();
    assert!(error.contains("remove old cgroup") && error.contains("busy"), "{error}");
    created.gate.release().await.unwrap();
    created.cgroup.kill_all().unwrap();
    wait(created.pid);
    remove(&created.cgroup);
}

#[tokio::test]
async fn a_process_that_was_started_ahead_makes_the_next_container() {
    let Some(host) = host() else { return };
    host.layout.launcher.start_ahead().unwrap();
    for _ in 0..2 {
        let outcome = host.run(&spec(&["sh", "-c", "echo $$; cd /proc/self/fd && echo *"])).await.unwrap();
        assert_eq!(
            (outcome.end, outcome.stdout.as_str()),
            (End::Code(0), "1\n0 1 2 3\n"),
            "{}",
            outcome.stderr
        );
    }
    host.assert_clean();
}

#[tokio::test]
async fn a_process_that_was_started_ahead_and_has_died_is_replaced() {
    let Some(host) = host() else { return };
    let pid = host.layout.launcher.start_ahead().unwrap();
    let pid = Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
    waitpid(Some(pid), WaitOptions::empty()).unwrap();
    let outcome = host.run(&spec(&["sh", "-c", "exit 7"])).await.unwrap();
    assert_eq!(outcome.end, End::Code(7), "{outcome:?}");
    host.assert_clean();
}
