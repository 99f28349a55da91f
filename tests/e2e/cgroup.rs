//! The host's cgroup of a container is its own: nobody else comes in, and nobody else is killed.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command},
};

use bulkhead_tests::host::{Bundle, Container, DEADLINE, TestHost};
use nix::{sys::signal::Signal, sys::signal::kill, unistd::Pid};
use serde_json::json;

/// A process of nobody's.
struct Stranger(Child);

impl Stranger {
    fn in_cgroup(path: &std::path::Path) -> Self {
        let child = Command::new("sleep").arg("600").spawn().unwrap();
        fs::write(path.join("cgroup.procs"), child.id().to_string()).unwrap();
        Self(child)
    }

    fn is_alive(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

fn directory(host: &TestHost) -> PathBuf {
    PathBuf::from("/sys/fs/cgroup").join(host.id("shared"))
}

fn bundle(host: &TestHost) -> Bundle {
    host.bundle()
        .set("/linux/cgroupsPath", json!(format!("/{}", host.id("shared"))))
        .args(["probe", "linger"])
}

fn running(host: &TestHost) -> Container<'_> {
    let container = host.create("first", &bundle(host));
    container.start();
    container.until_stdout("ready");
    container
}

#[test]
fn a_second_container_in_the_cgroup_of_another_one_is_refused() {
    let host = TestHost::new();
    let first = running(&host);
    let second = || {
        let mut command = host.bulkhead(["run", "--bundle"]);
        command.arg(bundle(&host).write()).arg(host.id("second"));
        bulkhead_tests::host::finish(&mut command, b"", DEADLINE)
    };
    second().failure(1, &["linux.cgroupsPath: ", "is not empty"]);
    assert_eq!(first.status(), "running");
    first.kill("KILL");
    assert_eq!(first.wait(), 137);
    first.until_status("stopped", DEADLINE);
    // Its last process may just be leaving.
    let refused = second();
    assert_eq!(refused.code(), 1, "{refused:?}");
    assert!(refused.errors().contains("linux.cgroupsPath: "), "{refused:?}");
    first.delete();
    host.assert_no_trace();
}

#[test]
fn a_cgroup_that_was_there_is_used_while_it_is_empty_and_stays() {
    let host = TestHost::new();
    let directory = directory(&host);
    fs::create_dir(&directory).unwrap();
    let mut stranger = Stranger::in_cgroup(&directory);
    host.run(&bundle(&host)).failure(1, &["linux.cgroupsPath: ", "is not empty"]);
    assert!(stranger.is_alive());
    drop(stranger);
    let first = running(&host);
    first.kill("KILL");
    assert_eq!(first.wait(), 137);
    first.until_status("stopped", DEADLINE);
    first.command("delete", [""; 0]).success();
    fs::remove_dir(&directory).unwrap();
    host.assert_no_trace();
}

#[test]
fn a_stranger_that_comes_after_the_container_is_not_killed_by_its_deletion() {
    let host = TestHost::new();
    let first = running(&host);
    first.kill("KILL");
    assert_eq!(first.wait(), 137);
    first.until_status("stopped", DEADLINE);
    let mut stranger = Stranger::in_cgroup(&directory(&host));
    first
        .command("delete", ["--force"])
        .failure(1, &["the cgroup holds processes that do not belong to the container"]);
    assert!(stranger.is_alive());
    drop(stranger);
    first.delete();
    host.assert_no_trace();
}
