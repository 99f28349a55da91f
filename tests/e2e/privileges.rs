//! What makes a program privileged for whoever runs it: with `strip_setuid`, a guest leaves none of it on the host's files.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use bulkhead_tests::host::{Finished, TestHost};
use rustix::{fs::getxattr, io::Errno};
use serde_json::json;

const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;
/// A capability that a container has none of by default: for file capabilities.
const SETFCAP: &str = "CAP_SETFCAP";

/// Makes a setuid program, a setgid program and a setgid directory in `volume`, and gives a program a file capability.
fn try_all(host: &TestHost, volume: &Path) -> Finished {
    fs::create_dir(volume).unwrap();
    let mount = json!({ "destination": "/data", "type": "bind", "source": volume, "options": ["bind"] });
    let mut bundle = host.bundle().push("/mounts", mount);
    for set in ["bounding", "effective", "permitted"] {
        bundle = bundle.push(&format!("/process/capabilities/{set}"), json!(SETFCAP));
    }
    let script = "cd /data && touch setuid setgid capable && mkdir directory && \
        chmod 4755 setuid && chmod 2755 setgid && chmod 2755 directory && probe empower capable";
    host.run(&bundle.sh(script))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode()
}

/// The file's capabilities as the host has them.
fn capabilities(path: &Path) -> Result<usize, Errno> {
    getxattr(path, "security.capability", &mut [0; 64][..])
}

#[test]
fn with_strip_setuid_a_guest_leaves_no_privileged_program_on_the_host() {
    let host = TestHost::configured("strip_setuid = true\n");
    let volume = host.dir().join("volume");
    assert_eq!(try_all(&host, &volume).success(), "EPERM\n");
    assert_eq!(mode(&volume.join("setuid")) & 0o7777, 0o755);
    assert_eq!(mode(&volume.join("setgid")) & 0o7777, 0o755);
    assert_eq!(capabilities(&volume.join("capable")), Err(Errno::NODATA));
    // The setgid bit of a directory makes nobody privileged.
    assert_eq!(mode(&volume.join("directory")) & 0o7777, 0o2755);
}

#[test]
fn without_strip_setuid_what_a_guest_makes_privileged_stays_so() {
    let host = TestHost::new();
    let volume = host.dir().join("volume");
    assert_eq!(try_all(&host, &volume).success(), "ok\n");
    assert_eq!(mode(&volume.join("setuid")) & SETUID, SETUID);
    assert_eq!(mode(&volume.join("setgid")) & SETGID, SETGID);
    assert!(capabilities(&volume.join("capable")).is_ok_and(|length| length > 0));
}
