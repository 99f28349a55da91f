use std::{
    fs::File,
    os::fd::AsFd,
    thread::{self, JoinHandle},
};

use bulkhead_protocol::vmm::{self, Device, Fd, Slot};

use super::*;

/// A control thread that never gets as far as the jail.
struct Server {
    socket: PacketSocket,
    control: JoinHandle<Result<ExitCode, ControlError>>,
}

impl Server {
    fn new() -> Self {
        let (socket, theirs) = PacketSocket::pair().unwrap();
        set_socket_timeout(&socket, Timeout::Recv, Some(Duration::from_secs(10))).unwrap();
        let control = thread::spawn(|| Control::new(theirs, Inner::unjailed()).unwrap().serve());
        Self { socket, control }
    }

    fn ask(&self, request: &Request, fds: usize) -> Result<Reply, Failure> {
        let files: Vec<_> = (0..fds).map(|_| File::open("/dev/null").unwrap()).collect();
        let fds: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        self.socket.send(request, &fds).unwrap();
        self.reply()
    }

    fn reply(&self) -> Result<Reply, Failure> {
        match self.socket.receive().unwrap().0 {
            Message::Reply(reply) => reply,
            Message::Event(event) => panic!("{event:?} instead of a reply"),
        }
    }
}

fn machine() -> vmm::MachineConfig {
    vmm::MachineConfig {
        memory_mib: 128,
        max_memory_mib: 256,
        files: 65_536,
        vcpus: 1,
        max_vcpus: 2,
        kvm: Fd(0),
        kernel: Fd(1),
        initramfs: Fd(2),
        share: Fd(3),
        devices: vec![(Slot(0), Device::Rng)],
        debug_console: false,
        huge_pages: vmm::HugePages::Always,
        stable_tsc: true,
    }
}

/// The refusal of a machine that is wrong in one place; the control thread must take more requests after it.
fn refused(wrong: impl Fn(&mut vmm::MachineConfig), fds: usize) -> String {
    let server = Server::new();
    let mut machine = machine();
    wrong(&mut machine);
    let failure = server.ask(&Request::Boot(Box::new(machine)), fds).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Invalid);
    assert_eq!(server.ask(&Request::Metrics, 0).unwrap_err().message, "the machine is not booted");
    failure.message
}

#[test]
fn a_machine_out_of_range_is_refused_by_the_name_of_the_field() {
    for memory_mib in [0, 47, 65_537] {
        assert_eq!(
            refused(|machine| machine.memory_mib = memory_mib, 4),
            format!("memory in MiB is {memory_mib}; 48 to 65536 is allowed")
        );
    }
    for max_memory_mib in [0, 127, 65_537] {
        assert_eq!(
            refused(|machine| machine.max_memory_mib = max_memory_mib, 4),
            format!("max_memory_mib is {max_memory_mib}; 128 to 65536 is allowed")
        );
    }
    assert_eq!(refused(|machine| machine.vcpus = 0, 4), "vcpus is 0; 1 to 2 is allowed");
    assert_eq!(refused(|machine| machine.vcpus = 3, 4), "vcpus is 3; 1 to 2 is allowed");
    assert_eq!(refused(|machine| machine.max_vcpus = 33, 4), "max_vcpus is 33; 1 to 32 is allowed");
    let slot =
        |slot: u8| move |machine: &mut vmm::MachineConfig| machine.devices.push((Slot(slot), Device::Rng));
    assert_eq!(refused(slot(0), 4), "slot 0 has two devices");
    assert_eq!(refused(slot(18), 4), "slot 18 does not exist: there are 18");
}

#[test]
fn a_descriptor_that_is_missing_or_named_twice_is_refused() {
    let missing = "descriptor 3, for the share, is missing from the packet or used twice";
    assert_eq!(refused(|_| (), 3), missing);
    let twice = "descriptor 1, for the initramfs, is missing from the packet or used twice";
    assert_eq!(refused(|machine| machine.initramfs = Fd(1), 4), twice);
}

#[test]
fn what_needs_a_machine_is_refused_before_boot() {
    let server = Server::new();
    for request in [
        Request::Metrics,
        Request::Nudge,
        Request::Unplug { slot: Slot(1) },
        Request::Plug { slot: Slot(1), device: Device::Rng },
    ] {
        assert_eq!(server.ask(&request, 0).unwrap_err().kind, FailureKind::Invalid);
    }
}

#[test]
fn a_packet_that_is_no_request_is_refused_and_the_next_one_served() {
    let server = Server::new();
    server.socket.send(&"boot, please", &[]).unwrap();
    let failure = server.reply().unwrap_err();
    assert_eq!(failure.kind, FailureKind::Invalid);
    assert!(failure.message.starts_with("packet is not a message"), "{}", failure.message);
    assert_eq!(server.ask(&Request::Stop, 0), Ok(Reply::Done));
}

#[test]
fn a_stop_before_boot_ends_the_process_with_an_event() {
    let server = Server::new();
    assert_eq!(server.ask(&Request::Stop, 0), Ok(Reply::Done));
    let event = server.socket.receive::<Message>().unwrap().0;
    assert_eq!(
        event,
        Message::Event(Event::Exited { reason: GuestExit::Stopped, console_tail: String::new() })
    );
    assert_eq!(server.control.join().unwrap().unwrap(), ExitCode::SUCCESS);
}

#[test]
fn a_closed_socket_ends_the_process() {
    let Server { socket, control } = Server::new();
    drop(socket);
    assert_eq!(control.join().unwrap().unwrap(), ExitCode::SUCCESS);
}
