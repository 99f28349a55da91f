//! containerd's sandbox service without containerd: the calls that one of 2.x makes with `sandboxer = "shim"`.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use bulkhead_tests::host::{DEADLINE, TestHost, Wire, cri_api as api, finish, process, until};
use containerd_shim_protos::{
    Client, TaskClient,
    api::{CreateTaskRequest, DeleteRequest, KillRequest, ShutdownRequest, StartRequest, WaitRequest},
    bootstrap_api::{BootstrapParams, BootstrapResult},
    protobuf::{Message as _, well_known_types::any::Any},
    sandbox_api as sandbox,
    sandbox_sync::SandboxClient,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use ttrpc::{Code, context::with_duration};

use crate::shim::{code, command};

/// For an answer that must not wait for a guest.
const AT_ONCE: Duration = Duration::from_secs(60);

/// A daemon that was started as containerd 2.3 starts it for a pod.
struct PodShim<'host> {
    host: &'host TestHost,
    namespace: String,
    id: String,
    bundle: PathBuf,
    sandbox: SandboxClient,
    task: TaskClient,
}

impl<'host> PodShim<'host> {
    fn start(host: &'host TestHost) -> Self {
        let (namespace, id) = (host.id("ns"), host.id("pod"));
        // It has no config.json.
        let bundle = host.dir().join("sandbox-bundle");
        fs::create_dir(&bundle).unwrap();
        let asked =
            BootstrapParams { instance_id: id.clone(), namespace: namespace.clone(), ..Default::default() };
        let mut start = command(&namespace, &id, &bundle, "", "start");
        let started = finish(&mut start, &asked.write_to_bytes().unwrap(), DEADLINE);
        started.exited(0);
        let result = BootstrapResult::parse_from_bytes(&started.stdout).unwrap();
        assert_eq!((result.version, result.protocol.as_str()), (3, "ttrpc"));
        let client = Client::connect(&result.address).unwrap();
        let (sandbox, task) = (SandboxClient::new(client.clone()), TaskClient::new(client));
        Self { host, namespace, id, bundle, sandbox, task }
    }

    fn create(&self, id: &str, netns: &Path) -> ttrpc::Result<()> {
        let mut config = api::PodSandboxConfig { hostname: "web".into(), ..Default::default() };
        config.dns_config.mut_or_insert_default().servers = vec!["192.0.2.53".into()];
        let value = config.write_to_bytes().unwrap();
        let options = Any { type_url: "runtime.v1.PodSandboxConfig".into(), value, ..Default::default() };
        let request = sandbox::CreateSandboxRequest {
            sandbox_id: id.to_owned(),
            bundle_path: self.bundle.to_string_lossy().into_owned(),
            netns_path: netns.to_string_lossy().into_owned(),
            options: Some(options).into(),
            ..Default::default()
        };
        self.sandbox.create_sandbox(with_duration(DEADLINE), &request).map(drop)
    }

    fn status(&self) -> String {
        let request = sandbox::SandboxStatusRequest {
            sandbox_id: self.id.clone(),
            verbose: true,
            ..Default::default()
        };
        let status = self.sandbox.sandbox_status(with_duration(AT_ONCE), &request).unwrap();
        assert!(serde_json::from_str::<Value>(&status.info["info"]).unwrap().is_object());
        status.state
    }

    /// A container of the pod that has run to its end: what it has written.
    fn run(&self, pid: u32, name: &str, script: &str) -> String {
        let id = self.started(pid, name, script);
        let request = WaitRequest { id: id.clone(), ..Default::default() };
        let status = self.task.wait(with_duration(DEADLINE), &request).unwrap().exit_status;
        let output = fs::read_to_string(self.output(name)).unwrap();
        assert_eq!(status, 0, "{output}");
        self.delete(&id);
        output
    }

    fn output(&self, name: &str) -> PathBuf {
        self.host.dir().join(format!("{name}.out"))
    }

    fn started(&self, pid: u32, name: &str, script: &str) -> String {
        let id = format!("{}-{name}", self.id);
        let joined = |kind: &str, file: &str| json!({"type": kind, "path": format!("/proc/{pid}/ns/{file}")});
        let bundle = self
            .host
            .bundle()
            .sh(script)
            .set("/linux/namespaces", json!([{"type": "pid"}, {"type": "mount"}]))
            .push("/linux/namespaces", joined("network", "net"))
            .push("/linux/namespaces", joined("ipc", "ipc"))
            .push("/linux/namespaces", joined("uts", "uts"))
            // Not root: the files of a pod are for everybody.
            .set("/process/user", json!({"uid": 1000, "gid": 1000}))
            .remove("", "hostname")
            .set(
                "/annotations",
                json!({"io.kubernetes.cri.container-type": "container",
                "io.kubernetes.cri.sandbox-id": self.id}),
            );
        let request = CreateTaskRequest {
            id: id.clone(),
            bundle: bundle.write().to_string_lossy().into_owned(),
            stdout: format!("file://{}", self.output(name).display()),
            ..Default::default()
        };
        self.task.create(with_duration(DEADLINE), &request).unwrap();
        let request = StartRequest { id: id.clone(), ..Default::default() };
        self.task.start(with_duration(DEADLINE), &request).unwrap();
        id
    }

    fn delete(&self, id: &str) {
        let request = DeleteRequest { id: id.to_owned(), ..Default::default() };
        self.task.delete(with_duration(DEADLINE), &request).unwrap();
        // containerd always runs this as well.
        let bundle = self.host.dir();
        let mut delete = command(&self.namespace, id, bundle, "", "delete");
        finish(&mut delete, b"", DEADLINE).success();
    }

    fn stop(&self) {
        let request = sandbox::StopSandboxRequest { sandbox_id: self.id.clone(), ..Default::default() };
        self.sandbox.stop_sandbox(with_duration(DEADLINE), &request).unwrap();
    }

    fn wait(&self) -> u32 {
        let request = sandbox::WaitSandboxRequest { sandbox_id: self.id.clone(), ..Default::default() };
        self.sandbox.wait_sandbox(with_duration(DEADLINE), &request).unwrap().exit_status
    }

    /// As containerd removes a pod.
    fn end(self) {
        let request = sandbox::ShutdownSandboxRequest { sandbox_id: self.id.clone(), ..Default::default() };
        // It may be gone before its answer is.
        let _ = self.sandbox.shutdown_sandbox(with_duration(DEADLINE), &request);
        let is_there = || process("bulkhead", &["-namespace", "serve"], &self.namespace).is_some();
        until("the daemon is gone", DEADLINE, || (!is_there()).then_some(()));
        let mut delete = command(&self.namespace, &self.id, &self.bundle, "", "delete");
        finish(&mut delete, b"", DEADLINE).success();
        let pods = Path::new("/run/containerd/bulkhead/pods").join(&self.namespace);
        assert_eq!(fs::read_dir(&pods).unwrap().count(), 0, "{}", pods.display());
        self.host.assert_no_trace_of(&self.id);
    }
}

#[test]
fn a_pod_without_a_pause_container_lives_until_it_is_stopped() {
    let host = TestHost::new();
    let wire = Wire::connected();
    let shim = PodShim::start(&host);
    let refused = |result: ttrpc::Result<()>| result.map_err(|error| code(&error));
    assert_eq!(refused(shim.create("another", &wire.path())), Err(Some(Code::NOT_FOUND)));
    assert_eq!(refused(shim.create(&shim.id, Path::new(""))), Err(Some(Code::INVALID_ARGUMENT)));
    assert!(shim.create(&shim.id, Path::new("/run/netns/never-was")).is_err());
    shim.create(&shim.id, &wire.path()).unwrap();
    assert_eq!(refused(shim.create(&shim.id, &wire.path())), Err(Some(Code::ALREADY_EXISTS)));
    assert_eq!(shim.status(), "SANDBOX_NOTREADY");
    let request = sandbox::StartSandboxRequest { sandbox_id: shim.id.clone(), ..Default::default() };
    let pid = shim.sandbox.start_sandbox(with_duration(DEADLINE), &request).unwrap().pid;
    assert_eq!(shim.status(), "SANDBOX_READY");
    let request = sandbox::PlatformRequest { sandbox_id: shim.id.clone(), ..Default::default() };
    let platform = shim.sandbox.platform(with_duration(AT_ONCE), &request).unwrap().platform.unwrap();
    assert_eq!((platform.os.as_str(), platform.architecture.as_str()), ("linux", "amd64"));

    // Its containers have its names, its network and its memory.
    let script =
        "hostname; cat /etc/hostname /etc/resolv.conf; cat /etc/hosts | head -n 1; echo kept > /dev/shm/one;
        ls /sys/class/net; cat /proc/sys/kernel/random/boot_id";
    let first = shim.run(pid, "first", script);
    let (told, boot) = first.trim_end().rsplit_once('\n').unwrap();
    assert_eq!(told, "web\nweb\nnameserver 192.0.2.53\n127.0.0.1\tlocalhost\neth0\nlo");
    let second = shim.run(pid, "second", "cat /dev/shm/one /proc/sys/kernel/random/boot_id");
    assert_eq!(second, format!("kept\n{boot}\n"));

    // Its containers come and go, and it stays.
    let request = ShutdownRequest { id: shim.id.clone(), ..Default::default() };
    shim.task.shutdown(with_duration(AT_ONCE), &request).unwrap();
    let request = sandbox::PingRequest { sandbox_id: shim.id.clone(), ..Default::default() };
    shim.sandbox.ping_sandbox(with_duration(AT_ONCE), &request).unwrap();
    let request = sandbox::SandboxMetricsRequest { sandbox_id: shim.id.clone(), ..Default::default() };
    let metrics = shim.sandbox.sandbox_metrics(with_duration(AT_ONCE), &request).unwrap().metrics.unwrap();
    assert_eq!(metrics.data.unwrap().type_url, "io.containerd.cgroups.v2.Metrics");

    let last = shim.started(pid, "last", "sleep 1000");
    let request = KillRequest { id: last.clone(), signal: 9, ..Default::default() };
    shim.task.kill(with_duration(AT_ONCE), &request).unwrap();
    let request = WaitRequest { id: last.clone(), ..Default::default() };
    assert_eq!(shim.task.wait(with_duration(AT_ONCE), &request).unwrap().exit_status, 137);
    shim.delete(&last);
    assert_eq!(shim.status(), "SANDBOX_READY");
    shim.stop();
    assert_eq!((shim.wait(), shim.status().as_str()), (137, "SANDBOX_NOTREADY"));
    shim.stop();
    shim.end();
}

#[test]
fn a_pod_whose_vmm_dies_is_not_ready_and_can_be_removed() {
    let host = TestHost::new();
    let wire = Wire::new();
    let shim = PodShim::start(&host);
    shim.create(&shim.id, &wire.path()).unwrap();
    let request = sandbox::StartSandboxRequest { sandbox_id: shim.id.clone(), ..Default::default() };
    let pid = shim.sandbox.start_sandbox(with_duration(DEADLINE), &request).unwrap().pid;
    let container = shim.started(pid, "one", "sleep 1000");
    let vmm = process("bulkhead-vmm", &[], &shim.id).expect("the VMM");
    kill(Pid::from_raw(vmm.cast_signed()), Signal::SIGKILL).unwrap();
    assert_eq!(shim.wait(), 137);
    assert_eq!(shim.status(), "SANDBOX_NOTREADY");
    let request = WaitRequest { id: container.clone(), ..Default::default() };
    assert_eq!(shim.task.wait(with_duration(AT_ONCE), &request).unwrap().exit_status, 137);
    shim.delete(&container);
    shim.stop();
    shim.end();
}
