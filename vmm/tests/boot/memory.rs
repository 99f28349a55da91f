//! The tests of memory that comes and goes: what a Linux guest makes of the devices, and what a hostile one can not.

use std::time::Instant;

use bulkhead_protocol::vmm::{Device, FailureKind, GuestExit, Reply, Request, Slot};

use crate::host::{DEADLINE, Vmm, boot, elf, spec};

macro_rules! tests {
    ($($name:ident),* $(,)?) => { pub(crate) const ALL: &[(&str, fn())] = &[$((stringify!($name), $name)),*]; };
}

tests![
    memory_is_plugged_and_unplugged_as_the_host_says,
    memory_that_the_guest_frees_goes_back_to_the_host,
    a_guest_that_touches_unplugged_memory_ends_itself,
];

const MIB: u64 = 1 << 20;

/// Looks again until it is so, or says what it is instead.
fn until(what: &str, mut condition: impl FnMut() -> Result<(), String>) {
    let end = Instant::now() + DEADLINE;
    while let Err(instead) = condition() {
        assert!(Instant::now() < end, "{what}: {instead}");
        std::thread::park_timeout(std::time::Duration::from_millis(20));
    }
}

fn until_plugged(vmm: &mut Vmm, mib: u64) {
    until(&format!("{mib} MiB are plugged"), || {
        let metrics = vmm.metrics();
        let (_, bytes) = metrics.iter().find(|(name, _)| name == "mem.plugged_bytes").unwrap();
        if *bytes == mib * MIB { Ok(()) } else { Err(format!("{bytes} bytes are")) }
    });
}

fn memory_is_plugged_and_unplugged_as_the_host_says() {
    let mut machine = spec("memory");
    (machine.memory_mib, machine.max_memory_mib) = (128, 512);
    let mut vmm = boot(&machine).unwrap();
    vmm.hear("memory");
    // A size that is asked for before there is a driver is not lost.
    assert_eq!(vmm.ask(&Request::ResizeMemory { mib: 384 }, &[]), Ok(Reply::Done));
    assert_eq!(vmm.plug(Slot(7), Device::Mem), Ok(Reply::Done));
    until_plugged(&mut vmm, 256);
    vmm.hear("more memory");
    assert_eq!(vmm.ask(&Request::ResizeMemory { mib: 512 }, &[]), Ok(Reply::Done));
    until_plugged(&mut vmm, 384);
    assert_eq!(vmm.ask(&Request::ResizeMemory { mib: 256 }, &[]), Ok(Reply::Done));
    until_plugged(&mut vmm, 128);
    for mib in [127, 513] {
        let refused = vmm.ask(&Request::ResizeMemory { mib }, &[]).unwrap_err();
        assert_eq!(refused.kind, FailureKind::Invalid);
        assert_eq!(refused.message, format!("memory in MiB is {mib}; 128 to 512 is allowed"));
    }
    assert_eq!(vmm.ask(&Request::Stop, &[]), Ok(Reply::Done));
    assert_eq!(vmm.exit().0, GuestExit::Stopped);
}

fn memory_that_the_guest_frees_goes_back_to_the_host() {
    let mut machine = spec("free");
    machine.memory_mib = 384;
    machine.devices = vec![(Slot(1), Device::Balloon)];
    let mut vmm = boot(&machine).unwrap();
    vmm.hear("taken");
    let resident = vmm.resident();
    assert!(resident > 128 * MIB, "{resident}");
    assert_eq!(vmm.plug(Slot(7), Device::Rng), Ok(Reply::Done));
    // 90 % of what the guest had taken.
    until("freed memory is back", || {
        let left = vmm.resident();
        if left < resident - 144 * MIB { Ok(()) } else { Err(format!("{left} of {resident} are left")) }
    });
    assert!(vmm.metrics().iter().any(|(name, bytes)| name == "balloon.reported_bytes" && *bytes > 144 * MIB));
    assert_eq!(vmm.ask(&Request::Stop, &[]), Ok(Reply::Done));
    assert_eq!(vmm.exit().0, GuestExit::Stopped);
}

/// A kernel of its own kind: maps 4 GiB, where nothing is plugged, at 1 GiB and reads there.
const TRESPASSER: &[u8] = &[
    0xb8, 0x00, 0x10, 0x10, 0x00, // mov eax, 0x101000: the page directory pointers
    0x0f, 0x22, 0xd8, // mov cr3, eax
    0x0f, 0x20, 0xe0, // mov eax, cr4
    0x83, 0xc8, 0x20, // or eax, PAE
    0x0f, 0x22, 0xe0, // mov cr4, eax
    0x0f, 0x20, 0xc0, // mov eax, cr0
    0x0d, 0x00, 0x00, 0x00, 0x80, // or eax, PG
    0x0f, 0x22, 0xc0, // mov cr0, eax
    0xa1, 0x00, 0x00, 0x00, 0x40, // mov eax, [0x40000000]
    0xb0, b'!', 0x66, 0xba, 0xf8, 0x03, 0xee, // out 0x3f8, '!': it could
    0x0f, 0x0b, // ud2 without a handler: the end
];

fn a_guest_that_touches_unplugged_memory_ends_itself() {
    const START: u64 = 0x10_0000;
    const PRESENT: u64 = 1;
    const LARGE_WRITABLE: u64 = 0x83;
    let mut image = TRESPASSER.to_vec();
    image.resize(0x4000, 0);
    let mut put = |at: usize, entry: u64| image[at..at + 8].copy_from_slice(&entry.to_le_bytes());
    put(0x1000, 0x10_2000 | PRESENT);
    put(0x1008, 0x10_3000 | PRESENT);
    put(0x2000, LARGE_WRITABLE);
    put(0x3000, 4 << 30 | LARGE_WRITABLE);
    let mut machine = spec("none");
    machine.kernel = elf(START, &image);
    machine.max_memory_mib = 256;
    machine.devices = vec![(Slot(1), Device::Mem)];
    let mut vmm = boot(&machine).unwrap();
    let (reason, console) = vmm.exit();
    assert!(matches!(&reason, GuestExit::Kvm(why) if why.as_ref().contains("vCPU 0: ")), "{reason:?}");
    assert_eq!(console, "");
}
