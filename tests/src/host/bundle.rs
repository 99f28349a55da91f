//! Bundles for tests: a small rootfs, and a `config.json` that a test changes where it matters.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::probe;

/// busybox applets that tests use.
const APPLETS: [&str; 22] = [
    "cat",
    "chmod",
    "dd",
    "echo",
    "env",
    "false",
    "head",
    "hostname",
    "id",
    "ln",
    "ls",
    "mkdir",
    "mount",
    "ps",
    "sh",
    "sha256sum",
    "sleep",
    "stty",
    "touch",
    "true",
    "tty",
    "yes",
];

/// A bundle in the making; `write` puts it on disk.
#[derive(Debug)]
pub struct Bundle {
    dir: PathBuf,
    config: Value,
}

impl Bundle {
    pub(super) fn new(dir: PathBuf, rootfs: &Path) -> Self {
        Self { dir, config: default_config(rootfs) }
    }

    /// The program: argv.
    pub fn args<S: AsRef<str>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        let args: Vec<_> = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
        self.config["process"]["args"] = json!(args);
        self
    }

    /// `sh -c SCRIPT`.
    pub fn sh(self, script: &str) -> Self {
        self.args(["/bin/sh", "-c", script])
    }

    /// Sets the value at a JSON pointer such as `/linux/resources/memory`; objects on the way are made.
    pub fn set(mut self, pointer: &str, value: Value) -> Self {
        let mut place = &mut self.config;
        for key in pointer.split('/').skip(1) {
            place = match place {
                Value::Array(items) => &mut items[key.parse::<usize>().expect("an index")],
                other => &mut other[key],
            };
        }
        *place = value;
        self
    }

    /// Appends to the array at a JSON pointer.
    pub fn push(mut self, pointer: &str, value: Value) -> Self {
        let array = self.config.pointer_mut(pointer).and_then(Value::as_array_mut).expect("an array");
        array.push(value);
        self
    }

    /// Removes the value at `parent`'s `key`.
    pub fn remove(mut self, parent: &str, key: &str) -> Self {
        self.config.pointer_mut(parent).and_then(Value::as_object_mut).expect("an object").remove(key);
        self
    }

    /// A rootfs of this bundle's own, so that the container may write to it.
    pub fn own_rootfs(self) -> Self {
        let target = self.dir.join("rootfs");
        fs::create_dir_all(&target).expect("make the bundle");
        // From where they are already, not from the build once more.
        let programs = super::rootfs().join("bin");
        fill(&target, &programs.join("probe"), &programs.join("busybox"));
        self.set("/root/path", json!("rootfs"))
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes `config.json` and returns the bundle's directory.
    pub fn write(&self) -> &Path {
        self.write_text(&serde_json::to_string_pretty(&self.config).expect("JSON"))
    }

    /// Writes any text as `config.json`.
    pub fn write_text(&self, text: &str) -> &Path {
        fs::create_dir_all(&self.dir).expect("make the bundle");
        fs::write(self.dir.join("config.json"), text).expect("write config.json");
        &self.dir
    }
}

fn default_config(rootfs: &Path) -> Value {
    let caps = json!([
        "CAP_AUDIT_WRITE",
        "CAP_KILL",
        "CAP_NET_BIND_SERVICE",
        "CAP_CHOWN",
        "CAP_SETUID",
        "CAP_SETGID"
    ]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": ["/bin/probe", "report"],
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": { "bounding": caps, "effective": caps, "permitted": caps },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true
        },
        "root": { "path": rootfs, "readonly": false },
        "hostname": "bulkhead-test",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
              "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
              "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs",
              "options": ["nosuid", "noexec", "nodev", "ro"] },
            { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
              "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] }
        ],
        "linux": {
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" },
                { "type": "mount" }, { "type": "cgroup" }
            ],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}

pub(super) fn make_rootfs() -> tempfile::TempDir {
    let dir = tempfile::Builder::new().prefix("bulkhead-rootfs").tempdir().expect("a rootfs directory");
    fill(dir.path(), &probe(), Path::new("/bin/busybox"));
    dir
}

fn fill(root: &Path, probe: &Path, busybox: &Path) {
    // The directory becomes a container's `/`: its users must be able to enter it.
    fs::set_permissions(root, fs::Permissions::from_mode(0o755)).expect("chmod");
    for sub in ["bin", "dev", "etc", "proc", "sys", "tmp", "root"] {
        fs::create_dir(root.join(sub)).expect("mkdir");
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\ntester:x:1000:1000::/tmp:/bin/sh\n")
        .expect("passwd");
    fs::copy(probe, root.join("bin/probe")).expect("the probe, staged by `make stage`");
    fs::copy(busybox, root.join("bin/busybox")).expect("busybox (package busybox-static)");
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet)).expect("symlink");
    }
}
