//! containerd with Kubernetes' Container Runtime Interface, Bulkhead as its only runtime, and what the kubelet would call.
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
    sync::atomic::{AtomicU8, Ordering},
};

use protobuf::{EnumOrUnknown, Message, MessageField};
use serde_json::json;

use super::{
    Containerd, DEADLINE, Finished, RUNTIME,
    engine::{ENGINE_DEADLINE, archive},
    finish, until,
};
use client::Client;
pub use client::Refusal;

mod generated {
    #![allow(clippy::all, clippy::pedantic, clippy::undocumented_unsafe_blocks, clippy::unwrap_used)]
    #![allow(missing_debug_implementations, unreachable_pub, unused_imports)]
    include!(concat!(env!("OUT_DIR"), "/cri/mod.rs"));
}
/// The messages.
pub use generated::cri as api;

/// The CRI plugin's own, for all its containers.
const NAMESPACE: &str = "k8s.io";
const IMAGE: &str = "bulkhead.test/probe:1";
/// What pods name as their RuntimeClass's handler.
const HANDLER: &str = "bulkhead";

/// The daemon and its pods go when it is dropped.
#[derive(Debug)]
pub struct Cri {
    containerd: Containerd,
    client: Client,
    pods: Vec<Pod>,
}

/// A pod that runs.
#[derive(Debug, Clone)]
pub struct Pod {
    /// Of its sandbox, which is also that of its pause container.
    pub id: String,
    config: api::PodSandboxConfig,
}

impl Cri {
    pub fn new() -> Self {
        let containerd = Containerd::configured(Some(NAMESPACE), |dir| {
            write_network(dir);
            configuration(dir)
        });
        let client = Client { socket: containerd.socket(), dir: containerd.dir().to_owned() };
        let cri = Self { containerd, client, pods: Vec::new() };
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

    /// What containerd has logged.
    pub fn log(&self) -> String {
        self.containerd.log()
    }

    /// Kills containerd, and starts it again on what it has left.
    pub fn restart(&mut self) {
        self.containerd.restart();
        until("the CRI plugin answers", DEADLINE, || {
            let version: Result<api::Empty, _> = self.call("Version", &api::Empty::new());
            version.ok()
        });
    }

    /// `ctr ARGS`, to its end.
    pub fn ctr<const N: usize>(&self, args: [&str; N]) -> Finished {
        self.containerd.output(args)
    }

    /// Where the shim has the state of all pods of the machine.
    pub fn state(&self) -> PathBuf {
        self.containerd.state()
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
    pub fn run_pod(&mut self, config: api::PodSandboxConfig) -> Result<Pod, Refusal> {
        let request = api::RunPodSandboxRequest {
            config: MessageField::some(config.clone()),
            runtime_handler: HANDLER.to_owned(),
            ..Default::default()
        };
        let run: api::RunPodSandboxResponse = self.call("RunPodSandbox", &request)?;
        let pod = Pod { id: run.pod_sandbox_id, config };
        self.pods.push(pod.clone());
        Ok(pod)
    }

    /// A pod of this name that runs.
    pub fn pod(&mut self, name: &str) -> Pod {
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
    pub fn remove_pod(&mut self, pod: &Pod) {
        for method in ["StopPodSandbox", "RemovePodSandbox"] {
            let done: Result<api::Empty, _> = self.call(method, &of_pod(pod));
            done.unwrap_or_else(|refusal| panic!("{method}: {refusal:?}\n{}", self.log()));
        }
        self.pods.retain(|kept| kept.id != pod.id);
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
        let request = api::ExecSyncRequest {
            container_id: container.to_owned(),
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
        for pod in &self.pods {
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

/// A container that runs these words.
pub fn container(name: &str, words: &[&str]) -> api::ContainerConfig {
    let metadata = api::ContainerMetadata { name: name.to_owned(), ..Default::default() };
    api::ContainerConfig {
        metadata: MessageField::some(metadata),
        image: MessageField::some(api::ImageSpec { image: IMAGE.to_owned(), ..Default::default() }),
        command: words.iter().map(|&word| word.to_owned()).collect(),
        log_path: format!("{name}.log"),
        linux: MessageField::some(api::LinuxContainerConfig::default()),
        ..Default::default()
    }
}

fn configuration(dir: &Path) -> String {
    format!(
        "[plugins.\"io.containerd.internal.v1.opt\"]\npath = {opt:?}\n\
         [plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = {IMAGE:?}\n\
         [plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = {bin:?}\nconf_dir = {conf:?}\n\
         [plugins.\"io.containerd.grpc.v1.cri\".containerd]\ndefault_runtime_name = {HANDLER:?}\n\
         [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.{HANDLER}]\nruntime_type = {RUNTIME:?}\n",
        opt = dir.join("opt"),
        bin = dir.join("cni/bin"),
        conf = dir.join("cni/conf"),
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

/// The image as an archive of docker's form.
fn image(dir: &Path) -> PathBuf {
    let layer = archive(dir);
    let sum = finish(Command::new("sha256sum").arg(&layer), b"", ENGINE_DEADLINE).success();
    let digest = sum.split(' ').next().unwrap_or_default();
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": { "Env": ["PATH=/bin"], "Cmd": ["/bin/sleep", "1000000"] },
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
