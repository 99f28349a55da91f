//! Newer engines, with Bulkhead's shim as their runtime: what depends on their version.

use std::fs;

use bulkhead_tests::{
    host::{Containerd, Cri, DEADLINE, Docker, Engine as _, RUNTIME, Release, newer_podman, until},
    lab::newer::Suite,
};

use crate::{containerd, cri, engine, podman, streaming};

#[test]
fn containerd_1_7_tells_of_all_that_happens() {
    let containerd = Containerd::of(Release::Of(Suite::Trixie));
    containerd::runs_a_container_and_tells_of_all_that_happens(&containerd);
}

#[test]
fn containerd_2_tells_of_all_that_happens() {
    let containerd = Containerd::of(Release::Of(Suite::Forky));
    containerd::runs_a_container_and_tells_of_all_that_happens(&containerd);
}

#[test]
fn containerd_1_7_finds_its_containers_again() {
    containerd::outlives_its_containerd_and_not_its_shim(&mut Containerd::of(Release::Of(Suite::Trixie)));
}

#[test]
fn containerd_2_finds_its_containers_again() {
    containerd::outlives_its_containerd_and_not_its_shim(&mut Containerd::of(Release::Of(Suite::Forky)));
}

#[test]
fn pods_of_containerd_2_share_what_a_pod_shares() {
    cri::share_what_a_pod_shares(&Cri::newest());
}

#[test]
fn a_pod_by_the_sandbox_service_from_its_first_call_to_its_last() {
    cri::from_its_first_call_to_its_last(&Cri::by_sandbox_service());
}

#[test]
fn a_pod_by_the_sandbox_service_outlives_its_containerd_and_not_its_vmm() {
    cri::outlives_its_containerd_and_not_its_vmm(&mut Cri::by_sandbox_service());
}

#[test]
fn the_streams_of_a_pod_by_the_sandbox_service_reach_a_client() {
    streaming::reach_a_client(&mut Cri::by_sandbox_service());
}

#[test]
fn docker_runs_containers_as_its_flags_say() {
    let docker = Docker::by_shim(Suite::Trixie);
    engine::flags_are_what_the_container_sees(&docker);
    engine::gives_a_shell_on_a_terminal(&docker);
    let limits = ["--network=none", "--memory=32m", "--memory-swap=32m"];
    let hungry = [&["run", "--name=hungry"][..], &limits, &["probe", "probe", "hold", "50"]].concat();
    docker.output(hungry).exited(137);
    let inspected = docker.output(["inspect", "--format={{.State.OOMKilled}}", "hungry"]);
    assert_eq!(inspected.success(), "true\n");
    docker.output(["rm", "hungry"]).success();
    containerd::assert_nothing_is_left(&docker.namespace());
}

#[test]
fn docker_26_rules_a_container_from_its_start_to_its_end() {
    rules_a_container_from_its_start_to_its_end(&Docker::by_shim(Suite::Trixie));
}

#[test]
fn docker_28_rules_a_container_from_its_start_to_its_end() {
    rules_a_container_from_its_start_to_its_end(&Docker::by_shim(Suite::Forky));
}

#[test]
fn podman_5_4_prints_what_its_page_says() {
    podman::goes_on_its_tour(&newer_podman(Suite::Trixie));
}

#[test]
fn podman_5_8_prints_what_its_page_says() {
    podman::goes_on_its_tour(&newer_podman(Suite::Forky));
}

fn rules_a_container_from_its_start_to_its_end(docker: &Docker) {
    let script = "trap 'exit 5' TERM; echo started; echo erring >&2; while :; do sleep 1000 & wait; done";
    // By the shim's name, which takes no configuration.
    let run = [
        "run",
        "--detach",
        "--name=web",
        "--network=none",
        "--runtime",
        RUNTIME,
        "probe",
        "sh",
        "-c",
        script,
    ];
    docker.output(run).success();
    let inspect =
        |format: &str| docker.output(["inspect", "--format", format, "web"]).success().trim().to_owned();
    let logs = |times: usize| {
        until("all output is logged", DEADLINE, || {
            let logs = docker.output(["logs", "web"]);
            let (out, err) = (logs.text(), logs.errors());
            (out == "started\n".repeat(times) && err == "erring\n".repeat(times)).then_some(())
        });
    };
    logs(1);
    let state = inspect("{{.State.Status}} {{.HostConfig.Runtime}} {{.State.Pid}}");
    let (status, pid) = state.rsplit_once(' ').unwrap();
    assert_eq!(status, format!("running {RUNTIME}"));
    let exec = docker.output(["exec", "web", "sh", "-c", "echo from an exec; exit 9"]);
    exec.exited(9);
    assert_eq!(exec.text(), "from an exec\n");
    // The host's ps finds what stands for the container.
    let top = docker.output(["top", "web", "-o", "pid"]).success();
    assert_eq!(top.split_whitespace().collect::<Vec<_>>(), ["PID", pid]);
    assert!(fs::metadata(format!("/proc/{pid}/ns/net")).is_ok());
    docker.output(["update", "--memory=96m", "--memory-swap=96m", "web"]).success();
    let limit = docker.output(["exec", "web", "cat", "/sys/fs/cgroup/memory.max"]);
    assert_eq!(limit.success(), "100663296\n");

    docker.output(["stop", "web"]).success();
    assert_eq!(inspect("{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}}"), "exited 5 false");
    docker.output(["start", "web"]).success();
    logs(2);
    docker.output(["rm", "--force", "web"]).success();

    let missing = docker.output(["run", "--rm", "--network=none", "probe", "no-such-program"]);
    missing.exited(127);
    assert!(missing.errors().contains("executable file not found in $PATH"), "{}", missing.errors());
    assert_eq!(docker.output(["ps", "--all", "--quiet"]).success(), "");
    containerd::assert_nothing_is_left(&docker.namespace());
}
