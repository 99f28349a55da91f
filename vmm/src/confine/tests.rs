use std::{
    collections::{BTreeMap, HashMap, HashSet},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::process::{CommandExt, ExitStatusExt},
    },
    process::{Command, ExitStatus, Stdio},
    sync::mpsc::channel,
    thread,
    time::Duration,
};

use bulkhead_protocol::{
    packet::PacketSocket,
    vmm::{CONTROL_FD, Event, GuestExit, Message},
};

use vm_memory::{Bytes, GuestAddress};

use super::{
    lists::{self, Argument, Rule},
    *,
};
use crate::memory::{HUGE_PAGE, MEMORY_BLOCK, Memory};

/// Tells a test process that it is the child, and what to do: kind, a space, name of the attempt.
const ATTEMPT: &str = "BULKHEAD_TEST_ATTEMPT";

#[test]
fn no_list_is_longer_than_allowed() {
    for kind in Kind::ALL {
        let calls: HashSet<i64> = kind.rules().map(|rule| rule.call).collect();
        if kind == Kind::Files {
            assert!(calls.len() > lists::MOST, "no exception is needed any more");
        } else {
            assert!(calls.len() <= lists::MOST, "{kind:?} may make {} calls", calls.len());
        }
    }
}

#[test]
fn a_call_is_allowed_for_all_arguments_or_for_some_but_not_twice() {
    for kind in Kind::ALL {
        let mut calls: BTreeMap<i64, Vec<&Rule>> = BTreeMap::new();
        kind.rules().for_each(|rule| calls.entry(rule.call).or_default().push(rule));
        for (call, rules) in calls {
            let unconditional = rules.iter().any(|rule| rule.arguments.is_empty());
            assert!(!unconditional || rules.len() == 1, "{kind:?}: {:?}", names::name(call));
        }
    }
}

#[test]
fn no_list_has_a_call_that_would_undo_a_wall() {
    let never = [
        "execve",
        "execveat",
        "fork",
        "vfork",
        "clone",
        "clone3",
        "ptrace",
        "rt_sigaction",
        "unshare",
        "setns",
        "mount",
        "umount2",
        "pivot_root",
        "chroot",
        "open_tree",
        "move_mount",
        "mount_setattr",
        "socket",
        "connect",
        "bind",
        "keyctl",
        "add_key",
        "request_key",
        "io_uring_setup",
        "io_uring_enter",
        "bpf",
        "perf_event_open",
        "userfaultfd",
        "process_vm_readv",
        "process_vm_writev",
        "pidfd_getfd",
        "kcmp",
        "open_by_handle_at",
        "memfd_create",
        "seccomp",
        "pkey_mprotect",
        "personality",
        "modify_ldt",
        "kill",
    ];
    for kind in Kind::ALL {
        for call in never {
            let number = names::number(call).unwrap();
            assert!(kind.rules().all(|rule| rule.call != number), "{kind:?} may call {call}");
        }
    }
}

#[test]
fn names_and_numbers_agree() {
    assert_eq!(names::name(libc::SYS_ptrace), Some("ptrace"));
    assert_eq!(names::name(libc::SYS_read), Some("read"));
    assert_eq!(names::name(libc::SYS_mseal), Some("mseal"));
    assert_eq!(names::number("io_uring_setup"), Some(425));
    assert_eq!(names::name(99_999), None);
}

/// What a thread does at any time, whatever it is for.
#[test]
fn a_confined_thread_allocates_waits_logs_and_ends() {
    for kind in Kind::ALL {
        let (ready, go) = channel();
        let (_never, silence) = channel::<()>();
        let confined = move || {
            enter(kind, "test").unwrap();
            go.recv().unwrap();
            let mut large: Vec<u8> = Vec::with_capacity(1 << 20);
            (0..24).for_each(|bits| large.resize(1 << bits, 1));
            let small: HashMap<u32, String> = (0..10_000).map(|n| (n, n.to_string())).collect();
            assert!(silence.recv_timeout(Duration::from_millis(1)).is_err());
            eprintln!("{} {}", large.len(), small.len());
        };
        let thread = thread::spawn(confined);
        ready.send(()).unwrap();
        thread.join().unwrap();
    }
}

#[test]
fn only_file_workers_keep_capabilities() {
    let kept = |kind| {
        let confined = move || {
            let before = rustix::thread::capabilities(None).unwrap();
            enter(kind, "test").unwrap();
            before
        };
        // The filters do not let a thread look, and another one can.
        let (done, wait) = channel::<()>();
        let (tell, told) = channel();
        let thread = thread::spawn(move || {
            tell.send((rustix::thread::gettid(), confined())).unwrap();
            let _ = wait.recv();
        });
        let (tid, before) = told.recv().unwrap();
        let now = rustix::thread::capabilities(Some(tid)).unwrap();
        drop(done);
        thread.join().unwrap();
        (before.permitted, now.permitted | now.effective)
    };
    let (before, now) = kept(Kind::Files);
    assert_eq!(now, before);
    for kind in [Kind::Control, Kind::Devices, Kind::Vcpu, Kind::Locks, Kind::Disks] {
        assert_eq!(kept(kind).1, CapabilitySet::empty(), "{kind:?}");
    }
}

type Arguments = [u64; 6];

/// Calls that no thread may make.
fn forbidden() -> Vec<(&'static str, i64, Arguments)> {
    let call = |name, arguments: &[u64]| {
        let mut all = Arguments::default();
        all[..arguments.len()].copy_from_slice(arguments);
        (name, names::number(name).unwrap(), all)
    };
    let page = 4096;
    let exec = (libc::PROT_READ | libc::PROT_EXEC) as u64;
    let private = libc::MAP_PRIVATE as u64;
    vec![
        call("ptrace", &[libc::PTRACE_TRACEME.into()]),
        call("execve", &[0, 0, 0]),
        call("socket", &[libc::AF_INET as u64, libc::SOCK_STREAM as u64]),
        call("connect", &[0, 0, 0]),
        call("keyctl", &[0, 0]),
        call("add_key", &[]),
        call("io_uring_setup", &[1, 0]),
        call("bpf", &[0, 0, 0]),
        call("unshare", &[libc::CLONE_NEWUSER as u64]),
        call("setns", &[0, 0]),
        call("clone", &[libc::SIGCHLD as u64]),
        call("clone", &[(libc::CLONE_NEWUSER | libc::SIGCHLD) as u64]),
        call("clone3", &[0, 0]),
        call("fork", &[]),
        call("mmap", &[0, page, exec, private | libc::MAP_ANONYMOUS as u64, u64::MAX, 0]),
        call("mmap", &[0, page, libc::PROT_READ as u64, private, 0, 0]),
        call("mprotect", &[0, page, exec]),
        call("mremap", &[0, page, page, (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as u64, page]),
        call("madvise", &[0, page, libc::MADV_HWPOISON as u64]),
        call("ioctl", &[0, libc::TIOCSTI]),
        // KVM_CREATE_VM, KVM_CREATE_VCPU, KVM_SET_MSRS, VHOST_RESET_OWNER, TUNSETIFF
        call("ioctl", &[0, 0xae01]),
        call("ioctl", &[0, 0xae41]),
        call("ioctl", &[0, 0x4008_ae89]),
        call("ioctl", &[0, 0xaf02]),
        call("ioctl", &[0, 0x4004_54ca]),
        call("prctl", &[libc::PR_SET_DUMPABLE as u64, 1]),
        call("fcntl", &[0, libc::F_SETOWN as u64, 1]),
        call("rt_sigaction", &[libc::SIGSYS as u64, 0, 0, 8]),
        call("kill", &[1, 9]),
        call("tgkill", &[1, 1, libc::SIGKILL as u64]),
        call("seccomp", &[0, 0, 0]),
        call("process_vm_writev", &[]),
        call("open_by_handle_at", &[]),
        call("mount", &[]),
        call("chroot", &[]),
        call("perf_event_open", &[]),
        call("userfaultfd", &[]),
        call("memfd_create", &[]),
        call("personality", &[u64::from(u32::MAX)]),
        call("open", &[]),
    ]
}

/// Files and their capabilities are the business of file workers alone.
fn of_files() -> Vec<(&'static str, i64, Arguments)> {
    [
        "openat",
        "openat2",
        "mknodat",
        "linkat",
        "setresuid",
        "setresgid",
        "setgroups",
        "capset",
        "fchdir",
        "getdents64",
    ]
    .map(|name| (name, names::number(name).unwrap(), Arguments::default()))
    .into()
}

/// Runs a child that confines a thread and makes a call in it: how it ended, and its last words.
fn attempt(kind: Kind, what: &str) -> (ExitStatus, Option<GuestExit>) {
    let (ours, theirs) = PacketSocket::pair().unwrap();
    let theirs = OwnedFd::from(theirs);
    let number = theirs.as_raw_fd();
    let mut command = Command::new("/proc/self/exe");
    command.args(["--exact", "confine::tests::child", "--nocapture"]);
    command.env(ATTEMPT, format!("{} {what}", kind.name()));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let pass = move || {
        // SAFETY: plain system calls, allowed between fork and exec, on a descriptor that the parent holds open.
        let done = unsafe {
            if number == CONTROL_FD {
                libc::fcntl(number, libc::F_SETFD, 0)
            } else {
                libc::dup2(number, CONTROL_FD)
            }
        };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: the closure allocates nothing and takes no lock.
    unsafe { command.pre_exec(pass) };
    let status = command.status().unwrap();
    drop(theirs);
    match ours.receive() {
        Ok((Message::Event(Event::Exited { reason, console_tail }), _)) => {
            assert_eq!(console_tail, "");
            (status, Some(reason))
        }
        Ok((other, _)) => panic!("{other:?}"),
        Err(_) => (status, None),
    }
}

fn assert_refused(kind: Kind, calls: Vec<(&'static str, i64, Arguments)>) {
    for (name, number, arguments) in calls {
        let mut what = number.to_string();
        arguments.iter().for_each(|argument| what.push_str(&format!(" {argument}")));
        let (status, reason) = attempt(kind, &what);
        assert_eq!(status.code(), Some(128 + libc::SIGSYS), "{kind:?} {name} {arguments:?}: {status}");
        match reason {
            Some(GuestExit::Forbidden { thread, call, address }) => {
                assert_eq!((thread, call), ("guilty".to_owned(), format!("{name} ({number})")));
                assert_ne!(address, 0);
            }
            other => panic!("{kind:?} {name}: {other:?}"),
        }
    }
}

#[test]
fn the_control_thread_is_stopped_at_a_call_outside_of_its_list() {
    assert_refused(Kind::Control, forbidden());
    assert_refused(Kind::Control, of_files());
}

#[test]
fn the_device_loop_is_stopped_at_a_call_outside_of_its_list() {
    assert_refused(Kind::Devices, forbidden());
    assert_refused(Kind::Devices, of_files());
}

#[test]
fn a_vcpu_is_stopped_at_a_call_outside_of_its_list() {
    assert_refused(Kind::Vcpu, forbidden());
    assert_refused(Kind::Vcpu, of_files());
}

#[test]
fn a_file_worker_is_stopped_at_a_call_outside_of_its_list() {
    assert_refused(Kind::Files, forbidden());
}

#[test]
fn a_thread_that_waits_for_locks_is_stopped_at_a_call_outside_of_its_list() {
    assert_refused(Kind::Locks, forbidden());
    assert_refused(Kind::Locks, of_files());
}

#[test]
fn a_disk_worker_is_stopped_at_a_call_outside_of_its_list() {
    assert_refused(Kind::Disks, forbidden());
    assert_refused(Kind::Disks, of_files());
}

#[test]
fn a_call_of_another_abi_ends_the_process() {
    let (status, reason) = attempt(Kind::Vcpu, "i386");
    assert_eq!((status.signal(), reason), (Some(libc::SIGSYS), None));
    let (_, reason) = attempt(Kind::Vcpu, "1073741863 0 0 0 0 0 0");
    match reason {
        Some(GuestExit::Forbidden { call, .. }) => assert_eq!(call, "39 of the x32 ABI"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_crash_names_the_thread_and_the_signal() {
    let (status, reason) = attempt(Kind::Files, "crash");
    assert_eq!(status.code(), Some(128 + libc::SIGSEGV));
    match reason {
        Some(GuestExit::Vmm(what)) => {
            assert!(what.as_ref().starts_with("SIGSEGV at instruction 0x"), "{what}");
            assert!(what.as_ref().ends_with("address 0x10, in its thread guilty"), "{what}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_error_of_the_hosts_memory_is_told() {
    for (code, word) in [
        (report::BUS_MCEERR_AR, "the host's memory failed below the guest"),
        (report::BUS_MCEERR_AO, "the host found that memory of this VM fails"),
        (libc::BUS_ADRERR, "SIGBUS at instruction 0x"),
    ] {
        let (status, reason) = attempt(Kind::Devices, &format!("bus {code}"));
        assert_eq!(status.code(), Some(128 + libc::SIGBUS));
        let Some(GuestExit::Vmm(what)) = reason else { panic!("{reason:?}") };
        assert!(what.as_ref().starts_with(word), "{what}");
    }
}

#[test]
fn a_device_that_touches_unplugged_memory_says_whose_fault_it_was() {
    let (_, reason) = attempt(Kind::Files, "unplugged");
    let Some(GuestExit::Vmm(what)) = reason else { panic!("{reason:?}") };
    let word = "the guest pointed a device at memory that it has not plugged";
    assert!(what.as_ref().starts_with(word), "{what}");
}

#[test]
fn a_panic_is_told_in_one_line() {
    let (status, reason) = attempt(Kind::Devices, "panic");
    assert_eq!(status.code(), Some(1));
    match reason {
        Some(GuestExit::Vmm(what)) => {
            assert!(what.as_ref().starts_with("panicked at "), "{what}");
            assert!(what.as_ref().ends_with(": it is 'over', in its thread guilty"), "{what}");
        }
        other => panic!("{other:?}"),
    }
}

/// Not a test, but what the others run.
#[test]
fn child() {
    let Ok(attempt) = std::env::var(ATTEMPT) else { return };
    let (kind, what) = attempt.split_once(' ').unwrap();
    let kind = Kind::ALL.into_iter().find(|known| known.name() == kind).unwrap();
    prepare().unwrap();
    let what = what.to_owned();
    let guilty = move || {
        let numbers: Vec<u64> = what.split(' ').flat_map(str::parse).collect();
        std::panic::set_hook(Box::new(|panic| end(panic)));
        if let Some(code) = what.strip_prefix("bus ") {
            report::name_thread("guilty");
            raise_bus(code.parse().unwrap());
        }
        let memory = Memory::growing(HUGE_PAGE, MEMORY_BLOCK).unwrap();
        watch(&memory);
        enter(kind, "guilty").unwrap();
        match what.as_str() {
            "crash" => crash(),
            "panic" => panic!("it is \"over\""),
            "i386" => i386(),
            "unplugged" => touch_unplugged(&memory),
            _ => {}
        }
        let &[number, a, b, c, d, e, f] = numbers.as_slice() else { return };
        // SAFETY: none of the calls that the tests name touches memory of this process when it is refused; when it is
        // not, the test has failed, whatever happens.
        unsafe { libc::syscall(number as libc::c_long, a, b, c, d, e, f) };
    };
    // The parent takes a child that ends by itself for one that was not stopped.
    thread::spawn(guilty).join().unwrap();
}

/// As the kernel sends it: a process may queue such a signal to itself alone.
fn raise_bus(code: libc::c_int) {
    // SAFETY: all zeros is a valid siginfo.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    (info.si_signo, info.si_code) = (libc::SIGBUS, code);
    // SAFETY: `info` is valid, and the ids are the caller's own.
    unsafe {
        let (process, thread) = (libc::getpid(), libc::gettid());
        libc::syscall(libc::SYS_rt_tgsigqueueinfo, process, thread, libc::SIGBUS, &raw const info);
    }
}

fn touch_unplugged(memory: &Memory) {
    let hotplug = memory.hotplug().unwrap();
    let _ = memory.read_obj::<u64>(GuestAddress(hotplug.guest));
}

fn crash() {
    // SAFETY: no duty is met: the access is meant to end the process.
    unsafe { std::ptr::without_provenance::<u8>(0x10).read_volatile() };
}

fn i386() {
    // SAFETY: getpid of the i386 ABI, which changes nothing but a register.
    unsafe { std::arch::asm!("int 0x80", inout("eax") 20 => _) };
}

/// What the recording saw: kind, call, and those of its arguments that tell one call from another.
fn recorded() -> Vec<(Kind, i64, [Option<u64>; 6])> {
    let lines = include_str!("recorded.txt").lines().filter(|line| !line.starts_with('#'));
    let parse = |line: &str| {
        let mut words = line.split(' ');
        let kind = words.next()?;
        let kind = Kind::ALL.into_iter().find(|known| known.name() == kind)?;
        let call = names::number(words.next()?)?;
        let mut arguments = [None; 6];
        for (place, word) in arguments.iter_mut().zip(words) {
            *place = if word == "-" { None } else { Some(u64::from_str_radix(word, 16).ok()?) };
        }
        Some((kind, call, arguments))
    };
    lines.map(|line| parse(line).unwrap_or_else(|| panic!("{line}"))).collect()
}

fn matches(rule: &Rule, call: i64, arguments: &[Option<u64>; 6]) -> bool {
    let holds = |argument: &Argument| {
        let value = arguments[usize::from(argument.index)];
        value.is_some_and(|value| value as u32 & argument.mask == argument.value)
    };
    rule.call == call && rule.arguments.iter().all(holds)
}

#[test]
fn what_the_recording_saw_is_allowed() {
    for (kind, call, arguments) in recorded() {
        let allowed = kind.rules().any(|rule| matches(rule, call, &arguments));
        assert!(allowed, "{kind:?} calls {:?} {arguments:x?}", names::name(call));
    }
}

#[test]
fn what_is_allowed_was_recorded_or_has_a_reason() {
    let recorded = recorded();
    let seen = |kind: Kind, rule: &Rule| {
        recorded.iter().any(|(of, call, arguments)| *of == kind && matches(rule, *call, arguments))
    };
    let mut without = Vec::new();
    for kind in Kind::ALL {
        for rule in kind.rules() {
            // What every thread may do need not be done by every thread.
            let common = Kind::ALL.iter().all(|kind| kind.rules().any(|other| other.call == rule.call));
            let seen = seen(kind, rule) || common && Kind::ALL.iter().any(|&kind| seen(kind, rule));
            if !seen && rule.unseen.is_none() {
                let call = names::name(rule.call).unwrap_or("?");
                without.push(format!("{kind:?} {call} {:x?}", rule.arguments));
            }
        }
    }
    assert!(without.is_empty(), "{without:#?}");
}
