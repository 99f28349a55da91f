//! Limits and counters of a container's cgroup. They need the controllers, which a guest has and a machine with the
//! old hierarchies has not: a test that finds none says so.

#[cfg(test)]
mod support;

use bulkhead_agent::container::Created;
use bulkhead_protocol::container::{ContainerSpec, Limit, Resources};
use support::{End, Host, host, remove, spec, wait};

fn host_with(controller: &str) -> Option<Host> {
    let host = host()?;
    let there = std::fs::read_to_string(host.layout.cgroups.join("cgroup.controllers")).unwrap_or_default();
    if there.split_whitespace().any(|name| name == controller) {
        return Some(host);
    }
    eprintln!("SKIPPED: needs the cgroup2 controller {controller}");
    None
}

fn limited(args: &[&str], resources: Resources) -> ContainerSpec {
    ContainerSpec { resources, ..spec(args) }
}

#[tokio::test]
async fn a_container_over_its_memory_is_killed_and_the_kill_is_counted() {
    let Some(host) = host_with("memory") else { return };
    let resources = Resources {
        memory_max: Some(Limit::Value(16 << 20)),
        memory_swap_max: Some(Limit::Value(0)),
        ..Resources::default()
    };
    let fill = "head -c 64000000 /dev/zero > /dev/shm/fill; echo survived";
    let (created, streams) = host.create(&limited(&["sh", "-c", fill], resources)).await.unwrap();
    let Created { pid, cgroup, gate, pidfd: _pidfd, .. } = created;
    assert_eq!(cgroup.oom_kills().unwrap(), 0);
    gate.release().await.unwrap();
    let (stdout, _) = streams.read();
    wait(pid);
    assert!(cgroup.oom_kills().unwrap() > 0, "{stdout}");
    remove(&cgroup);
    host.assert_clean();
}

#[tokio::test]
async fn the_limit_of_processes_holds() {
    let Some(host) = host_with("pids") else { return };
    let resources = Resources { pids_max: Some(Limit::Value(3)), ..Resources::default() };
    let forks = "sleep 1000 & sleep 1000 & sleep 1000 & sleep 1000 & echo all";
    let outcome = host.run(&limited(&["sh", "-c", forks], resources)).await.unwrap();
    assert_ne!(outcome.end, End::Code(0), "{outcome:?}");
    assert!(outcome.stderr.contains("can't fork"), "{outcome:?}");
}

#[tokio::test]
async fn limits_are_seen_in_the_cgroup_as_given() {
    let Some(host) = host_with("cpu") else { return };
    let resources = Resources {
        cpu_quota: Some(Limit::Value(50_000)),
        cpu_period: Some(100_000),
        cpu_weight: Some(77),
        memory_low: Some(Limit::Value(1 << 20)),
        unified: [("memory.high".to_owned(), "33554432".to_owned())].into(),
        ..Resources::default()
    };
    let (created, _streams) = host.create(&limited(&["sh"], resources)).await.unwrap();
    let directory = host.layout.cgroups.join("bulkhead").join(host.id.as_str());
    for (file, value) in [
        ("cpu.max", "50000 100000\n"),
        ("cpu.weight", "77\n"),
        ("memory.low", "1048576\n"),
        ("memory.high", "33554432\n"),
    ] {
        assert_eq!(std::fs::read_to_string(directory.join(file)).unwrap(), value, "{file}");
    }
    drop(created.gate);
    wait(created.pid);
    remove(&created.cgroup);
}

#[tokio::test]
async fn a_limit_the_kernel_refuses_is_named_and_leaves_nothing() {
    let Some(host) = host() else { return };
    let resources =
        Resources { unified: [("nothing.max".to_owned(), "1".to_owned())].into(), ..Resources::default() };
    let error = host.create(&limited(&["sh"], resources)).await.unwrap_err().chain();
    assert!(error.starts_with("set limit nothing.max to 1: "), "{error}");
    host.assert_clean();
}
