//! One container under test, made by `bulkhead create`; its proxy is a child of a subreaper, as with conmon.

use std::{
    ffi::OsStr,
    fs::{self, File},
    path::PathBuf,
    process::Stdio,
    time::Duration,
};

use nix::{
    sys::wait::{WaitPidFlag, WaitStatus, waitpid},
    unistd::Pid,
};

use super::{Bundle, DEADLINE, Finished, TestHost, finish, until};

/// A created container; deleted by force when dropped.
#[derive(Debug)]
pub struct Container<'host> {
    host: &'host TestHost,
    pub id: String,
    stdout: PathBuf,
    stderr: PathBuf,
    pid_file: PathBuf,
}

impl<'host> Container<'host> {
    pub(super) fn create(host: &'host TestHost, id: String, bundle: &Bundle) -> Self {
        // Orphaned proxies come to this process, which can then wait for them, as conmon does.
        nix::sys::prctl::set_child_subreaper(true).expect("become a subreaper");
        let file = |end: &str| host.dir().join(format!("{id}.{end}"));
        let (stdout, stderr, pid_file) = (file("out"), file("err"), file("pid"));
        let mut command = host.bulkhead(["create", "--bundle"]);
        command.arg(bundle.write()).arg("--pid-file").arg(&pid_file).arg(&id);
        command.stdout(File::create(&stdout).expect("stdout")).stderr(File::create(&stderr).expect("stderr"));
        let status = command.stdin(Stdio::null()).status().expect("bulkhead create");
        assert!(status.success(), "create {id}: {}", fs::read_to_string(&stderr).unwrap_or_default());
        Self { host, id, stdout, stderr, pid_file }
    }

    /// A command of `bulkhead` that takes the id first: `start`, `kill`, `delete`, `state` …
    pub fn command<S: AsRef<OsStr>>(&self, verb: &str, rest: impl IntoIterator<Item = S>) -> Finished {
        let mut command = self.host.bulkhead([verb, &self.id]);
        finish(command.args(rest), b"", DEADLINE)
    }

    pub fn start(&self) {
        self.command("start", [""; 0]).success();
    }

    pub fn kill(&self, signal: &str) {
        self.command("kill", [signal]).success();
    }

    pub fn delete(&self) {
        self.command("delete", [""; 0]).success();
        self.host.assert_no_trace_of(&self.id);
    }

    pub fn delete_force(&self) {
        finish(self.host.bulkhead(["delete", "--force"]).arg(&self.id), b"", DEADLINE).success();
        self.host.assert_no_trace_of(&self.id);
    }

    /// `exec ID ARGV`.
    pub fn exec<S: AsRef<OsStr>>(&self, argv: impl IntoIterator<Item = S>) -> Finished {
        self.command("exec", argv)
    }

    /// What `bulkhead state` prints, parsed.
    pub fn state(&self) -> serde_json::Value {
        serde_json::from_str(&self.command("state", [""; 0]).success()).expect("state is JSON")
    }

    pub fn status(&self) -> String {
        self.state()["status"].as_str().expect("status").to_owned()
    }

    /// Waits for a status, looking again and again.
    pub fn until_status(&self, status: &str, deadline: Duration) {
        until(&format!("{} is {status}", self.id), deadline, || (self.status() == status).then_some(()));
    }

    /// The host pid: the proxy's.
    pub fn pid(&self) -> Pid {
        let text = fs::read_to_string(&self.pid_file).expect("the pid file is there when create returns");
        Pid::from_raw(text.parse().expect("a bare number"))
    }

    /// Waits for the proxy's end as a caller does: by waitpid. 128 + signal for a death by signal.
    pub fn wait(&self) -> i32 {
        let pid = self.pid();
        until("the proxy ends", DEADLINE, || {
            match waitpid(pid, Some(WaitPidFlag::WNOHANG)).expect("waitpid") {
                WaitStatus::Exited(_, code) => Some(code),
                WaitStatus::Signaled(_, signal, _) => Some(128 + signal as i32),
                _ => None,
            }
        })
    }

    /// What the container has written so far.
    pub fn stdout(&self) -> String {
        fs::read_to_string(&self.stdout).expect("stdout")
    }

    pub fn stderr(&self) -> String {
        fs::read_to_string(&self.stderr).expect("stderr")
    }

    /// Waits until stdout has the text.
    pub fn until_stdout(&self, text: &str) {
        until(&format!("{text:?} on stdout"), DEADLINE, || self.stdout().contains(text).then_some(()));
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let _ = self.host.bulkhead(["delete", "--force"]).arg(&self.id).output();
    }
}
