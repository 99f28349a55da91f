//! What a process gets by `linux.seccomp`, `process.scheduler` and their neighbours, seen from inside.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use bulkhead_tests::host::{Bundle, Container, DEADLINE, TestHost, finish, probe};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

/// asm/unistd_64.h.
const GETPID: &str = "39";
const UNAME: &str = "63";
const PERSONALITY: &str = "135";
/// Above all that a profile names.
const NEWER: &str = "4000";

fn report(host: &TestHost, bundle: &Bundle) -> Value {
    serde_json::from_str(&host.run(bundle).success()).expect("the report is JSON")
}

fn running<'a>(host: &'a TestHost, bundle: &Bundle) -> Container<'a> {
    let container = host.create("web", bundle);
    container.start();
    container.until_stdout("ready");
    container
}

/// What container engines send, but for two calls: refused by default, one with an errno and one by its argument.
fn profile() -> Value {
    let known = "accept accept4 access arch_prctl bind brk capget capset chdir chmod chown clock_getres clock_gettime
        clock_nanosleep clone clone3 close close_range connect copy_file_range dup dup2 dup3 epoll_create1 epoll_ctl
        epoll_pwait epoll_wait eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 fallocate fchdir
        fchmod fchmodat fchown fcntl fdatasync flock fork fstat fstatfs fsync ftruncate futex getcpu getcwd getdents
        getdents64 getegid geteuid getgid getgroups getpeername getpgid getpgrp getpid getppid getpriority getrandom
        getresgid getresuid getrlimit get_robust_list getrusage getsid getsockname getsockopt gettid gettimeofday
        getuid getxattr get_mempolicy inotify_add_watch inotify_init1 ioctl ioprio_get kill link linkat listen lseek
        lstat madvise membarrier memfd_create mkdir mkdirat mlock mmap mprotect mremap munmap nanosleep newfstatat open
        openat openat2 pause pidfd_open pipe pipe2 poll ppoll prctl pread64 preadv prlimit64 pselect6 pwrite64 pwritev
        read readlink readlinkat readv recvfrom recvmmsg recvmsg rename renameat renameat2 restart_syscall rmdir rseq
        rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
        sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_yield select sendfile sendmmsg sendmsg
        sendto setgid setgroups setitimer setpgid setpriority setresgid setresuid set_robust_list setrlimit setsid
        setsockopt set_tid_address setuid shutdown sigaltstack socket socketpair splice stat statfs statx symlink
        symlinkat sysinfo tee tgkill time timer_create timerfd_create times tkill truncate umask unlink unlinkat
        utimensat vfork wait4 waitid waitpid write writev";
    let names: Vec<&str> = known.split_whitespace().collect();
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [
            { "names": names, "action": "SCMP_ACT_ALLOW" },
            { "names": ["uname"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95 },
            { "names": ["personality"], "action": "SCMP_ACT_ALLOW",
              "args": [{ "index": 0, "value": 8, "op": "SCMP_CMP_EQ" }] }
        ]
    })
}

#[test]
fn a_seccomp_profile_binds_the_container_and_its_execs_whatever_their_privileges() {
    let host = TestHost::new();
    for no_new_privileges in [true, false] {
        let bundle = host
            .bundle()
            .args(["probe", "linger"])
            .set("/linux/seccomp", profile())
            .set("/process/user", json!({ "uid": 1000, "gid": 1000 }))
            .set("/process/noNewPrivileges", json!(no_new_privileges));
        let web = running(&host, &bundle);
        let status = web.exec(["cat", "/proc/1/status", "/proc/self/status"]).success();
        assert_eq!(status.matches("Seccomp:\t2\nSeccomp_filters:\t1\n").count(), 2, "{status}");
        assert_eq!(status.matches(&format!("NoNewPrivs:\t{}\n", u8::from(no_new_privileges))).count(), 2);
        for (call, answer) in [
            (&[GETPID][..], "ok\n"),
            (&[UNAME], "EOPNOTSUPP\n"),
            (&[PERSONALITY, "8"], "ok\n"),
            (&[PERSONALITY, "0"], "EPERM\n"),
            (&[NEWER], "ENOSYS\n"),
        ] {
            assert_eq!(web.exec(["probe", "call"].iter().chain(call)).success(), answer, "{call:?}");
        }
        web.delete_force();
    }
}

#[test]
fn a_profile_that_kills_ends_the_container_by_the_signal() {
    let host = TestHost::new();
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["uname"], "action": "SCMP_ACT_KILL_PROCESS" }]
    });
    let bundle = host.bundle().set("/linux/seccomp", profile).args(["probe", "call", UNAME]);
    // 128 + SIGSYS
    assert_eq!(host.run(&bundle).code(), 159);
}

#[test]
fn a_profile_for_a_listener_is_refused_with_the_reason() {
    let host = TestHost::new();
    let mut notify = profile();
    notify["syscalls"][1] = json!({ "names": ["uname"], "action": "SCMP_ACT_NOTIFY" });
    let words = ["linux.seccomp.syscalls[1].action \"SCMP_ACT_NOTIFY\" is not supported", "microVM"];
    host.run(&host.bundle().set("/linux/seccomp", notify)).failure(1, &words);
}

#[test]
fn scheduler_io_priority_personality_and_memory_policy_are_what_the_spec_says() {
    let host = TestHost::new();
    let bundle = host
        .bundle()
        .set(
            "/process/scheduler",
            json!({ "policy": "SCHED_BATCH", "nice": 5, "flags": ["SCHED_FLAG_RESET_ON_FORK"] }),
        )
        .set("/process/ioPriority", json!({ "class": "IOPRIO_CLASS_IDLE", "priority": 2 }))
        .set("/linux/personality", json!({ "domain": "LINUX32" }))
        .set(
            "/linux/memoryPolicy",
            json!({ "mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"] }),
        );
    let seen = report(&host, &bundle);
    assert_eq!(seen["scheduler"]["policy"], 3);
    assert_eq!(seen["scheduler"]["nice"], 5);
    assert_eq!(seen["scheduler"]["flags"], 1);
    assert_eq!(seen["io_priority"], json!([3, 2]));
    assert_eq!(seen["personality"], 8);
    assert_eq!(seen["memory_policy"], json!([1 << 15 | 3, 1]));
}

#[test]
fn a_time_namespace_shifts_the_clocks() {
    let host = TestHost::new();
    let bundle = host.bundle().push("/linux/namespaces", json!({ "type": "time" })).set(
        "/linux/timeOffsets",
        json!({ "monotonic": { "secs": 5, "nanosecs": 6 }, "boottime": { "secs": 864_000 } }),
    );
    let seen = report(&host, &bundle);
    let offsets: Vec<&str> = seen["time_offsets"].as_str().unwrap().split_whitespace().collect();
    assert_eq!(offsets, ["monotonic", "5", "6", "boottime", "864000", "0"]);
    let uptime: f64 = seen["uptime"].as_str().unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(uptime > 864_000.0, "{uptime}");
    assert_ne!(seen["namespaces"]["time"], report(&host, &host.bundle())["namespaces"]["time"]);
}

#[test]
fn an_exec_runs_on_the_cpus_of_its_process() {
    let host = TestHost::new();
    let bundle = host
        .bundle()
        .args(["probe", "linger"])
        .set("/process/execCPUAffinity", json!({ "initial": "0", "final": "0" }));
    let web = running(&host, &bundle);
    assert!(web.exec(["cat", "/proc/self/status"]).success().contains("Cpus_allowed_list:\t0\n"));
    let file = host.dir().join("process.json");
    let process = json!({
        "args": ["true"], "cwd": "/", "env": ["PATH=/bin"], "execCPUAffinity": { "final": "31" }
    });
    fs::write(&file, process.to_string()).unwrap();
    let mut exec = host.bulkhead(["exec", "--process"]);
    finish(exec.arg(&file).arg(&web.id), b"", DEADLINE).failure(255, &["the guest has no CPU 31"]);
    web.delete_force();
}

#[test]
fn a_setting_of_the_whole_guest_takes_the_operators_word() {
    let host = TestHost::new();
    let bundle = host
        .bundle()
        .set("/linux/sysctl", json!({ "vm.overcommit_memory": "0" }))
        .args(["cat", "/proc/sys/vm/overcommit_memory"]);
    let words = ["linux.sysctl[\"vm.overcommit_memory\"] is not supported", "allowed_sysctls"];
    host.run(&bundle).failure(1, &words);
    let config = host.dir().join("config.toml");
    fs::write(&config, "allowed_sysctls = ['vm.*']\n").unwrap();
    let mut run = host.bulkhead(["--config"]);
    run.arg(&config).args(["run", "--bundle"]).arg(bundle.write()).arg(host.id("sysctl"));
    assert_eq!(finish(&mut run, b"", DEADLINE).success(), "0\n");
    host.assert_no_trace();
}

#[test]
fn an_apparmor_profile_is_a_warning_unless_the_operator_says_otherwise() {
    let host = TestHost::new();
    let bundle = host.bundle().set("/process/apparmorProfile", json!("docker-default")).args(["true"]);
    let finished = host.run(&bundle);
    finished.success();
    assert!(finished.errors().contains("process.apparmorProfile is not applied"), "{}", finished.errors());
    let config = host.dir().join("config.toml");
    fs::write(&config, "apparmor = 'refuse'\n").unwrap();
    let mut run = host.bulkhead(["--config"]);
    run.arg(&config).args(["run", "--bundle"]).arg(bundle.write()).arg(host.id("armor"));
    finish(&mut run, b"", DEADLINE).failure(1, &["process.apparmorProfile is not supported"]);
    host.assert_no_trace();
}

/// A handler of the host for programs that start with bytes of the test's own.
struct Handler {
    name: String,
    magic: String,
}

const BINFMT: &str = "/proc/sys/fs/binfmt_misc";

impl Handler {
    /// The probe is the interpreter.
    fn registered() -> Self {
        mount(Some("binfmt"), BINFMT, Some("binfmt_misc"), MsFlags::empty(), None::<&str>).unwrap();
        let name = format!("bulkhead-{}", std::process::id());
        let magic = format!("foreign{}", std::process::id());
        let line = format!(":{name}:M::{magic}::{}:F", probe().canonicalize().unwrap().display());
        fs::write(PathBuf::from(BINFMT).join("register"), line).unwrap();
        Self { name, magic }
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        let _ = fs::write(PathBuf::from(BINFMT).join(&self.name), "-1");
        let _ = umount2(BINFMT, MntFlags::MNT_DETACH);
    }
}

#[test]
fn foreign_binaries_run_by_the_handlers_of_the_host_that_the_operator_lists() {
    let host = TestHost::new();
    let handler = Handler::registered();
    let bundle = host.bundle().own_rootfs().args(["/bin/foreign", "word"]);
    let program = bundle.dir().join("rootfs/bin/foreign");
    fs::write(&program, format!("{} and more", handler.magic)).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    host.run(&bundle).failure(1, &["/bin/foreign"]);
    let config = host.dir().join("config.toml");
    fs::write(&config, format!("binfmt = ['{}', 'never-was']\n", handler.name)).unwrap();
    let mut run = host.bulkhead(["--config"]);
    run.arg(&config).args(["run", "--bundle"]).arg(bundle.write()).arg(host.id("foreign"));
    let finished = finish(&mut run, b"", DEADLINE);
    assert_eq!(finished.success(), "foreign /bin/foreign word\n");
    let warning = "foreign binaries of never-was do not run: the host has no such handler";
    assert!(finished.errors().contains(warning), "{}", finished.errors());
    host.assert_no_trace();
}
