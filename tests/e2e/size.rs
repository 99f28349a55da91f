//! Without limits a container finds the CPUs, the memory and the settings of its host, and pays for what it uses.

use std::{fs, path::Path};

use bulkhead_tests::{
    bench::memory,
    host::{Container, DEADLINE, TestHost, process, until},
};
use serde_json::json;

/// Says the guest's memory in MiB, its CPUs, and how often its OOM killer took somebody.
const LOOK: &str = "while read key value unit; do case $key in MemTotal:) echo $((value / 1024));; esac; done < /proc/meminfo
nproc; while read key value; do case $key in oom_kill) echo $value;; esac; done < /proc/vmstat";

#[derive(Debug, PartialEq, Eq)]
struct Seen {
    memory_mib: u64,
    cpus: u64,
    oom_kills: u64,
}

fn look(container: &Container<'_>) -> Seen {
    let text = container.exec(["sh", "-c", LOOK]).success();
    let numbers: Vec<u64> = text.lines().map(|line| line.parse().unwrap()).collect();
    Seen { memory_mib: numbers[0], cpus: numbers[1], oom_kills: numbers[2] }
}

/// What the host has given its guest so far, in MiB.
fn paid_mib(container: &Container<'_>) -> u64 {
    let vmm = process("bulkhead-vmm", &[], &container.id).unwrap();
    memory::of(vmm, 512 << 10).unwrap().guest >> 10
}

/// As many as this process may use, which is what it hands on.
fn host_cpus() -> u64 {
    std::thread::available_parallelism().unwrap().get().try_into().unwrap()
}

fn setting(file: &str) -> u64 {
    fs::read_to_string(Path::new("/proc/sys").join(file)).unwrap().trim().parse().unwrap()
}

/// Sets the host's, unless it says more. Other tests do not mind.
fn raise(file: &str, value: u64) {
    if setting(file) < value {
        fs::write(Path::new("/proc/sys").join(file), value.to_string()).unwrap();
    }
}

#[test]
fn a_container_without_limits_has_what_it_needs_of_its_host_and_pays_for_what_it_uses() {
    let settings = [
        ("vm/max_map_count", 262_144),
        ("fs/nr_open", 2_097_152),
        ("fs/aio-max-nr", 1_048_576),
        ("fs/inotify/max_user_watches", 524_288),
        ("fs/inotify/max_user_instances", 1024),
        ("kernel/pid_max", 65_536),
        ("kernel/threads-max", 100_000),
        ("net/core/rmem_max", 7_500_000),
        ("user/max_user_namespaces", 50_000),
    ];
    for (file, value) in settings {
        raise(file, value);
    }
    let host = TestHost::new();
    let all = host_cpus() - 1;
    let bundle = host
        .bundle()
        .set("/process/rlimits", json!([{ "type": "RLIMIT_NOFILE", "soft": 2_000_000, "hard": 2_097_152 }]))
        .set("/process/execCPUAffinity", json!({ "initial": "0", "final": format!("0-{all}") }))
        .args(["probe", "hold", "900"]);
    let container = host.create("free", &bundle);
    // A pod that does nothing yet, in a small machine.
    let idle = paid_mib(&container);
    assert!(idle < 128, "{idle}");
    container.start();
    container.until_stdout("held");
    let seen = look(&container);
    assert!((900..3000).contains(&seen.memory_mib), "{seen:?}");
    assert_eq!((seen.cpus, seen.oom_kills), (host_cpus(), 0));
    let paid = paid_mib(&container);
    assert!((900..1400).contains(&paid), "{paid}");

    let script = settings.map(|(file, _)| format!("cat /proc/sys/{file};")).concat();
    let guest = container.exec(["sh", "-c", &script]).success();
    for ((file, _), value) in settings.iter().zip(guest.lines()) {
        assert!(value.parse::<u64>().unwrap() >= setting(file), "{file} is {value}");
    }
    // A kernel that promises what a larger one would.
    assert_eq!(container.exec(["cat", "/proc/sys/vm/overcommit_memory"]).success(), "1\n");
    assert_eq!(container.exec(["sh", "-c", "ulimit -Hn"]).success(), "2097152\n");
    let allowed = if all == 0 { "0".to_owned() } else { format!("0-{all}") };
    let status = container.exec(["cat", "/proc/self/status"]).success();
    assert!(status.contains(&format!("Cpus_allowed_list:\t{allowed}\n")), "{status}");

    // A limit makes it a machine for that.
    container.kill("USR1");
    container.until_stdout("freed");
    container.command("update", ["--memory=256m"]).success();
    let small = || (look(&container).memory_mib < 800).then_some(());
    until("the guest gives its memory back", DEADLINE, small);
    container.kill("TERM");
    assert_eq!(container.wait(), 0, "{}", container.stderr());
    container.delete();
}

#[test]
fn a_program_that_maps_more_than_its_limit_is_killed_for_what_it_touches() {
    let host = TestHost::new();
    let resources = json!({ "memory": { "limit": 64 << 20 } });
    let bundle = host.bundle().set("/linux/resources", resources).args(["probe", "hold", "4096"]);
    host.run(&bundle).failure(137, &[]);
}

#[test]
fn a_machine_that_its_host_has_no_memory_for_stays_small_and_the_guest_chooses_whom_to_kill() {
    let host = TestHost::new();
    let name = host.id("narrow");
    let directory = Path::new("/sys/fs/cgroup").join(&name);
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("memory.max"), (720 << 20).to_string()).unwrap();
    let bundle = host
        .bundle()
        .set("/linux/cgroupsPath", json!(format!("/{name}/web")))
        .sh("probe hold 1500; echo $? > /dev/shm/code; exec probe linger");
    let web = host.create("web", &bundle);
    web.start();
    web.until_stdout("ready");
    assert_eq!(web.exec(["cat", "/dev/shm/code"]).success(), "137\n");
    let log = fs::read_to_string(host.root().join("@sandboxes").join(&web.id).join("server.log")).unwrap();
    assert!(log.contains("the microVM stays as large as it is: the host has no memory left"), "{log}");
    web.delete_force();
    fs::remove_dir(&directory).unwrap();
}
