//! The network: interfaces of a namespace given by its path, interfaces that come between create and start, and what
//! is left afterwards.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use bulkhead_sys::loopback;
use bulkhead_tests::{
    host::{Bundle, Container, DEADLINE, TestHost, Wire, finish, in_network, ip, process, until},
    probe::{bytes, serve::exchange},
};
use nix::sys::signal::{Signal, kill};
use serde_json::json;

/// Bytes of a large transfer.
const LARGE: usize = 16 << 20;

fn bundle(host: &TestHost, path: Option<&str>) -> Bundle {
    let mut bundle = host.bundle();
    for set in ["bounding", "effective", "permitted"] {
        bundle = bundle.push(&format!("/process/capabilities/{set}"), json!("CAP_NET_RAW"));
    }
    match path {
        // The second namespace of the default bundle is that of the network.
        Some(path) => bundle.set("/linux/namespaces/1/path", json!(path)),
        None => bundle,
    }
}

fn inside(host: &TestHost, wire: &Wire) -> Bundle {
    bundle(host, Some(wire.path().to_str().unwrap()))
}

fn running<'host>(host: &'host TestHost, wire: &Wire) -> Container<'host> {
    let container = host.create("net", &inside(host, wire).args(["probe", "linger"]));
    container.start();
    container.until_stdout("ready");
    container
}

fn ping(container: &Container<'_>, address: &str) {
    container.exec(["busybox", "ping", "-c", "2", "-W", "20", address]).success();
}

/// busybox's `ping` on the host's side: it is there, and speaks both families.
fn ping_from_outside(wire: &Wire, address: &str) {
    wire.outside_command(&["busybox", "ping", "-c", "2", "-W", "20", address]).success();
}

#[test]
fn a_container_has_the_interface_of_its_namespace_and_both_sides_reach_each_other() {
    let host = TestHost::new();
    let wire = Wire::connected();
    ip(&["-n", &wire.inside, "link", "set", "eth0", "mtu", "1400"]).success();
    let container = running(&host, &wire);
    let shown = container.exec(["busybox", "ip", "-o", "link", "show", "eth0"]).success();
    let outer = ip(&["-n", &wire.inside, "-o", "link", "show", "eth0"]).success();
    let mac = outer.split_once("link/ether ").unwrap().1.split(' ').next().unwrap();
    assert!(shown.contains(mac) && shown.contains("mtu 1400") && shown.contains("UP"), "{shown}");
    let addresses = container.exec(["busybox", "ip", "-o", "addr", "show", "eth0"]).success();
    assert!(addresses.contains("10.77.0.2/24") && addresses.contains("fd77::2/64"), "{addresses}");
    assert!(!addresses.contains("tentative"), "{addresses}");
    let routes = container.exec(["busybox", "ip", "route"]).success();
    assert!(routes.contains("default via 10.77.0.1 dev eth0"), "{routes}");
    assert!(routes.contains("10.77.0.0/24 dev eth0"), "{routes}");
    for address in ["10.77.0.1", "fd77::1"] {
        ping(&container, address);
    }
    for address in ["10.77.0.2", "fd77::2"] {
        ping_from_outside(&wire, address);
    }
    container.delete_force();
    assert_eq!(wire.traces(), [""; 0]);
}

/// Whether the container's VMM has left the frames to the host kernel.
fn uses_vhost(container: &Container<'_>) -> bool {
    let vmm = process("bulkhead-vmm", &[], &container.id).unwrap();
    let fds = std::fs::read_dir(format!("/proc/{vmm}/fd")).unwrap();
    fds.flatten().any(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to == Path::new("/dev/vhost-net")))
}

#[test]
fn large_transfers_arrive_whole_in_both_directions_over_both_families() {
    let host = TestHost::new();
    let wire = Wire::connected();
    let container = running(&host, &wire);
    assert_eq!(uses_vhost(&container), Path::new("/dev/vhost-net").exists());
    transfer(&container, &wire, &["10.77.0.1", "fd77::1"]);
    container.delete_force();
}

#[test]
fn without_vhost_net_frames_pass_through_the_vmm_and_without_port_forward_nobody_listens() {
    let host = TestHost::configured("vhost_net = false\nport_forward = false\n");
    let wire = Wire::connected();
    let container = running(&host, &wire);
    assert!(!uses_vhost(&container));
    let dialled = in_network(&wire.path(), || TcpStream::connect("127.0.0.1:80").map(drop));
    assert_eq!(dialled.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    transfer(&container, &wire, &["10.77.0.1"]);
    container.delete_force();
    assert_eq!(wire.traces(), [""; 0]);
}

fn transfer(container: &Container<'_>, wire: &Wire, addresses: &[&'static str]) {
    for &address in addresses {
        let listener = wire.outside(move || TcpListener::bind((address, 0)).unwrap());
        let port = listener.local_addr().unwrap().port();
        // Out of the guest, and back into it: what was sent comes as a checksum of what was received.
        let echo = thread::spawn(move || {
            let (mut first, _) = listener.accept().unwrap();
            let mut received = Vec::new();
            first.read_to_end(&mut received).unwrap();
            drop(first);
            let (mut second, _) = listener.accept().unwrap();
            second.write_all(&received).unwrap();
            drop(second);
            received
        });
        let send = format!("probe spew 77 {LARGE} | busybox nc {address} {port}");
        container.exec(["sh", "-c", &send]).success();
        let take = format!("busybox nc {address} {port} </dev/null | sha256sum");
        let sum = container.exec(["sh", "-c", &take]).success();
        let received = echo.join().unwrap();
        assert!(received == bytes(77, LARGE), "{} of {LARGE} bytes, or not the same", received.len());
        let expected = finish(&mut Command::new("sha256sum"), &received, DEADLINE).success();
        assert_eq!(sum.split(' ').next(), expected.split(' ').next());
    }
}

#[test]
fn a_server_in_the_container_is_reached_from_outside() {
    let host = TestHost::new();
    let wire = Wire::connected();
    let bundle = inside(&host, &wire).sh("echo up; busybox nc -l -p 9000 | sha256sum");
    let container = host.create("net", &bundle);
    container.start();
    container.until_stdout("up");
    let input = bytes(5, 1 << 20);
    let mut stream = until("the server listens", DEADLINE, || {
        wire.outside(|| TcpStream::connect(("10.77.0.2", 9000)).ok())
    });
    stream.write_all(&input).unwrap();
    drop(stream);
    assert_eq!(container.wait(), 0);
    let expected = finish(&mut Command::new("sha256sum"), &input, DEADLINE).success();
    assert!(container.stdout().contains(expected.split(' ').next().unwrap()), "{}", container.stdout());
    container.delete();
    assert_eq!(wire.traces(), [""; 0]);
}

#[test]
fn two_interfaces_keep_their_names_and_their_networks() {
    let host = TestHost::new();
    let wire = Wire::connected();
    wire.connect(1);
    // The names are swapped against the order in which the interfaces were made.
    for (from, to) in [("eth0", "spare"), ("eth1", "eth0"), ("spare", "eth1")] {
        for args in [["down", ""], ["name", to], ["up", ""]] {
            let name = if args[0] == "up" { to } else { from };
            let args: Vec<_> = args.into_iter().filter(|arg| !arg.is_empty()).collect();
            ip(&[&["-n", &wire.inside, "link", "set", name], &args[..]].concat()).success();
        }
    }
    let container = running(&host, &wire);
    let shown = |name: &str| container.exec(["busybox", "ip", "-o", "addr", "show", name]).success();
    assert!(shown("eth0").contains("10.77.1.2/24"), "{}", shown("eth0"));
    assert!(shown("eth1").contains("10.77.0.2/24"), "{}", shown("eth1"));
    for address in ["10.77.0.1", "10.77.1.1"] {
        ping(&container, address);
    }
    container.delete_force();
    assert_eq!(wire.traces(), [""; 0]);
}

#[test]
fn an_interface_that_comes_between_create_and_start_is_there_when_the_program_runs() {
    let host = TestHost::new();
    let wire = Wire::new();
    let serving = ["probe", "serve", "127.0.0.1:8080"];
    let container = host.create("net", &bundle(&host, None).args(serving));
    let pid = container.pid();
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_ne!(std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap(), own);
    wire.connect_process(0, pid.as_raw());
    let namespace = PathBuf::from(format!("/proc/{pid}/ns/net"));
    in_network(&namespace, loopback::bring_up).unwrap();
    container.start();
    container.until_stdout("serving");
    ping(&container, "10.77.0.1");
    ping_from_outside(&wire, "10.77.0.2");
    ping_from_outside(&wire, "fd77::2");
    // The loopback addresses of its namespace on the host are the guest's as well.
    assert!(in_network(&namespace, || {
        exchange(&TcpStream::connect("127.0.0.1:8080").unwrap(), b"hello").unwrap()
    }));
    container.delete_force();
}

#[test]
fn without_an_interface_there_is_loopback_alone() {
    let host = TestHost::new();
    let wire = Wire::new();
    for bundle in [bundle(&host, None), inside(&host, &wire)] {
        let bundle = bundle.sh("busybox ip -o link | busybox wc -l; busybox ping -c 1 127.0.0.1");
        assert!(host.run(&bundle).success().starts_with("1\n"));
    }
    assert_eq!(wire.traces(), [""; 0]);
}

#[test]
fn the_namespace_answers_for_itself_again_when_a_killed_sandbox_is_deleted() {
    let host = TestHost::new();
    let wire = Wire::connected();
    let container = running(&host, &wire);
    ping_from_outside(&wire, "10.77.0.2");
    let dial = || in_network(&wire.path(), || TcpStream::connect("127.0.0.1:80").map(drop));
    dial().unwrap();
    for (name, words) in [("bulkhead", &["sandbox-server"][..]), ("bulkhead-vmm", &[])] {
        let pid = process(name, words, &container.id).unwrap();
        let _ = kill(nix::unistd::Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
    }
    container.delete_force();
    assert_eq!(wire.traces(), [""; 0]);
    ping_from_outside(&wire, "10.77.0.2");
    assert_eq!(dial().unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn a_network_that_a_microvm_cannot_have_is_refused_and_left_as_it_was() {
    let host = TestHost::new();
    let wire = Wire::connected();
    let refused = |bundle: &Bundle, words: &[&str]| {
        let id = host.id("refused");
        let mut command = host.bulkhead(["create", "--bundle"]);
        finish(command.arg(bundle.write()).arg(&id), b"", DEADLINE).failure(1, words);
        host.assert_no_trace_of(&id);
    };
    refused(&bundle(&host, Some("/proc/self/ns/net")), &["linux.namespaces[1].path", "the host's own"]);
    refused(&bundle(&host, Some("/proc/self/ns/pid")), &["is not a network namespace"]);
    refused(&bundle(&host, Some("/run/netns/never-was")), &["linux.namespaces[1].path"]);
    // One namespace, two microVMs.
    let first = running(&host, &wire);
    refused(&inside(&host, &wire), &["eth0", "already has an ingress qdisc"]);
    ping(&first, "10.77.0.1");
    first.delete_force();
    assert_eq!(wire.traces(), [""; 0]);
    ip(&["-n", &wire.inside, "route", "add", "blackhole", "10.99.0.0/16"]).success();
    refused(&inside(&host, &wire), &["route 10.99.0.0/16", "the route is not unicast"]);
    assert_eq!(wire.traces(), [""; 0]);
}

/// An interface in the namespace of this process, which is the host's to `bulkhead`, with its other end outside.
struct Device {
    name: String,
    wire: Wire,
}

impl Device {
    fn new() -> Self {
        let wire = Wire::new();
        let name = format!("nd{}", std::process::id());
        let outside = wire.outside.as_str();
        ip(&["link", "add", &name, "type", "veth", "peer", "name", "far0", "netns", outside]).success();
        ip(&["addr", "add", "10.78.0.2/24", "dev", &name]).success();
        ip(&["-n", outside, "addr", "add", "10.78.0.1/24", "dev", "far0"]).success();
        ip(&["-n", outside, "link", "set", "far0", "up"]).success();
        Self { name, wire }
    }

    fn is_the_hosts(&self) -> bool {
        ip(&["-o", "addr", "show", &self.name]).text().contains("10.78.0.2/24")
    }

    /// As `name` in the container.
    fn moved(&self, bundle: Bundle, name: &str) -> Bundle {
        let mut devices = json!({});
        devices[&self.name] = json!({ "name": name });
        bundle.set("/linux/netDevices", devices)
    }
}

#[test]
fn an_interface_that_the_bundle_names_moves_into_the_container() {
    let host = TestHost::new();
    let device = Device::new();
    let refused = |bundle: &Bundle, words: &[&str]| {
        let id = host.id("refused");
        let mut command = host.bulkhead(["create", "--bundle"]);
        finish(command.arg(bundle.write()).arg(&id), b"", DEADLINE).failure(1, words);
        host.assert_no_trace_of(&id);
        assert!(device.is_the_hosts());
    };
    let missing = bundle(&host, None).set("/linux/netDevices", json!({ "nowhere": {} }));
    refused(&missing, &["linux.netDevices[\"nowhere\"]: there is no interface nowhere"]);
    device.wire.connect(0);
    let taken = device.moved(inside(&host, &device.wire), "eth0");
    refused(&taken, &[&format!("linux.netDevices[{:?}]: there is an interface eth0 already", device.name)]);
    // A creation that fails later puts it back.
    let hook = json!([{ "path": "/bin/false" }]);
    refused(&device.moved(bundle(&host, None), "lan0").set("/hooks/createRuntime", hook), &["hooks"]);

    let bundle = device.moved(bundle(&host, None), "lan0").args(["probe", "linger"]);
    let container = host.create("net", &bundle);
    assert!(!device.is_the_hosts());
    container.start();
    container.until_stdout("ready");
    let addresses = container.exec(["busybox", "ip", "-o", "addr", "show", "lan0"]).success();
    assert!(addresses.contains("10.78.0.2/24"), "{addresses}");
    ping(&container, "10.78.0.1");
    container.delete_force();
}
