//! Network namespaces for tests: one to give to a container, one for the outside, and veth pairs between them.
//!
//!   container ◀─VM─▶ eth0 in `inside` ◀─veth─▶ out0 in `outside` ◀─▶ sockets and programs of the test
//!
//! Names and addresses are the test's own, so that tests run side by side. Dropping it removes both namespaces.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use nix::sched::{CloneFlags, setns};

use super::{DEADLINE, Finished, finish, found::own_mounts};

/// Where `ip netns` mounts namespaces.
const MOUNTS: &str = "/run/netns";

#[derive(Debug)]
pub struct Wire {
    pub inside: String,
    pub outside: String,
}

impl Wire {
    /// Two namespaces, not connected.
    pub fn new() -> Self {
        own_mounts();
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("wire{}x{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let wire = Self { inside: format!("{name}in"), outside: format!("{name}out") };
        for namespace in [&wire.inside, &wire.outside] {
            ip(&["netns", "add", namespace]).success();
            ip(&["-n", namespace, "link", "set", "lo", "up"]).success();
        }
        wire
    }

    /// The same with `eth0` inside, `10.77.0.2/24` and `fd77::2/64`, and `out0` outside, `.1` and `::1`, its default gateway.
    pub fn connected() -> Self {
        let wire = Self::new();
        wire.connect(0);
        ip(&["-n", &wire.inside, "route", "add", "default", "via", "10.77.0.1"]).success();
        ip(&["-n", &wire.inside, "route", "add", "default", "via", "fd77::1"]).success();
        wire
    }

    /// Adds `eth<n>` inside and `out<n>` outside, in 10.77.n.0/24 and fd77:n::/64.
    pub fn connect(&self, n: u8) {
        self.add_pair(n, &self.inside);
        self.set_up(n, &["-n", &self.inside]);
    }

    /// The same inside the network namespace of a process, as docker does it.
    pub fn connect_process(&self, n: u8, pid: i32) {
        // A process's namespace has no name: the pair is made outside, and one end moved.
        self.add_pair(n, &self.outside);
        let outside = ["-n", &self.outside];
        let pid = pid.to_string();
        let name = format!("eth{n}");
        ip(&[&outside[..], &["link", "set", &name, "netns", &pid]].concat()).success();
        let entered = |args: &[&str]| {
            let mut command = Command::new("nsenter");
            finish(command.args(["-t", &pid, "-n", "ip"]).args(args), b"", DEADLINE).success();
        };
        for args in configuration(n, 2, &name) {
            let args: Vec<_> = args.iter().map(String::as_str).collect();
            entered(&args);
        }
    }

    fn add_pair(&self, n: u8, namespace: &str) {
        let (ours, theirs) = (format!("out{n}"), format!("eth{n}"));
        let pair = ["link", "add", &ours, "type", "veth", "peer", "name", &theirs, "netns", namespace];
        ip(&[&["-n", &self.outside], &pair[..]].concat()).success();
        for args in configuration(n, 1, &ours) {
            let args: Vec<_> = args.iter().map(String::as_str).collect();
            ip(&[&["-n", self.outside.as_str()], &args[..]].concat()).success();
        }
    }

    fn set_up(&self, n: u8, place: &[&str]) {
        for args in configuration(n, 2, &format!("eth{n}")) {
            let args: Vec<_> = args.iter().map(String::as_str).collect();
            ip(&[place, &args[..]].concat()).success();
        }
    }

    /// The path of the namespace for the container.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(MOUNTS).join(&self.inside)
    }

    /// Runs `work` on a thread outside: sockets it makes stay there.
    pub fn outside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        in_network(&PathBuf::from(MOUNTS).join(&self.outside), work)
    }

    /// A program outside.
    pub fn outside_command(&self, argv: &[&str]) -> Finished {
        finish(Command::new("ip").args(["netns", "exec", &self.outside]).args(argv), b"", DEADLINE)
    }

    /// What is inside beside the interfaces that the test has made: our taps and qdiscs.
    pub fn traces(&self) -> Vec<String> {
        let links = ip(&["-n", &self.inside, "-o", "link", "show"]).success();
        let taps = links.lines().filter(|line| line.contains("bhtap")).map(str::to_owned);
        let mut tc = Command::new("tc");
        let qdiscs = finish(tc.args(["-n", &self.inside, "qdisc", "show"]), b"", DEADLINE).success();
        let ours = qdiscs.lines().filter(|line| line.contains("ingress")).map(str::to_owned);
        taps.chain(ours).collect()
    }
}

impl Default for Wire {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for namespace in [&self.inside, &self.outside] {
            let _: Option<Output> = Command::new("ip").args(["netns", "del", namespace]).output().ok();
        }
    }
}

/// Runs `work` on a thread in the network namespace at `path`: sockets it makes stay there.
pub fn in_network<T: Send + 'static>(path: &Path, work: impl FnOnce() -> T + Send + 'static) -> T {
    let namespace = File::open(path).expect("the namespace");
    let entered = move || {
        setns(namespace, CloneFlags::CLONE_NEWNET).expect("enter the namespace");
        work()
    };
    thread::spawn(entered).join().expect("the work inside")
}

/// `ip` arguments that give an interface its addresses and set it up.
fn configuration(n: u8, host: u8, name: &str) -> Vec<Vec<String>> {
    let words = |text: String| text.split(' ').map(str::to_owned).collect();
    let six = if n == 0 { format!("fd77::{host}/64") } else { format!("fd77:{n}::{host}/64") };
    vec![
        words(format!("addr add 10.77.{n}.{host}/24 dev {name}")),
        words(format!("addr add {six} dev {name} nodad")),
        words(format!("link set {name} up")),
    ]
}

/// `ip` with arguments, to its end.
pub fn ip(args: &[&str]) -> Finished {
    finish(Command::new("ip").args(args), b"", DEADLINE)
}
