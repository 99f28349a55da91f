//! The probe: runs inside containers and says what it sees, or behaves as a test needs. Static; shell-free.
//!
//!   probe report             JSON of everything a container can see of its own confinement
//!   probe exit CODE          exits at once
//!   probe die SIGNAL         dies by the signal, default action
//!   probe spew SEED LENGTH   writes LENGTH bytes drawn from SEED to stdout and exits at once
//!   probe linger             prints "ready", ignores nothing, waits for a signal
//!   probe hold MIB           takes that much memory, prints "held"; frees it on USR1 and prints "freed"; ends on TERM
//!   probe trap               prints each of INT TERM HUP USR1 USR2 WINCH as it comes; ends on TERM
//!   /init                    as PID 1 of a guest: resets it at once (the bare boot of the benchmarks)
//!   probe call NUMBER ARG…   makes a system call with numbers and prints "ok" or the error's name
//!   probe pour ADDRESS PORT LENGTH   sends LENGTH zeroes by TCP
//!   probe drain ADDRESS PORT         reads a TCP stream to its end
//!   probe mirror ADDRESS PORT        sends back what comes by TCP
//!   probe serve ADDRESS:PORT…       listens, prints "serving" and answers (bulkhead_tests::probe::serve)
//!   probe exchange PATH LENGTH       sends as many bytes by a unix socket to such a server; "whole" or "not whole", or the error's name
//!   probe vsock CID PORT             connects by vsock and prints "ok" or the error's name
//!   probe disk WAY PATH MIB CACHE   streams (read or write) MIB of a disk (direct or cached): prints "begin" and "end"
//!   probe late SECONDS       sets the clock back, prints "late", prints "right" when somebody has set it right and ends
//!   probe clock              prints the difference of the wall clock and the uptime in ms, and again whenever the clock is set
//!   interpreter PATH WORD…   as the interpreter of a foreign program: prints its words
//!   probe watch PATH…        prints "watching", then what inotify says of the paths (bulkhead_tests::probe::watch)
//!   probe try PATH           opens PATH for writing and prints "ok" or the error's name
//!   probe lock KIND PATH     locks PATH (flock or posix) and prints "ok" or the error's name
//!   probe hold-lock KIND PATH    the same, and keeps it until it is killed
//!   probe wait-lock KIND PATH    waits for the lock, prints "EINTR" for each USR1, and "ok"; keeps it until it is killed
//!   probe acl PATH USER      lets USER read and write PATH by an ACL, and prints "ok" or the error's name
//!   probe unnamed DIR        makes a file without a name in DIR, names it "linked", and prints "ok" or the error's name
//!   probe meet DIRECTORY     locks, maps, watches and listens there, prints "ready" and answers a `probe visit`
//!   probe visit DIRECTORY    prints what it has of the `probe meet` in a directory
//!   probe empower PATH       gives PATH the file capability CAP_NET_RAW and prints "ok" or the error's name

use std::{
    env,
    io::{self, Read, Write},
    net::{IpAddr, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    process::ExitCode,
};

use bulkhead_tests::probe::{bytes, calls, disks, files, neighbours, report, serve, watch};
use nix::{
    sys::{
        signal::{SigSet, SigmaskHow, Signal, raise, sigprocmask},
        time::{TimeSpec, TimeValLike},
        timerfd::{self, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
        wait::WaitStatus,
    },
    time::ClockId,
};

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    if std::process::id() == 1 && env::args().next().as_deref() == Some("/init") {
        // Only an error returns, and then the kernel panics for want of an init: an end as well.
        let _ = nix::sys::reboot::reboot(nix::sys::reboot::RebootMode::RB_AUTOBOOT);
    }
    match words.as_slice() {
        ["report"] => println!("{}", report::report()),
        ["exit", code] => return code.parse().map_or(ExitCode::FAILURE, |code: u8| ExitCode::from(code)),
        ["die", signal] => return die(signal),
        ["spew", seed, length] => return spew(seed, length),
        ["linger"] => {
            say("ready");
            loop {
                nix::unistd::pause();
            }
        }
        ["hold", mib] => return hold(mib),
        ["trap"] => return trap(),
        ["call", number, arguments @ ..] => match calls::call(number, arguments) {
            Some(answer) => println!("{answer}"),
            None => return ExitCode::from(2),
        },
        ["pour", address, port, length] => {
            return talk(address, port, |peer| {
                let zeroes = [0; 128 << 10];
                let mut left = length.parse().unwrap_or(0_usize);
                while left > 0 {
                    left -= peer.write(&zeroes[..left.min(zeroes.len())])?;
                }
                Ok(())
            });
        }
        ["drain", address, port] => {
            return talk(address, port, |peer| {
                let mut buffer = vec![0; 256 << 10];
                while peer.read(&mut buffer)? > 0 {}
                Ok(())
            });
        }
        ["mirror", address, port] => {
            return talk(address, port, |peer| {
                peer.set_nodelay(true)?;
                let mut buffer = [0; 4096];
                loop {
                    match peer.read(&mut buffer)? {
                        0 => return Ok(()),
                        count => peer.write_all(&buffer[..count])?,
                    }
                }
            });
        }
        ["serve", addresses @ ..] => tell(serve::serve(addresses, say)),
        ["exchange", path, length] => {
            let length = length.parse().unwrap_or(0);
            match UnixStream::connect(path).and_then(|peer| serve::exchange(&peer, &bytes(5, length))) {
                Ok(true) => println!("whole"),
                Ok(false) => println!("not whole"),
                Err(error) => tell(Err(error)),
            }
        }
        ["vsock", cid, port] => match (cid.parse(), port.parse()) {
            (Ok(cid), Ok(port)) => tell(vsock(cid, port)),
            _ => return ExitCode::from(2),
        },
        ["disk", way, path, mib, cache] => {
            if let Err(error) = disks::stream(way, path, mib, cache, say) {
                eprintln!("probe: {error}");
                return ExitCode::from(4);
            }
        }
        ["clock"] => return follow_clock(),
        [program, words @ ..] if program.starts_with('/') => {
            say(&format!("foreign {program} {}", words.join(" ")));
        }
        ["late", seconds] => return seconds.parse().map_or(ExitCode::from(2), late),
        ["watch", paths @ ..] => {
            if let Err(error) = watch::watch(paths, say) {
                println!("{error}");
                return ExitCode::from(3);
            }
        }
        ["try", path] => tell(std::fs::OpenOptions::new().write(true).open(path).map(drop)),
        ["lock", kind, path] => tell(files::lock(kind, path, false).map(drop)),
        ["hold-lock", kind, path] => keep(files::lock(kind, path, false)),
        ["wait-lock", kind, path] => keep(wait_for_lock(kind, path)),
        ["acl", path, user] => match user.parse() {
            Ok(user) => tell(files::set_acl(path, user)),
            Err(_) => return ExitCode::from(2),
        },
        ["unnamed", directory] => tell(files::unnamed(directory)),
        ["meet", directory] => tell(neighbours::meet(Path::new(directory))),
        ["visit", directory] => match neighbours::visit(Path::new(directory)) {
            Ok(seen) => println!("{seen}"),
            Err(error) => tell(Err(error)),
        },
        ["empower", path] => tell(empower(path)),
        _ => {
            eprintln!("probe: unknown words {words:?}");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

/// Connects, and ends with 4 when that or what follows fails.
fn talk(address: &str, port: &str, work: impl FnOnce(&mut TcpStream) -> io::Result<()>) -> ExitCode {
    let (Ok(address), Ok(port)) = (address.parse::<IpAddr>(), port.parse::<u16>()) else {
        return ExitCode::from(2);
    };
    match TcpStream::connect((address, port)).and_then(|mut peer| work(&mut peer)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("probe: {error}");
            ExitCode::from(4)
        }
    }
}

/// Connects, and reads what comes: a peer that does not hear us closes without a word.
fn vsock(cid: u32, port: u32) -> io::Result<()> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, VsockAddr, connect, socket};
    let socket = socket(AddressFamily::Vsock, SockType::Stream, SockFlag::empty(), None)?;
    connect(std::os::fd::AsRawFd::as_raw_fd(&socket), &VsockAddr::new(cid, port))?;
    match std::fs::File::from(socket).read(&mut [0])? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

fn late(seconds: i64) -> ExitCode {
    match be_late(seconds) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("probe: {error}");
            ExitCode::from(4)
        }
    }
}

fn follow_clock() -> ExitCode {
    let follow = || -> nix::Result<()> {
        let timer = clock_timer()?;
        loop {
            let difference = ClockId::CLOCK_REALTIME.now()? - ClockId::CLOCK_BOOTTIME.now()?;
            say(&format!("clock {}", difference.num_milliseconds()));
            until_set(&timer)?;
        }
    };
    match follow() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("probe: {error}");
            ExitCode::from(4)
        }
    }
}

/// A timer that never expires, and is cancelled each time that somebody sets the clock, this program too.
fn clock_timer() -> nix::Result<TimerFd> {
    let timer = TimerFd::new(timerfd::ClockId::CLOCK_REALTIME, TimerFlags::empty())?;
    let never = Expiration::OneShot(TimeSpec::new(i64::MAX, 0));
    timer.set(never, TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET)?;
    Ok(timer)
}

fn until_set(timer: &TimerFd) -> nix::Result<()> {
    match timer.wait() {
        Ok(()) | Err(nix::errno::Errno::ECANCELED) => Ok(()),
        Err(error) => Err(error),
    }
}

fn be_late(seconds: i64) -> nix::Result<()> {
    let timer = clock_timer()?;
    let (began, right) = (std::time::Instant::now(), ClockId::CLOCK_REALTIME.now()?);
    nix::time::clock_settime(ClockId::CLOCK_REALTIME, right - TimeSpec::new(seconds, 0))?;
    say("late");
    loop {
        until_set(&timer)?;
        let missing = right + TimeSpec::from(began.elapsed()) - ClockId::CLOCK_REALTIME.now()?;
        if missing.num_seconds() < seconds / 2 {
            say("right");
            return Ok(());
        }
    }
}

fn wait_for_lock(kind: &str, path: &str) -> io::Result<std::fs::File> {
    files::let_signals_interrupt()?;
    loop {
        match files::lock(kind, path, true) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => say("EINTR"),
            done => return done,
        }
    }
}

/// Says how it went, and keeps the file until the process is killed if it went well.
fn keep(locked: io::Result<std::fs::File>) {
    let kept = locked.inspect(|_| say("ok"));
    while kept.is_ok() {
        nix::unistd::pause();
    }
    tell(kept.map(drop));
}

/// Prints "ok" or the error's name.
fn tell(outcome: io::Result<()>) {
    match outcome {
        Ok(()) => println!("ok"),
        Err(error) => println!("{:?}", nix::errno::Errno::from_raw(error.raw_os_error().unwrap_or(0))),
    }
}

/// Sets the attribute as capabilities(7) describes its version 2: permitted, and effective from the start.
fn empower(path: &str) -> io::Result<()> {
    const REVISION_2_EFFECTIVE: u32 = 0x0200_0001;
    const NET_RAW: u32 = 1 << 13;
    let words = [REVISION_2_EFFECTIVE, NET_RAW, 0, 0, 0];
    let value: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    rustix::fs::setxattr(path, "security.capability", &value, rustix::fs::XattrFlags::empty())?;
    Ok(())
}

fn say(word: &str) {
    println!("{word}");
    // A closed stdout is the test's business.
    let _ = std::io::stdout().flush();
}

/// A pid namespace's init is immune to its own signals, so a child dies and the probe follows with its code.
fn die(signal: &str) -> ExitCode {
    let Ok(signal) = signal.parse::<Signal>() else { return ExitCode::from(2) };
    // The language's runtime catches SIGSEGV to tell stack overflows.
    // SAFETY: the default action runs no code of this process.
    let _ = unsafe { nix::sys::signal::signal(signal, nix::sys::signal::SigHandler::SigDfl) };
    if std::process::id() != 1 {
        let _ = raise(signal);
        return ExitCode::from(3);
    }
    // SAFETY: the probe is single-threaded, so the child may run any code.
    match unsafe { nix::unistd::fork() } {
        Ok(nix::unistd::ForkResult::Child) => {
            let _ = raise(signal);
            ExitCode::from(3)
        }
        Ok(nix::unistd::ForkResult::Parent { child }) => match nix::sys::wait::waitpid(child, None) {
            Ok(WaitStatus::Signaled(_, signal, _)) => ExitCode::from(128 + signal as u8),
            _ => ExitCode::from(3),
        },
        Err(_) => ExitCode::from(3),
    }
}

fn spew(seed: &str, length: &str) -> ExitCode {
    let (Ok(seed), Ok(length)) = (seed.parse(), length.parse()) else { return ExitCode::from(2) };
    match std::io::stdout().write_all(&bytes(seed, length)).and_then(|()| std::io::stdout().flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(4),
    }
}

fn hold(mib: &str) -> ExitCode {
    let Ok(mib) = mib.parse::<usize>() else { return ExitCode::from(2) };
    let set: SigSet = [Signal::SIGUSR1, Signal::SIGTERM].into_iter().collect();
    if sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None).is_err() {
        return ExitCode::from(3);
    }
    let mut held = vec![1_u8; mib << 20];
    say("held");
    while let Ok(Signal::SIGUSR1) = set.wait() {
        held = Vec::new();
        say("freed");
    }
    std::hint::black_box(held);
    ExitCode::SUCCESS
}

fn trap() -> ExitCode {
    let signals =
        [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGWINCH];
    let set: SigSet = signals.into_iter().collect();
    if sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None).is_err() {
        return ExitCode::from(3);
    }
    say("ready");
    loop {
        match set.wait() {
            Ok(Signal::SIGTERM) => {
                say("SIGTERM");
                return ExitCode::SUCCESS;
            }
            Ok(signal) => say(signal.as_str()),
            Err(_) => return ExitCode::from(3),
        }
    }
}
