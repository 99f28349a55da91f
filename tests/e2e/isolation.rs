//! The walls: what the VMM can reach on the host, and what a container can reach of it.

use std::{fs, path::PathBuf};

use bulkhead_tests::host::{Container, TestHost, process};

fn running(host: &TestHost) -> Container<'_> {
    let container = host.create("wall", &host.bundle().args(["probe", "linger"]));
    container.start();
    container.until_stdout("ready");
    container
}

fn vmm(id: &str) -> PathBuf {
    let pid = process("bulkhead-vmm", &[], id).expect("a VMM in the cgroup");
    format!("/proc/{pid}").into()
}

#[test]
fn the_vmm_lives_in_namespaces_of_its_own_with_the_share_as_its_root() {
    let host = TestHost::new();
    let web = running(&host);
    let vmm = vmm(&web.id);
    for kind in ["user", "mnt", "pid", "net", "ipc", "uts"] {
        let link = |dir: PathBuf| fs::read_link(dir.join("ns").join(kind)).unwrap();
        assert_ne!(link(vmm.clone()), link("/proc/self".into()), "{kind}");
    }
    let root: Vec<_> =
        fs::read_dir(vmm.join("root")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(root, [web.id.as_str()], "the jail holds the pod's share and nothing else");
    web.delete_force();
}

#[test]
fn the_vmm_keeps_no_power_over_the_host() {
    let host = TestHost::new();
    let web = running(&host);
    let status = fs::read_to_string(vmm(&web.id).join("status")).unwrap();
    let value = |key: &str| {
        let line = status.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_once(':').unwrap().1.trim().to_owned()
    };
    assert_eq!(value("NoNewPrivs"), "1");
    let effective = u64::from_str_radix(&value("CapEff"), 16).unwrap();
    assert_eq!(effective & !0x8800_00db, 0, "no capability beside those for serving files: {effective:x}");
    web.delete_force();
}

#[test]
fn every_thread_of_the_vmm_is_confined_and_knows_nothing_of_the_caller() {
    let host = TestHost::new();
    let web = running(&host);
    let vmm = vmm(&web.id);
    assert_eq!(fs::read(vmm.join("environ")).unwrap(), b"", "the caller's environment");
    for thread in fs::read_dir(vmm.join("task")).unwrap() {
        let thread = thread.unwrap().path();
        let status = fs::read_to_string(thread.join("status")).unwrap();
        assert!(status.contains("\nSeccomp:\t2\n"), "{status}");
        let files = fs::read_to_string(thread.join("comm")).unwrap().starts_with("fs");
        let none = status.contains("\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n");
        assert!(files || none, "{status}");
    }
    web.delete_force();
}

#[test]
fn the_server_and_the_proxy_keep_nothing_of_the_caller() {
    let host = TestHost::new();
    let web = running(&host);
    for role in ["sandbox-server", "proxy"] {
        let pid = process("bulkhead", &[role], &web.id).unwrap_or_else(|| panic!("a {role}"));
        assert_eq!(fs::read(format!("/proc/{pid}/environ")).unwrap(), b"", "{role}");
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        assert!(status.contains("\nNoNewPrivs:\t1\n"), "{role}: {status}");
        let bounded = status.contains("\nCapBnd:\t0000000000000000\n");
        assert_eq!(bounded, role == "proxy", "{role}: {status}");
    }
    web.delete_force();
}

#[test]
fn a_read_only_rootfs_is_read_only_on_the_host_side_too() {
    let host = TestHost::new();
    let bundle = host.bundle().own_rootfs().args(["probe", "linger"]).set("/root/readonly", true.into());
    let web = host.create("ro", &bundle);
    web.start();
    assert_eq!(web.exec(["probe", "try", "/etc/passwd"]).success(), "EROFS\n");
    let mounts = fs::read_to_string(vmm(&web.id).join("mountinfo")).unwrap();
    let line =
        mounts.lines().find(|line| line.contains(&format!("/{}/rootfs ", web.id))).expect("the rootfs");
    assert!(line.split(' ').nth(5).unwrap().split(',').any(|option| option == "ro"), "{line}");
    web.delete_force();
}

#[test]
fn a_container_writes_to_its_rootfs_and_its_volumes() {
    let host = TestHost::new();
    let volume = host.dir().join("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(host.dir().join("secret"), "outside").unwrap();
    let bundle = host
        .bundle()
        .own_rootfs()
        .push(
            "/mounts",
            serde_json::json!({ "destination": "/data/deep", "type": "bind", "source": volume, "options": ["rbind", "rw"] }),
        )
        .sh("echo in > /data/deep/file; echo root > /etc/new; ln -s /data/deep/../../secret /data/deep/link; cat /data/deep/link");
    let finished = host.run(&bundle);
    assert_ne!(finished.code(), 0, "the link leads nowhere in the container: {}", finished.text());
    assert_eq!(fs::read_to_string(volume.join("file")).unwrap(), "in\n");
    assert_eq!(fs::read_to_string(bundle.dir().join("rootfs/etc/new")).unwrap(), "root\n");
}

#[test]
fn the_guest_runs_its_own_kernel() {
    let host = TestHost::new();
    let report: serde_json::Value = serde_json::from_str(&host.run(&host.bundle()).success()).unwrap();
    let host_release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_ne!(report["kernel"].as_str().unwrap(), host_release.trim());
    assert!(report["kernel"].as_str().unwrap().starts_with("6."));
}
