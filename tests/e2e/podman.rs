//! podman on Bulkhead: its own programs, with Bulkhead as their runtime.

use std::{fs, time::Duration};

use bulkhead_tests::host::{Engine as _, Podman, finish, tour};

use crate::engine;

#[test]
fn the_podman_tour_prints_what_its_page_says() {
    goes_on_its_tour("");
}

/// `before`: commands that choose the podman.
pub(crate) fn goes_on_its_tour(before: &str) {
    let places = "
        cp -a /etc/containers /tmp/containers
        mount --bind /tmp/containers /etc/containers
        mkdir -p /var/lib/containers
        mount -t tmpfs tour /var/lib/containers
        trap 'podman pod rm -fat 0; podman rm -fat 0' EXIT";
    let page = include_str!("../../docs/podman.md");
    let (page, _) = page.split_once(crate::rootless::HEADING).unwrap();
    tour(page, &format!("{before}\n{places}"), Duration::from_secs(900));
}

#[test]
fn podmans_flags_are_what_the_container_sees() {
    engine::flags_are_what_the_container_sees(&Podman::new());
}

#[test]
fn podman_gives_a_shell_on_a_terminal_and_privileges() {
    let podman = Podman::new();
    engine::gives_a_shell_on_a_terminal(&podman);
    engine::gives_a_privileged_container_what_the_guest_has(&podman);
}

#[test]
fn podman_tells_what_it_cannot_have() {
    let podman = Podman::new();
    let run = |args: &[&str], code, words: &[&str]| {
        podman.output([&["run", "--rm"], args].concat()).failure(code, words);
    };
    run(&["--network=none", "probe", "/no/such"], 127, &["no such file or directory"]);
    run(&["--network=none", "probe", "/etc/passwd"], 126, &["permission denied"]);
    run(&["--network=host", "probe", "true"], 126, &["linux.namespaces", "host"]);
    run(&["--network=none", "--device=/dev/kvm", "probe", "true"], 126, &["linux.devices[0]"]);
}

#[test]
fn podman_cp_reaches_the_container_and_nothing_else() {
    let podman = Podman::new();
    let volume = podman.dir().join("volume");
    fs::create_dir(&volume).unwrap();
    let word = podman.dir().join("word");
    fs::write(&word, "copied").unwrap();
    let word = word.display().to_string();
    let mount = format!("--volume={}:/volume", volume.display());
    let run =
        ["run", "-d", "--name=cp", "--network=none", "--tmpfs=/scratch", &mount, "probe", "sleep", "10000"];
    podman.output(run).success();
    // To a place that the host has as well.
    podman.output(["exec", "cp", "ln", "-s", "/etc", "/volume/link"]).success();
    for place in ["cp:/etc/word", "cp:/volume/word", "cp:/volume/link/linked"] {
        podman.output(["cp", &word, place]).success();
    }
    let show = "cat /etc/word /volume/word /etc/linked; ls /scratch";
    assert_eq!(podman.output(["exec", "cp", "sh", "-c", show]).success(), "copiedcopiedcopied");
    assert_eq!(fs::read_to_string(volume.join("word")).unwrap(), "copied");
    podman.output(["cp", &word, "cp:/scratch/word"]).failure(125, &["read-only file system"]);
    assert!(!fs::exists("/etc/word").unwrap() && !fs::exists("/etc/linked").unwrap());
}

#[test]
fn containers_of_a_podman_network_find_each_other_by_name() {
    let podman = Podman::new();
    podman.output(["network", "create", "lan"]).success();
    let script = "mkdir /www; echo found >/www/index.html; exec busybox httpd -f -h /www";
    podman.output(["run", "-d", "--name=server", "--network=lan", "probe", "sh", "-c", script]).success();
    let script = "until busybox wget -q -O - http://server/; do busybox sleep 1; done";
    let client = podman.output(["run", "--rm", "--network=lan", "probe", "sh", "-c", script]);
    assert_eq!(client.success(), "found\n");
}

#[test]
fn conmon_is_told_that_it_was_memory_and_not_somebody() {
    let podman = Podman::new();
    // conmon leaves its file in the caller's directory.
    let directory = |name: &str| {
        let directory = podman.dir().join(name);
        fs::create_dir(&directory).unwrap();
        directory
    };
    let run = |name: &str, args: &[&str]| {
        let limits = ["--network=none", "--memory=32m", "--memory-swap=32m", "probe"];
        let mut command =
            podman.command([&["run", "--name", name][..], &args[..1], &limits, &args[1..]].concat());
        finish(command.current_dir(directory(name)), b"", Duration::from_secs(280))
    };
    run("hungry", &["--tty=false", "probe", "hold", "50"]).exited(137);
    assert!(podman.dir().join("hungry/oom").exists());
    run("killed", &["--detach", "probe", "linger"]).success();
    podman.output(["kill", "killed"]).success();
    assert_eq!(podman.output(["wait", "killed"]).success(), "137\n");
    assert!(!podman.dir().join("killed/oom").exists());
}
