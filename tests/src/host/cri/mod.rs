//! containerd with Kubernetes' Container Runtime Interface, Bulkhead as its runtime and runc beside it, and what the kubelet would call.
//!
//!   Cri ──curl (gRPC)─▶ containerd, CRI plugin ──▶ containerd-shim-bulkhead-v2 ─▶ a microVM per pod
//!                           └─▶ CNI: `plugin.sh`, a veth pair per pod
//!
//! The only image is busybox and the probe, imported from an archive that is made here; the pause container is of it too.

mod client;

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
};

use protobuf::{EnumOrUnknown, Message, MessageField};
use serde_json::json;

use super::{
    Containerd, DEADLINE, RUNTIME, Release,
    engine::{ENGINE_DEADLINE, archive},
    finish, found, process, trace, until,
};
use crate::lab::newer::Suite;
pub use client::{Client, Refusal};

mod generated {
    #![allow(clippy::all, clippy::pedantic, clippy::undocumented_unsafe_blocks, clippy::unwrap_used)]
    #![allow(missing_debug_implementations, unreachable_pub, unused_imports)]
    include!(concat!(env!("OUT_DIR"), "/cri/mod.rs"));
}
/// The messages.
pub use generated::cri as api;

/// The CRI plugin's own, for all its containers.
const NAMESPACE: &str = "k8s.io";
/// The name of `image`.
pub const IMAGE: &str = "bulkhead.test/probe:1";
/// What pods name as their RuntimeClass's handler.
pub const HANDLER: &str = "bulkhead";
/// To compare with.
pub const RUNC: &str = "runc";
/// Bulkhead with containerd's sandbox service, of containerd 2.
const BY_SANDBOX_SERVICE: &str = "bulkhead-pod";

/// The daemon and its pods go when it is dropped.
#[derive(Debug)]
pub struct Cri {
    containerd: Containerd,
    client: Client,
    /// Of the pods.
    handler: &'static str,
    pods: Mutex<Vec<Pod>>,
}

/// A pod that runs.
#[derive(Debug, Clone)]
pub struct Pod {
    /// Of its sandbox, which is also that of its pause container.
    pub id: String,
    config: api::PodSandboxConfig,
}

impl Cri {
    /// containerd 1.6.
    pub fn new() -> Self {
        Self::of(Release::Installed, HANDLER)
    }

    /// containerd 2, with a pause container in each pod.
    pub fn newest() -> Self {
        Self::of(Release::Of(Suite::Forky), HANDLER)
    }

    /// containerd 2, which has the shim make the pods.
    pub fn by_sandbox_service() -> Self {
        Self::of(Release::Of(Suite::Forky), BY_SANDBOX_SERVICE)
    }

    fn of(release: Release, handler: &'static str) -> Self {
        let containerd = Containerd::configured(release, Some(NAMESPACE), |dir| {
            write_network(dir);
            configuration(dir, handler == BY_SANDBOX_SERVICE)
        });
        let client = Client::new(containerd.socket(), containerd.dir().to_owned());
        let cri = Self { containerd, client, handler, pods: Mutex::default() };
        cri.import();
        cri
    }

    fn import(&self) {
        let image = image(self.dir());
        let image = image.to_string_lossy();
        self.containerd.output(["images", "import", &image]).success();
        let request = api::ImageStatusRequest {
            image: MessageField::some(api::ImageSpec { image: IMAGE.to_owned(), ..Default::default() }),
            ..Default::default()
        };
        until("the image is known", DEADLINE, || {
            let status: Result<api::ImageStatusResponse, _> =
                self.client.call("ImageService", "ImageStatus", &request);
            status.ok().filter(|status| status.image.is_some())
        });
    }

    /// A directory for files of the test itself.
    pub fn dir(&self) -> &Path {
        self.containerd.dir()
    }

    /// For the `--runtime-endpoint` of crictl.
    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.containerd.socket().display())
    }

    /// What containerd has logged.
    pub fn log(&self) -> String {
        self.containerd.log()
    }

    /// Kills containerd, and starts it again on what it has left, and on what has happened meanwhile.
    pub fn restart_after(&mut self, meanwhile: impl FnOnce()) {
        self.containerd.restart_after(meanwhile);
        until("the CRI plugin answers", DEADLINE, || {
            let version: Result<api::Empty, _> = self.call("Version", &api::Empty::new());
            version.ok()
        });
    }

    fn call<A: Message>(&self, method: &str, request: &impl Message) -> Result<A, Refusal> {
        self.client.call("RuntimeService", method, request)
    }

    /// The configuration of a pod with a network of its own.
    pub fn pod_config(&self, name: &str) -> api::PodSandboxConfig {
        let uid = format!("{name}-{}", self.dir().file_name().unwrap_or_default().to_string_lossy());
        let metadata = api::PodSandboxMetadata {
            name: name.to_owned(),
            namespace: "default".to_owned(),
            uid: uid.clone(),
            ..Default::default()
        };
        let linux =
            api::LinuxPodSandboxConfig { cgroup_parent: format!("/kubepods/{uid}"), ..Default::default() };
        api::PodSandboxConfig {
            metadata: MessageField::some(metadata),
            hostname: name.to_owned(),
            log_directory: self.dir().join("logs").to_string_lossy().into_owned(),
            linux: MessageField::some(linux),
            ..Default::default()
        }
    }

    /// # Errors
    /// As containerd says them.
    pub fn run_pod(&self, config: api::PodSandboxConfig) -> Result<Pod, Refusal> {
        self.run_pod_by(self.handler, config)
    }

    /// With the runtime of a handler.
    ///
    /// # Errors
    /// As containerd says them.
    pub fn run_pod_by(&self, handler: &str, config: api::PodSandboxConfig) -> Result<Pod, Refusal> {
        let request = api::RunPodSandboxRequest {
            config: MessageField::some(config.clone()),
            runtime_handler: handler.to_owned(),
            ..Default::default()
        };
        let run: api::RunPodSandboxResponse = self.call("RunPodSandbox", &request)?;
        let pod = Pod { id: run.pod_sandbox_id, config };
        self.pods.lock().unwrap_or_else(PoisonError::into_inner).push(pod.clone());
        Ok(pod)
    }

    /// A pod of this name that runs.
    pub fn pod(&self, name: &str) -> Pod {
        let config = self.pod_config(name);
        self.run_pod(config).unwrap_or_else(|refusal| panic!("{refusal:?}\n{}", self.log()))
    }

    pub fn pod_status(&self, pod: &Pod) -> api::PodSandboxStatus {
        let status: Result<api::PodSandboxStatusResponse, _> = self.call("PodSandboxStatus", &of_pod(pod));
        status.expect("the status of a pod").status.unwrap_or_default()
    }

    pub fn pod_is_ready(&self, pod: &Pod) -> bool {
        self.pod_status(pod).state == EnumOrUnknown::new(api::PodSandboxState::SANDBOX_READY)
    }

    /// Stops and removes it.
    pub fn remove_pod(&self, pod: &Pod) {
        for method in ["StopPodSandbox", "RemovePodSandbox"] {
            let done: Result<api::Empty, _> = self.call(method, &of_pod(pod));
            done.unwrap_or_else(|refusal| panic!("{method}: {refusal:?}\n{}", self.log()));
        }
        self.pods.lock().unwrap_or_else(PoisonError::into_inner).retain(|kept| kept.id != pod.id);
    }

    /// Of the process on the host that stands for a container.
    pub fn pid(&self, container: &str) -> String {
        let tasks = self.containerd.output(["task", "list"]).success();
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let task = tasks.lines().map(words).find(|words| words.first().is_some_and(|id| id == container));
        task.and_then(|words| words.into_iter().nth(1)).expect("a task")
    }

    /// Kills the process that holds a pod.
    pub fn end_pause(&self, pod: &Pod) {
        self.containerd.output(["task", "kill", "--signal=KILL", &pod.id]).success();
    }

    /// Makes a container, and does not start it: its id.
    ///
    /// # Errors
    /// As containerd says them.
    pub fn create(&self, pod: &Pod, config: api::ContainerConfig) -> Result<String, Refusal> {
        let request = api::CreateContainerRequest {
            pod_sandbox_id: pod.id.clone(),
            config: MessageField::some(config),
            sandbox_config: MessageField::some(pod.config.clone()),
            ..Default::default()
        };
        self.call("CreateContainer", &request)
            .map(|created: api::CreateContainerResponse| created.container_id)
    }

    /// # Errors
    /// As containerd says them.
    pub fn start(&self, container: &str) -> Result<(), Refusal> {
        self.call("StartContainer", &of(container)).map(|_: api::Empty| ())
    }

    /// A container that runs.
    pub fn started(&self, pod: &Pod, config: api::ContainerConfig) -> String {
        let started = self.create(pod, config).and_then(|id| self.start(&id).map(|()| id));
        started.unwrap_or_else(|refusal| panic!("{refusal:?}\n{}", self.log()))
    }

    pub fn status(&self, container: &str) -> api::ContainerStatus {
        let status: Result<api::ContainerStatusResponse, _> = self.call("ContainerStatus", &of(container));
        status.expect("the status of a container").status.unwrap_or_default()
    }

    /// Waits for its end.
    pub fn exited(&self, container: &str) -> api::ContainerStatus {
        let ended = EnumOrUnknown::new(api::ContainerState::CONTAINER_EXITED);
        until("the container has exited", DEADLINE, || {
            Some(self.status(container)).filter(|status| status.state == ended)
        })
    }

    /// # Errors
    /// As containerd says them.
    pub fn exec(&self, container: &str, cmd: &[&str]) -> Result<api::ExecSyncResponse, Refusal> {
        self.exec_within(container, cmd, 0)
    }

    /// The same, with a deadline in seconds, 0 for none.
    ///
    /// # Errors
    /// As containerd says them.
    pub fn exec_within(
        &self,
        container: &str,
        cmd: &[&str],
        timeout: i64,
    ) -> Result<api::ExecSyncResponse, Refusal> {
        let request = api::ExecSyncRequest {
            container_id: container.to_owned(),
            timeout,
            cmd: cmd.iter().map(|&word| word.to_owned()).collect(),
            ..Default::default()
        };
        self.call("ExecSync", &request)
    }

    /// What a command in the container prints, which must succeed.
    pub fn seen(&self, container: &str, cmd: &[&str]) -> String {
        let done = self.exec(container, cmd).unwrap_or_else(|refusal| panic!("{refusal:?}\n{}", self.log()));
        let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert_eq!(done.exit_code, 0, "{out}\n{err}");
        out.into_owned()
    }

    /// Asks it to end, and kills it after `timeout` seconds.
    pub fn stop(&self, container: &str, timeout: i64) {
        let request =
            api::StopContainerRequest { container_id: container.to_owned(), timeout, ..Default::default() };
        let stopped: Result<api::Empty, _> = self.call("StopContainer", &request);
        stopped.unwrap_or_else(|refusal| panic!("{refusal:?}\n{}", self.log()));
    }

    pub fn remove(&self, container: &str) {
        let removed: Result<api::Empty, _> = self.call("RemoveContainer", &of(container));
        removed.unwrap_or_else(|refusal| panic!("{refusal:?}\n{}", self.log()));
    }

    /// # Errors
    /// As containerd says them.
    pub fn update(&self, container: &str, resources: api::LinuxContainerResources) -> Result<(), Refusal> {
        let request = api::UpdateContainerResourcesRequest {
            container_id: container.to_owned(),
            linux: MessageField::some(resources),
            ..Default::default()
        };
        self.call("UpdateContainerResources", &request).map(|_: api::Empty| ())
    }

    pub fn stats(&self, container: &str) -> api::ContainerStats {
        let stats: Result<api::ContainerStatsResponse, _> = self.call("ContainerStats", &of(container));
        stats.expect("the stats of a container").stats.unwrap_or_default()
    }

    /// Of all containers of a pod.
    pub fn all_stats(&self, pod: &Pod) -> Vec<api::ContainerStats> {
        let filter = api::ContainerStatsFilter { pod_sandbox_id: pod.id.clone(), ..Default::default() };
        let request =
            api::ListContainerStatsRequest { filter: MessageField::some(filter), ..Default::default() };
        let stats: Result<api::ListContainerStatsResponse, _> = self.call("ListContainerStats", &request);
        stats.expect("the stats of a pod").stats
    }

    /// What a server in a pod answers to the host.
    pub fn fetch(&self, url: &str) -> String {
        finish(Command::new("curl").args(["--silent", "--show-error", url]), b"", DEADLINE).success()
    }

    /// Panics when anything on the machine still belongs to a pod that has been removed.
    pub fn assert_no_trace_of(&self, pod: &Pod) {
        until("the shim is gone", DEADLINE, || {
            process("bulkhead", &["serve"], &pod.id).is_none().then_some(())
        });
        let uid = &pod.config.metadata.uid;
        let mut left = trace::of(&pod.id, &self.containerd.state());
        // Its cgroup is the kubelet's to remove, and all in it the runtime's.
        let cgroup = Path::new("/sys/fs/cgroup/kubepods").join(uid);
        left.extend(
            trace::of(uid, &self.containerd.state()).into_iter().filter(|found| !found.ends_with(&**uid)),
        );
        let children = fs::read_dir(cgroup).into_iter().flatten().flatten();
        let children = children.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        left.extend(children.map(|entry| format!("cgroup {}", entry.path().display())));
        let sockets = fs::read_dir("/run/containerd/bulkhead/s").into_iter().flatten().flatten();
        let sockets = sockets.map(|entry| format!("socket {}", entry.path().display()));
        left.extend(sockets.filter(|socket| socket.contains(&pod.id)));
        if self.pods.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
            // This thread's mounts are those of this containerd.
            left.extend(found::mounts().into_iter().filter(|mount| mount.contains("/netns/cni-")));
        }
        assert!(left.is_empty(), "left behind by a pod:\n{}", left.join("\n"));
    }

    /// What a container has written, as the kubelet finds it: a time, a stream and a tag before each line.
    pub fn container_log(&self, name: &str) -> String {
        fs::read_to_string(self.dir().join("logs").join(format!("{name}.log"))).unwrap_or_default()
    }
}

impl Default for Cri {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Cri {
    fn drop(&mut self) {
        for pod in &*self.pods.lock().unwrap_or_else(PoisonError::into_inner) {
            for method in ["StopPodSandbox", "RemovePodSandbox"] {
                let _: Result<api::Empty, _> = self.call(method, &of_pod(pod));
            }
        }
    }
}

fn of_pod(pod: &Pod) -> api::PodSandboxRequest {
    api::PodSandboxRequest { pod_sandbox_id: pod.id.clone(), ..Default::default() }
}

fn of(container: &str) -> api::ContainerRequest {
    api::ContainerRequest { container_id: container.to_owned(), ..Default::default() }
}

/// As a pod has them whose manifest says nothing of them.
fn namespaces() -> api::NamespaceOption {
    api::NamespaceOption { pid: api::NamespaceMode::CONTAINER.into(), ..Default::default() }
}

fn no_huge_pages(page_size: &str) -> api::HugepageLimit {
    api::HugepageLimit { page_size: page_size.to_owned(), ..Default::default() }
}

fn owned((key, value): (&str, &str)) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

/// A container that runs these words, with what the kubelet gives to each that has no requests and no limits.
pub fn container(name: &str, words: &[&str]) -> api::ContainerConfig {
    let paths = |paths: &[&str]| paths.iter().map(|&path| path.to_owned()).collect();
    let context = api::LinuxContainerSecurityContext {
        namespace_options: MessageField::some(namespaces()),
        masked_paths: paths(&[
            "/proc/acpi",
            "/proc/kcore",
            "/proc/keys",
            "/proc/timer_list",
            "/sys/firmware",
        ]),
        readonly_paths: paths(&["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]),
        ..Default::default()
    };
    let resources = api::LinuxContainerResources {
        cpu_period: 100_000,
        cpu_shares: 2,
        oom_score_adj: 1000,
        hugepage_limits: ["2MB", "1GB"].map(no_huge_pages).to_vec(),
        unified: [("memory.oom.group", "1"), ("memory.swap.max", "0")].map(owned).into(),
        ..Default::default()
    };
    let linux = api::LinuxContainerConfig {
        resources: MessageField::some(resources),
        security_context: MessageField::some(context),
        ..Default::default()
    };
    let metadata = api::ContainerMetadata { name: name.to_owned(), ..Default::default() };
    api::ContainerConfig {
        metadata: MessageField::some(metadata),
        image: MessageField::some(api::ImageSpec { image: IMAGE.to_owned(), ..Default::default() }),
        command: words.iter().map(|&word| word.to_owned()).collect(),
        log_path: format!("{name}.log"),
        linux: MessageField::some(linux),
        ..Default::default()
    }
}

fn configuration(dir: &Path, by_sandbox_service: bool) -> String {
    let tables = format!(
        "[plugins.\"io.containerd.internal.v1.opt\"]\npath = {opt:?}\n\
         [plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = {IMAGE:?}\n\
         [plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = {bin:?}\nconf_dir = {conf:?}\n\
         [plugins.\"io.containerd.grpc.v1.cri\".containerd]\ndefault_runtime_name = {HANDLER:?}\n\
         [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.{HANDLER}]\nruntime_type = {RUNTIME:?}\n\
         [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.{RUNC}]\n\
         runtime_type = \"io.containerd.runc.v2\"\n",
        opt = dir.join("opt"),
        bin = dir.join("cni/bin"),
        conf = dir.join("cni/conf"),
    );
    if !by_sandbox_service {
        return tables;
    }
    tables
        + &format!(
            "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.{BY_SANDBOX_SERVICE}]\n\
             runtime_type = {RUNTIME:?}\nsandboxer = \"shim\"\n"
        )
}

/// Pods' addresses are of this test alone.
fn write_network(dir: &Path) {
    static COUNT: AtomicU8 = AtomicU8::new(0);
    let prefix = format!("10.79.{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let (bin, conf) = (dir.join("cni/bin"), dir.join("cni/conf"));
    for made in [&bin, &conf, &dir.join("logs")] {
        fs::create_dir_all(made).expect("a directory");
    }
    let plugin = bin.join("e2e-wire");
    fs::write(&plugin, include_str!("plugin.sh")).expect("the plugin");
    fs::set_permissions(&plugin, fs::Permissions::from_mode(0o755)).expect("chmod");
    symlink("e2e-wire", bin.join("loopback")).expect("link the plugin");
    let network = json!({ "cniVersion": "0.3.1", "name": prefix, "plugins": [{ "type": "e2e-wire" }] });
    fs::write(conf.join("10-e2e.conflist"), network.to_string()).expect("the network");
}

/// The image as an archive of docker's form, made in a directory.
pub fn image(dir: &Path) -> PathBuf {
    let layer = archive(dir);
    // For runc, which runs it; a microVM needs none.
    fs::write(dir.join("pause"), "#!/bin/sh\nexec sleep 1000000\n").expect("the pause program");
    let mut add = Command::new("tar");
    add.arg("-rf").arg(&layer).arg("-C").arg(dir).args(["--mode=755", "pause"]);
    finish(&mut add, b"", ENGINE_DEADLINE).success();
    let sum = finish(Command::new("sha256sum").arg(&layer), b"", ENGINE_DEADLINE).success();
    let digest = sum.split(' ').next().unwrap_or_default();
    let config = json!({
        "architecture": "amd64", "os": "linux",
        // As the usual pause image has it.
        "config": { "Env": ["PATH=/bin"], "Entrypoint": ["/pause"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] },
    });
    let manifest = json!([{ "Config": "config.json", "RepoTags": [IMAGE], "Layers": ["image.tar"] }]);
    fs::write(dir.join("config.json"), config.to_string()).expect("the image's configuration");
    fs::write(dir.join("manifest.json"), manifest.to_string()).expect("the image's manifest");
    let image = dir.join("probe.tar");
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(dir).arg("-cf").arg(&image).args(["manifest.json", "config.json", "image.tar"]);
    finish(&mut tar, b"", ENGINE_DEADLINE).success();
    image
}
