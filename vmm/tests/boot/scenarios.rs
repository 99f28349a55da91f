//! The tests. Each boots one machine and ends with what must be true of its end.

use std::{
    fs,
    io::{Seek, Write},
    os::unix::fs::{MetadataExt, symlink},
    path::{Path, PathBuf},
};

use bulkhead_protocol::{
    limits,
    timeline::Phase,
    vmm::{Device, FailureKind, GuestExit, Reply, Request, Slot},
};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_change, unmount};

use crate::{
    guest, hijack,
    host::{boot, spec},
    jail,
};

type Test = (&'static str, fn());

macro_rules! tests {
    ($($name:ident),* $(,)?) => { pub(crate) const ALL: &[Test] = &[$((stringify!($name), $name)),*]; };
}

tests![
    a_guest_boots_speaks_and_resets_itself,
    the_least_memory_boots_and_so_does_more_than_fits_below_the_devices,
    kernel_messages_are_shown_when_asked_for,
    two_vcpus_are_both_online,
    a_vcpu_that_was_held_back_comes_online,
    a_panic_is_reported_with_the_consoles_tail,
    a_slot_is_plugged_and_unplugged_again_and_again,
    the_share_is_served_and_the_jail_is_closed,
    a_mount_that_the_host_makes_in_the_share_later_is_served,
    a_call_that_a_thread_never_makes_ends_the_vm_by_its_name,
    a_stopped_guest_is_gone,
    a_vmm_whose_server_dies_is_gone,
    a_kernel_that_is_none_is_refused_and_leaves_nothing_behind,
    memory_too_small_to_boot_is_refused,
    an_invalid_machine_is_refused_and_the_next_one_boots,
];

fn a_guest_boots_speaks_and_resets_itself() {
    let mut vmm = boot(&spec("hello")).unwrap();
    assert_eq!(vmm.hear("cpus"), "0");
    let metrics = vmm.metrics();
    println!("  at init: {metrics:?}");
    for phase in [Phase::VmCreated, Phase::KernelLoaded, Phase::KernelEntered] {
        println!("  {} {:?} after the jail was closed", phase.name(), vmm.since(Phase::Jailed, phase));
    }
    assert_eq!(vmm.hear("clock"), "kvm-clock");
    assert!(vmm.hear("memory").contains("kB"));
    assert_eq!(vmm.hear("slot0"), "[\"virtio0\"] slot17 []");
    vmm.hear("slept");
    let (reason, tail) = vmm.exit();
    assert_eq!(reason, GuestExit::Reset);
    assert!(tail.contains("GUEST slept"), "{tail}");
}

fn the_least_memory_boots_and_so_does_more_than_fits_below_the_devices() {
    // The most there may be would take a gigabyte for the guest's tables alone.
    for (memory_mib, least_kib) in
        [(*limits::MEMORY_MIB.start(), 20_000), (3072, 2_900_000), (4096, 3_900_000)]
    {
        let mut machine = spec("hello");
        machine.memory_mib = memory_mib;
        let mut vmm = boot(&machine).unwrap();
        let memory = vmm.hear("memory");
        println!("  {memory_mib} MiB: {memory}");
        let kib: u64 = memory.trim_start_matches("MemTotal:").trim().trim_end_matches(" kB").parse().unwrap();
        assert!(kib > least_kib, "{kib} KiB of {memory_mib} MiB");
        assert_eq!(vmm.exit().0, GuestExit::Reset);
    }
}

fn kernel_messages_are_shown_when_asked_for() {
    let mut machine = spec("hello");
    machine.debug = true;
    let mut vmm = boot(&machine).unwrap();
    vmm.hear("slept");
    let (_, tail) = vmm.exit();
    assert!(tail.contains("Linux version"), "{tail}");
}

fn two_vcpus_are_both_online() {
    let mut machine = spec("hello");
    (machine.vcpus, machine.max_vcpus) = (2, 2);
    let mut vmm = boot(&machine).unwrap();
    assert_eq!(vmm.hear("cpus"), "0-1");
    vmm.hear("slept");
    assert_eq!(vmm.exit().0, GuestExit::Reset);
}

fn a_vcpu_that_was_held_back_comes_online() {
    let mut machine = spec("online");
    machine.max_vcpus = limits::VCPUS;
    let mut vmm = boot(&machine).unwrap();
    assert_eq!(vmm.hear("present"), format!("0-{}", limits::VCPUS - 1));
    assert_eq!(vmm.hear("online"), "0");
    assert_eq!(vmm.hear("online"), "0-1");
    assert_eq!(vmm.exit().0, GuestExit::Reset);
}

fn a_panic_is_reported_with_the_consoles_tail() {
    let mut vmm = boot(&spec("panic")).unwrap();
    vmm.hear("about to panic");
    let (reason, tail) = vmm.exit();
    assert_eq!(reason, GuestExit::Panic);
    assert!(tail.contains("Attempted to kill init! exitcode=0x00000700"), "{tail}");
}

fn a_slot_is_plugged_and_unplugged_again_and_again() {
    let mut vmm = boot(&spec("slots")).unwrap();
    for (round, number) in guest::PLUGGED.into_iter().enumerate() {
        let slot = Slot(number);
        vmm.hear(&format!("empty {round}"));
        assert_eq!(vmm.plug(slot, Device::Rng), Ok(Reply::Done));
        let taken = vmm.plug(slot, Device::Rng).unwrap_err();
        assert_eq!(
            (taken.kind, taken.message),
            (FailureKind::Invalid, format!("slot {number} has a device already"))
        );
        let files =
            Device::Fs { tag: "late".into(), read_only: true, strip_setuid: false, exclusive_rootfs: true };
        assert_eq!(vmm.plug(Slot(8), files).unwrap_err().kind, FailureKind::Invalid, "it needs threads");
        assert!(vmm.hear(&format!("bound {round}")).contains("virtio"));
        vmm.hear(&format!("random {round}"));
        let requests = vmm.metrics().into_iter().find(|(name, _)| name == "rng.requests").unwrap();
        assert!(requests.1 > 0);
        vmm.hear(&format!("unbound {round}"));
        assert_eq!(vmm.ask(&Request::Unplug { slot }, &[]), Ok(Reply::Done));
        assert_eq!(vmm.ask(&Request::Unplug { slot }, &[]).unwrap_err().kind, FailureKind::Invalid);
    }
    assert_eq!(vmm.exit().0, GuestExit::Reset);
}

fn the_share_is_served_and_the_jail_is_closed() {
    let mut machine = spec("share");
    let fs = |tag: &str, read_only| Device::Fs {
        tag: tag.into(),
        read_only,
        strip_setuid: false,
        exclusive_rootfs: true,
    };
    machine.devices = vec![(Slot(1), fs("share", false)), (Slot(2), fs("fixed", true))];
    let share = machine.share.path().to_owned();
    fs::write(share.join("from-host"), "a word from the host").unwrap();
    symlink("..", share.join("up")).unwrap();
    let mut vmm = boot(&machine).unwrap();
    jail::assert_closed(vmm.pid, &share);
    assert_eq!(vmm.hear("root"), "[\"from-host\", \"up\"]");
    assert_eq!(vmm.hear("read"), "a word from the host");
    assert_eq!(vmm.hear("refused"), libc::EROFS.to_string());
    assert_eq!(vmm.hear("fixed"), "a word from the host");
    assert_eq!(vmm.hear("contained"), "true");
    assert_eq!(vmm.exit().0, GuestExit::Reset);
    let made = fs::metadata(share.join("by-guest")).unwrap();
    assert_eq!((made.len(), made.uid(), made.gid()), (300_000, 1000, 1001));
}

fn a_call_that_a_thread_never_makes_ends_the_vm_by_its_name() {
    for (thread, told) in
        [("vcpu0", "vcpu0"), ("devices", "devices"), ("fs1", "fs1"), ("bulkhead-vmm", "control")]
    {
        let mut machine = spec("idle");
        let files =
            Device::Fs { tag: "share".into(), read_only: false, strip_setuid: false, exclusive_rootfs: true };
        machine.devices = vec![(Slot(1), files)];
        let mut vmm = boot(&machine).unwrap();
        vmm.hear("idle");
        hijack::call_in(hijack::thread(vmm.pid, thread), libc::SYS_ptrace);
        match vmm.exit().0 {
            GuestExit::Forbidden { thread, call, .. } => {
                assert_eq!((thread.as_str(), call.as_str()), (told, "ptrace (101)"));
            }
            other => panic!("{thread}: {other:?}"),
        }
    }
}

fn a_mount_that_the_host_makes_in_the_share_later_is_served() {
    let mut machine = spec("late-mount");
    let files =
        Device::Fs { tag: "share".into(), read_only: false, strip_setuid: false, exclusive_rootfs: true };
    machine.devices = vec![(Slot(1), files)];
    let share = machine.share.path().to_owned();
    let _on_itself = Mounted::bind(&share, &share);
    mount_change(&share, MountPropagationFlags::SHARED).unwrap();
    let mut vmm = boot(&machine).unwrap();
    vmm.hear("waiting");
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("word"), "late").unwrap();
    fs::create_dir(share.join("rootfs")).unwrap();
    let _late = Mounted::bind(elsewhere.path(), &share.join("rootfs"));
    assert_eq!(vmm.hear("read"), "late");
    assert_eq!(vmm.exit().0, GuestExit::Reset);
}

/// A mount that goes when it is dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn bind(from: &Path, to: &Path) -> Self {
        mount_bind(from, to).unwrap();
        Self(to.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        unmount(&self.0, UnmountFlags::DETACH).unwrap();
    }
}

fn a_stopped_guest_is_gone() {
    let mut machine = spec("idle");
    (machine.vcpus, machine.max_vcpus) = (2, 2);
    let mut vmm = boot(&machine).unwrap();
    vmm.hear("idle");
    assert_eq!(vmm.ask(&Request::Stop, &[]), Ok(Reply::Done));
    assert_eq!(vmm.exit().0, GuestExit::Stopped);
}

fn a_vmm_whose_server_dies_is_gone() {
    let mut vmm = boot(&spec("idle")).unwrap();
    vmm.hear("idle");
    vmm.hang_up();
    vmm.assert_gone();
}

fn a_kernel_that_is_none_is_refused_and_leaves_nothing_behind() {
    let mut machine = spec("hello");
    machine.kernel = tempfile::tempfile().unwrap();
    machine.kernel.write_all(&[0x55; 4096]).unwrap();
    machine.kernel.rewind().unwrap();
    let failure = boot(&machine).err().unwrap();
    assert_eq!(failure.kind, FailureKind::Image);
    assert!(failure.message.starts_with("load the kernel image: "), "{}", failure.message);
}

fn memory_too_small_to_boot_is_refused() {
    let mut machine = spec("hello");
    machine.memory_mib = 48;
    machine.initramfs.set_len(40 << 20).unwrap();
    assert_eq!(boot(&machine).err().unwrap().kind, FailureKind::Memory);
}

fn an_invalid_machine_is_refused_and_the_next_one_boots() {
    let mut machine = spec("hello");
    machine.vcpus = 3;
    assert_eq!(boot(&machine).err().unwrap().message, "vcpus is 3; 1 to 1 is allowed");
    machine.vcpus = 1;
    machine.devices = vec![(Slot(0), Device::Rng)];
    assert_eq!(boot(&machine).err().unwrap().message, "slot 0 has two devices");
    machine.devices = vec![(Slot(3), Device::Rng)];
    let mut vmm = boot(&machine).unwrap();
    vmm.hear("slept");
    assert_eq!(vmm.exit().0, GuestExit::Reset);
}
