//! The guest's half: pid 1 of the microVM. Does what /scenario says and reports line by line on hvc0.
//!
//! The host hears the console through its log and answers only through the slots, so the guest looks again every few
//! milliseconds where it waits for a plug; there is nothing to be notified by.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::chown,
    thread::sleep,
    time::Duration,
};

use bulkhead_protocol::limits::SLOTS;
use rustix::{
    mount::{MountFlags, mount},
    system::{RebootCommand, reboot},
};

use crate::{guest_devices, report::say};

/// The slots that are plugged one after the other: one twice, and the last, whose interrupt is the IOAPIC's last pin.
pub(crate) const PLUGGED: [u8; 3] = [7, 7, SLOTS as u8 - 1];
const AGAIN: Duration = Duration::from_millis(20);
const DRIVER: &str = "/sys/bus/platform/drivers/virtio-mmio";

pub(crate) fn init() -> ! {
    let scenario = fs::read_to_string("/scenario").unwrap();
    for (kind, target) in [("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys")] {
        fs::create_dir_all(target).unwrap();
        mount(kind, target, kind, MountFlags::empty(), None).unwrap();
    }
    let mut console = OpenOptions::new().write(true).open("/dev/hvc0").unwrap();
    match scenario.as_str() {
        "hello" => hello(&mut console),
        "panic" => {
            say(&mut console, "about to panic");
            std::process::exit(7);
        }
        "online" => online(&mut console),
        "cpu" => cpu(&mut console),
        "slots" => slots(&mut console),
        "memory" => memory(&mut console),
        "free" => free(&mut console),
        "share" => share(&mut console),
        "late-mount" => late_mount(&mut console),
        "idle" => {
            say(&mut console, "idle");
            loop {
                sleep(Duration::from_secs(3600));
            }
        }
        "stream-server" => guest_devices::stream_server(&mut console),
        "files" => guest_devices::files(&mut console),
        "read-only" => guest_devices::read_only(&mut console),
        other => say(&mut console, &format!("unknown scenario {other}")),
    }
    reboot(RebootCommand::Restart).unwrap();
    unreachable!("reboot does not return");
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| format!("{path}: {error}")).trim().to_owned()
}

fn hello(console: &mut File) {
    say(console, &format!("cpus {}", read("/sys/devices/system/cpu/online")));
    say(
        console,
        &format!("clock {}", read("/sys/devices/system/clocksource/clocksource0/current_clocksource")),
    );
    say(console, &format!("cmdline {}", read("/proc/cmdline")));
    let memory = read("/proc/meminfo");
    say(console, &format!("memory {}", memory.lines().next().unwrap_or("none")));
    say(console, &format!("slot0 {:?} slot17 {:?}", devices_of(0), devices_of(17)));
    // Both timers and interprocessor interrupts must work: threads on all CPUs that sleep and wake each other.
    let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(|| sleep(Duration::from_millis(10)))).collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    say(console, "slept");
}

/// What the kernel makes of its CPUs.
fn cpu(console: &mut File) {
    let info = read("/proc/cpuinfo");
    let flags = info.lines().find_map(|line| line.strip_prefix("flags")).unwrap_or_default();
    say(console, &format!("flags {} end", flags.trim_start_matches([' ', '\t', ':'])));
    say(console, &format!("cmdline {}", read("/proc/cmdline")));
    let cpus = fs::read_dir("/sys/devices/system/cpu").unwrap().flatten();
    let cpus = cpus.filter(|entry| entry.path().join("topology").exists()).count();
    for cpu in 0..cpus {
        let of = |what: &str| read(&format!("/sys/devices/system/cpu/cpu{cpu}/{what}"));
        let [package, core, threads, cores] =
            ["physical_package_id", "core_id", "thread_siblings_list", "core_siblings_list"]
                .map(|what| of(&format!("topology/{what}")));
        say(console, &format!("topology package {package} core {core} threads {threads} package's {cores}"));
        let shared = (0..4).map(|cache| of(&format!("cache/index{cache}/shared_cpu_list")));
        let shared: Vec<_> = shared.filter(|list| !list.starts_with('/')).collect();
        say(console, &format!("caches {}", shared.join(" ")));
    }
    say(console, &format!("tainted {}", read("/proc/sys/kernel/tainted")));
}

fn online(console: &mut File) {
    say(console, &format!("present {}", read("/sys/devices/system/cpu/present")));
    say(console, &format!("online {}", read("/sys/devices/system/cpu/online")));
    fs::write("/sys/devices/system/cpu/cpu1/online", "1").unwrap();
    say(console, &format!("online {}", read("/sys/devices/system/cpu/online")));
}

fn slots(console: &mut File) {
    for (round, slot) in PLUGGED.into_iter().enumerate() {
        say(console, &format!("empty {round}"));
        bind_when_filled(slot);
        say(console, &format!("bound {round} {:?}", devices_of(slot)));
        let mut bytes = [0; 64];
        File::open("/dev/hwrng").unwrap().read_exact(&mut bytes).unwrap();
        assert_ne!(bytes, [0; 64]);
        say(console, &format!("random {round}"));
        fs::write(format!("{DRIVER}/unbind"), format!("virtio-mmio.{slot}")).unwrap();
        say(console, &format!("unbound {round}"));
        wait_until_empty(slot);
    }
}

/// Slot 7 is filled when the host pleases; what it holds then makes memory grow.
fn memory(console: &mut File) {
    let total = || meminfo("MemTotal");
    let boot = total();
    say(console, &format!("memory {boot}"));
    bind_when_filled(7);
    while total() < boot + (200 << 10) {
        sleep(AGAIN);
    }
    // It is memory to write to.
    let used = vec![1_u8; 192 << 20];
    say(console, &format!("more memory {} {}", total(), used[used.len() - 1]));
    drop(used);
    loop {
        sleep(Duration::from_secs(3600));
    }
}

/// Frees what it has taken when the host fills slot 7.
fn free(console: &mut File) {
    let taken = vec![1_u8; 160 << 20];
    say(console, &format!("taken {}", taken[taken.len() - 1]));
    bind_when_filled(7);
    drop(taken);
    loop {
        sleep(Duration::from_secs(3600));
    }
}

/// In KiB.
fn meminfo(name: &str) -> u64 {
    let text = read("/proc/meminfo");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// The share, mounted twice: as it is, and read-only by the device alone.
fn share(console: &mut File) {
    for (tag, target) in [("share", "/mnt"), ("fixed", "/fixed")] {
        fs::create_dir_all(target).unwrap();
        mount(tag, target, "virtiofs", MountFlags::empty(), None).unwrap();
    }
    say(console, &format!("root {:?}", names("/mnt")));
    say(console, &format!("read {}", read("/mnt/from-host")));
    fs::write("/mnt/from-guest", vec![b'g'; 300_000]).unwrap();
    chown("/mnt/from-guest", Some(1000), Some(1001)).unwrap();
    fs::rename("/mnt/from-guest", "/mnt/by-guest").unwrap();
    let refused = fs::write("/fixed/from-guest", "x").unwrap_err();
    say(console, &format!("refused {:?}", refused.raw_os_error().unwrap()));
    say(console, &format!("fixed {}", read("/fixed/from-host")));
    let climb = names("/mnt/..").contains(&"scenario".into()) && !names("/mnt/up").contains(&"etc".into());
    say(console, &format!("contained {climb}"));
}

fn late_mount(console: &mut File) {
    fs::create_dir_all("/mnt").unwrap();
    mount("share", "/mnt", "virtiofs", MountFlags::empty(), None).unwrap();
    say(console, "waiting");
    while fs::metadata("/mnt/rootfs/word").is_err() {
        sleep(AGAIN);
    }
    say(console, &format!("read {}", read("/mnt/rootfs/word")));
}

fn names(directory: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut names: Vec<_> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn bind(slot: u8) -> io::Result<()> {
    fs::write(format!("{DRIVER}/bind"), format!("virtio-mmio.{slot}"))
}

fn bind_when_filled(slot: u8) {
    while bind(slot).is_err() {
        sleep(AGAIN);
    }
}

/// A bound slot that is still full is unbound again.
fn wait_until_empty(slot: u8) {
    while bind(slot).is_ok() {
        fs::write(format!("{DRIVER}/unbind"), format!("virtio-mmio.{slot}")).unwrap();
        sleep(AGAIN);
    }
}

/// The virtio devices behind a slot.
fn devices_of(slot: u8) -> Vec<String> {
    let Ok(entries) = fs::read_dir(format!("/sys/bus/platform/devices/virtio-mmio.{slot}")) else {
        return vec!["no slot".into()];
    };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("virtio") && name != "virtio-mmio").collect()
}
