//! Several containers in one microVM: those that share namespaces.

use std::{fs, path::Path};

use bulkhead_tests::host::{Bundle, Container, DEADLINE, TestHost, process};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::json;

/// A bundle that shares these namespaces with `first`, and has the rest of its own.
pub(crate) fn sharing(host: &TestHost, first: &Container<'_>, shared: &[&str]) -> Bundle {
    let kinds = [("pid", "pid"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("mount", "mnt")];
    let namespaces: Vec<_> = kinds
        .into_iter()
        .map(|(kind, file)| {
            if shared.contains(&kind) {
                json!({ "type": kind, "path": format!("/proc/{}/ns/{file}", first.pid()) })
            } else {
                json!({ "type": kind })
            }
        })
        .collect();
    host.bundle().remove("", "hostname").set("/linux/namespaces", json!(namespaces))
}

pub(crate) fn running<'host>(host: &'host TestHost, name: &str, bundle: &Bundle) -> Container<'host> {
    let container = host.create(name, bundle);
    container.start();
    container.until_stdout("ready");
    container
}

pub(crate) fn seen(container: &Container<'_>, words: &[&str]) -> String {
    container.exec(words).success()
}

/// What the containers of one microVM have in common, and those of two do not.
fn boot(container: &Container<'_>) -> String {
    seen(container, &["cat", "/proc/sys/kernel/random/boot_id"])
}

/// The namespace of a kind that a container's processes are in.
fn namespace(container: &Container<'_>, kind: &str) -> String {
    seen(container, &["busybox", "readlink", &format!("/proc/self/ns/{kind}")])
}

#[test]
fn containers_that_share_namespaces_live_in_one_microvm() {
    let host = TestHost::new();
    let first = running(&host, "first", &host.bundle().args(["probe", "linger"]));
    let second = sharing(&host, &first, &["network"]).args(["probe", "linger"]);
    let second = running(&host, "second", &second);
    // Joining one that joined is joining the same microVM.
    let third = running(&host, "third", &sharing(&host, &second, &["ipc"]).args(["probe", "linger"]));

    assert_eq!((boot(&first), boot(&first)), (boot(&second), boot(&third)));
    assert!(process("bulkhead-vmm", &[], &second.id).is_none(), "a VMM of its own");
    for container in [third, second, first] {
        container.delete_force();
    }
    host.assert_no_trace();
}

#[test]
fn containers_share_the_namespaces_that_their_bundles_name_and_no_others() {
    let host = TestHost::new();
    let first = host.bundle().set("/hostname", json!("pod")).args(["probe", "linger"]);
    let first = running(&host, "first", &first);
    let second = sharing(&host, &first, &["network", "ipc", "uts"]).args(["probe", "trap"]);
    let second = running(&host, "second", &second);
    let third = sharing(&host, &second, &["pid", "network"]).args(["probe", "linger"]);
    let third = running(&host, "third", &third);

    for kind in ["net", "ipc", "uts"] {
        assert_eq!(namespace(&first, kind), namespace(&second, kind), "{kind}");
    }
    for kind in ["pid", "mnt"] {
        assert_ne!(namespace(&first, kind), namespace(&second, kind), "{kind}");
    }
    assert_eq!(namespace(&second, "pid"), namespace(&third, "pid"));
    assert_ne!(namespace(&second, "ipc"), namespace(&third, "ipc"));
    assert_eq!(seen(&second, &["busybox", "hostname"]), "pod\n");
    // The third one sees the process of the second, and the first does not.
    assert!(seen(&third, &["busybox", "ps"]).contains("probe trap"));
    assert!(!seen(&first, &["busybox", "ps"]).contains("probe trap"));
}

#[test]
fn an_update_of_cpus_in_a_pod_warns_that_they_are_the_microvms() {
    let host = TestHost::new();
    let first = running(&host, "first", &host.bundle().args(["probe", "linger"]));
    let second = running(&host, "second", &sharing(&host, &first, &["network"]).args(["probe", "linger"]));
    let updated = second.command("update", ["--cpuset-cpus=0", "--cpu-share=512"]);
    updated.success();
    let warning =
        format!("linux.resources.cpu.cpus has no effect: the microVM belongs to container {}", first.id);
    assert!(updated.errors().contains(&warning), "{updated:?}");
}

#[test]
fn each_container_of_a_pod_has_its_own_output_signals_and_end() {
    let host = TestHost::new();
    let first = running(&host, "first", &host.bundle().args(["probe", "linger"]));
    let second = running(&host, "second", &sharing(&host, &first, &["network"]).args(["probe", "trap"]));
    let third = running(&host, "third", &sharing(&host, &second, &["pid"]).args(["probe", "linger"]));

    second.kill("USR1");
    second.until_stdout("SIGUSR1");
    assert!(!first.stdout().contains("SIGUSR1") && !third.stdout().contains("SIGUSR1"));
    third.kill("TERM");
    assert_eq!(third.wait(), 143);
    third.until_status("stopped", DEADLINE);
    third.delete();
    assert_eq!((first.status(), second.status()), ("running".into(), "running".into()));
    second.delete_force();
    assert_eq!(first.status(), "running");
}

#[test]
fn a_name_that_has_become_free_in_a_pod_is_taken_again() {
    let host = TestHost::new();
    let first = running(&host, "first", &host.bundle().args(["probe", "linger"]));
    let another =
        || running(&host, "second", &sharing(&host, &first, &["network"]).args(["probe", "linger"]));
    another().delete_force();
    let again = another();
    assert_eq!(boot(&first), boot(&again));
    again.delete_force();
    first.delete_force();
    host.assert_no_trace();
}

/// As engines do it: on a mount that is private, so that a mount on it after the first container's start is not seen by who
/// has the mounts of then.
#[test]
fn the_rootfs_of_a_later_container_is_what_its_caller_sees() {
    let host = TestHost::new();
    let bind = |from: &Path, to: &Path, kind: MsFlags| {
        mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        mount(None::<&str>, to, None::<&str>, kind, None::<&str>).unwrap();
    };
    let (storage, layer) = (host.dir().join("storage"), host.dir().join("storage/layer"));
    fs::create_dir_all(&layer).unwrap();
    bind(&storage, &storage, MsFlags::MS_PRIVATE);
    let first = running(&host, "first", &host.bundle().args(["probe", "linger"]));
    let image = host.bundle().own_rootfs();
    bind(&image.write().join("rootfs"), &layer, MsFlags::MS_PRIVATE);
    for read_only in [false, true] {
        let second = sharing(&host, &first, &["network"]).set("/root/path", json!(layer));
        let second = second.set("/root/readonly", json!(read_only)).args(["echo", "here"]);
        assert_eq!(host.run(&second).success(), "here\n");
    }
    first.delete_force();
    umount2(&storage, MntFlags::MNT_DETACH).unwrap();
    host.assert_no_trace();
}

#[test]
fn a_container_whose_microvm_has_others_is_deleted_by_force_only_and_takes_them_along() {
    let host = TestHost::new();
    let first = running(&host, "first", &host.bundle().args(["probe", "linger"]));
    let second = running(&host, "second", &sharing(&host, &first, &["network"]).args(["probe", "linger"]));
    // The end of the first one is not the end of the microVM.
    first.kill("KILL");
    assert_eq!(first.wait(), 137);
    first.until_status("stopped", DEADLINE);
    first.command("delete", [""; 0]).failure(1, &["its microVM also runs", &second.id]);
    assert_eq!(seen(&second, &["echo", "here"]), "here\n");
    first.delete_force();
    assert_eq!(second.wait(), 137);
    second.until_status("stopped", DEADLINE);
    second.delete();
    host.assert_no_trace();
}

#[test]
fn namespaces_that_are_no_containers_of_ours_are_refused() {
    let host = TestHost::new();
    let refused = |index: usize, path: &str, words: &[&str]| {
        let bundle = host.bundle().set(&format!("/linux/namespaces/{index}/path"), json!(path));
        host.run(&bundle.args(["true"])).failure(1, words);
    };
    refused(0, "/proc/1/ns/pid", &["linux.namespaces[0].path", "process 1 stands for no container of ours"]);
    refused(1, "/proc/1/ns/net", &["linux.namespaces[1].path", "the host's own network namespace"]);
    refused(2, "/run/ipc", &["linux.namespaces[2].path", "/run/ipc is not /proc/PID/ns/ipc"]);
}
