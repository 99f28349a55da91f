//! docker on Bulkhead: its own programs, with Bulkhead as their runtime.

use std::time::Duration;

use bulkhead_tests::host::{Docker, Engine as _, tour};

use crate::engine;

#[test]
fn the_docker_tour_prints_what_its_page_says() {
    // There need not be a systemd: the page's one command of it is this function.
    let places = "
        mkdir -p /etc/docker /var/lib/docker /var/lib/containerd
        for dir in /etc/docker /var/lib/docker /var/lib/containerd; do mount -t tmpfs tour $dir; done
        systemctl() {
            dockerd >/run/log 2>&1 &
            until docker version >/dev/null 2>&1; do
                kill -0 $! || { cat /run/log; exit 1; }
                sleep 0.2
            done
        }
        trap 'docker ps -aq | xargs -r docker rm -f' EXIT";
    tour(include_str!("../../docs/docker.md"), places, Duration::from_secs(660));
}

#[test]
fn docker_runs_containers_as_its_flags_say() {
    let docker = Docker::new();
    engine::flags_are_what_the_container_sees(&docker);
    engine::gives_a_shell_on_a_terminal(&docker);
    engine::gives_a_privileged_container_what_the_guest_has(&docker);
    // Its shim looks at the cgroup on the host.
    let limits = ["--network=none", "--memory=32m", "--memory-swap=32m"];
    let hungry = [&["run", "--name=hungry"][..], &limits, &["probe", "probe", "hold", "50"]].concat();
    docker.output(hungry).exited(137);
    let inspected = docker.output(["inspect", "--format={{.State.OOMKilled}}", "hungry"]);
    assert_eq!(inspected.success(), "true\n");
}
