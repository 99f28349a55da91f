//! A systemd of its own for a test: pid 1 of a pid namespace, with a cgroup namespace and its socket to itself.
//!
//!   unshare ─fork▶ enters its cgroup ─▶ cgroup namespace, its own /proc, /sys/fs/cgroup and /run/systemd ─▶ systemd

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::{DEADLINE, TestHost, until};

const ENTER: &str = r#"
echo 0 > "$GROUP/cgroup.procs"
exec unshare --cgroup /bin/sh -ec '
mount -t proc proc /proc
umount -l /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /run/systemd
mount -t tmpfs tmpfs /run/systemd
exec env container=test SYSTEMD_UNIT_PATH="$UNITS:/run/systemd/transient" /lib/systemd/systemd --system --unit=test.target --log-target=console
'
"#;

/// Ends, with all that runs below it, when it is dropped.
#[derive(Debug)]
pub struct Systemd {
    outer: Child,
    /// By the pid namespace of the test.
    pid: u32,
    group: PathBuf,
}

impl Systemd {
    /// # Panics
    /// When it does not come up.
    pub fn start(host: &TestHost) -> Self {
        let group = Path::new("/sys/fs/cgroup").join(host.id("systemd"));
        let units = host.dir().join("units");
        fs::create_dir(&group).expect("a cgroup for systemd");
        fs::create_dir(&units).expect("a directory of units");
        fs::write(units.join("test.target"), "[Unit]\nDefaultDependencies=no\n").expect("a unit");
        let log = fs::File::create(host.dir().join("systemd.log")).expect("a log");
        let outer = Command::new("unshare")
            .args(["--pid", "--mount", "--fork", "--kill-child", "/bin/sh", "-ec", ENTER])
            .env("GROUP", &group)
            .env("UNITS", &units)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log"))
            .stderr(log)
            .spawn()
            .expect("unshare");
        let children = format!("/proc/{0}/task/{0}/children", outer.id());
        let pid = until("systemd is born", DEADLINE, || {
            fs::read_to_string(&children).ok()?.split_whitespace().next()?.parse().ok()
        });
        let systemd = Self { outer, pid, group };
        let what = format!("systemd is up; {}", host.dir().join("systemd.log").display());
        until(&what, DEADLINE, || {
            // Its answer, not its socket: that is there before.
            let mut command = Command::new("systemctl");
            command.args(["is-active", "test.target"]);
            let booted = PathBuf::from(format!("/proc/{pid}/root/run/systemd/private")).exists();
            let answer = booted.then(|| systemd.inside(&command).output().ok()).flatten()?;
            (answer.stdout == b"active\n").then_some(())
        });
        systemd
    }

    /// The same command in its namespaces, as one of its processes: none may come in from outside its cgroup.
    pub fn inside(&self, command: &Command) -> Command {
        let script = format!(
            "echo 0 > '{}/init.scope/cgroup.procs' && exec nsenter --target {} --mount --pid --cgroup \"$@\"",
            self.group.display(),
            self.pid
        );
        let mut inside = Command::new("/bin/sh");
        inside.args(["-c", &script, "sh"]).arg(command.get_program()).args(command.get_args());
        inside.stdin(Stdio::null());
        inside
    }

    /// Where its cgroup is for the test.
    pub fn group(&self) -> &Path {
        &self.group
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        // --kill-child is for the death of unshare, which takes systemd and so the whole namespace along.
        let _ = self.outer.kill();
        let _ = self.outer.wait();
        let gone = || remove(&self.group).is_ok().then_some(());
        if !std::thread::panicking() {
            until("the cgroup of systemd is empty", DEADLINE, gone);
        }
    }
}

fn remove(group: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(group)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}
