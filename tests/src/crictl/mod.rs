//! `crictl` for tests: the part of its command line that this project's pages use, with what it prints. Debian has no package of it.
//!
//! ```text
//!  crictl ─gRPC by curl─▶ a runtime (host::cri::Client)
//!         ─SPDY─────────▶ the address that the runtime gives (spdy): exec and attach (streams), port-forward (forward)
//! ```
//!
//! Configurations are JSON. A field that `proto/cri.proto` does not have is an error.

pub mod forward;
pub mod spdy;
pub mod streams;
mod tables;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::{Parser, Subcommand};
use protobuf::{MessageField, MessageFull};

use crate::host::{CriClient as Client, Refusal, cri_api as api};
use forward::{ForwardError, Ports};
use streams::{StreamsError, Wanted};

#[derive(Debug, thiserror::Error)]
pub enum CrictlError {
    #[error("{what}: rpc error: code = {code} desc = {message}")]
    Refused { what: &'static str, code: u32, message: String },
    #[error("load {}", path.display())]
    Load { path: PathBuf, source: io::Error },
    #[error("load {}", path.display())]
    Parse { path: PathBuf, source: protobuf_json_mapping::ParseError },
    #[error("execing command in container {id}")]
    Exec { id: String, source: StreamsError },
    #[error("attaching running container failed")]
    Attach(#[source] StreamsError),
    #[error("port forward")]
    Forward(#[source] ForwardError),
}

/// Client for CRI.
#[derive(Debug, Parser)]
#[command(name = "crictl")]
pub struct Cli {
    /// Endpoint of CRI container runtime service
    #[arg(
        short,
        long,
        env = "CONTAINER_RUNTIME_ENDPOINT",
        default_value = "unix:///run/containerd/containerd.sock"
    )]
    runtime_endpoint: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Pull an image from a registry
    Pull { image: String },
    /// Run a new pod
    Runp {
        /// Runtime handler to use
        #[arg(short, long, default_value = "")]
        runtime: String,
        pod: PathBuf,
    },
    /// Create a new container
    Create { pod: String, container: PathBuf, pod_config: PathBuf },
    /// Start one or more created containers
    Start { ids: Vec<String> },
    /// Run a command in a running container
    Exec {
        #[arg(short, long)]
        interactive: bool,
        #[arg(short, long)]
        tty: bool,
        id: String,
        #[arg(trailing_var_arg = true, required = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Attach to a running container
    Attach {
        #[arg(short = 'i', long)]
        stdin: bool,
        #[arg(short, long)]
        tty: bool,
        id: String,
    },
    /// Forward local port to a pod
    PortForward { pod: String, ports: Ports },
    /// Fetch the logs of a container
    Logs { id: String },
    /// List containers
    Ps {
        /// Show all containers
        #[arg(short, long)]
        all: bool,
        /// Only display container IDs
        #[arg(short, long)]
        quiet: bool,
    },
    /// List pods
    Pods {
        /// Show only pod IDs
        #[arg(short, long)]
        quiet: bool,
    },
    /// Stop one or more running containers
    Stop {
        /// Seconds to wait to kill the container
        #[arg(short, long, default_value_t = 0)]
        timeout: i64,
        ids: Vec<String>,
    },
    /// Remove one or more containers
    Rm { ids: Vec<String> },
    /// Stop one or more running pods
    Stopp { ids: Vec<String> },
    /// Remove one or more pods
    Rmp { ids: Vec<String> },
}

/// A runtime, and what its errors begin with.
#[derive(Debug)]
struct Runtime(Client);

impl Runtime {
    fn call<A: MessageFull>(
        &self,
        method: &str,
        what: &'static str,
        request: &impl MessageFull,
    ) -> Result<A, CrictlError> {
        let refused = |Refusal { code, message }| CrictlError::Refused { what, code, message };
        self.0.call("RuntimeService", method, request).map_err(refused)
    }

    /// The address of a streaming server.
    fn streams(
        &self,
        method: &str,
        what: &'static str,
        request: &impl MessageFull,
    ) -> Result<String, CrictlError> {
        self.call(method, what, request).map(|answer: api::StreamingResponse| answer.url)
    }
}

/// Does what the command line says.
///
/// # Errors
/// As crictl says them, after `FATA` or `level=fatal`.
pub fn run(cli: Cli) -> Result<(), CrictlError> {
    let socket = cli.runtime_endpoint.trim_start_matches("unix://").into();
    let runtime = Runtime(Client::new(socket, std::env::temp_dir()));
    match cli.command {
        Command::Pull { image } => pull(&runtime, image),
        Command::Runp { runtime: handler, pod } => {
            let config: api::PodSandboxConfig = loaded(&pod)?;
            let request = api::RunPodSandboxRequest {
                config: MessageField::some(config),
                runtime_handler: handler,
                ..Default::default()
            };
            let run: api::RunPodSandboxResponse =
                runtime.call("RunPodSandbox", "run pod sandbox", &request)?;
            println!("{}", run.pod_sandbox_id);
            Ok(())
        }
        Command::Create { pod, container, pod_config } => {
            let request = api::CreateContainerRequest {
                pod_sandbox_id: pod,
                config: MessageField::some(loaded(&container)?),
                sandbox_config: MessageField::some(loaded(&pod_config)?),
                ..Default::default()
            };
            let created: api::CreateContainerResponse =
                runtime.call("CreateContainer", "creating container", &request)?;
            println!("{}", created.container_id);
            Ok(())
        }
        Command::Start { ids } => each(ids, "", |id| start(&runtime, id)),
        Command::Exec { interactive, tty, id, words } => {
            exec(&runtime, id, words, Wanted { stdin: interactive, tty })
        }
        Command::Attach { stdin, tty, id } => attach(&runtime, id, Wanted { stdin, tty }),
        Command::PortForward { pod, ports } => {
            let request = api::PortForwardRequest { pod_sandbox_id: pod, ..Default::default() };
            let url = runtime.streams("PortForward", "port forward", &request)?;
            forward::forward(&url, ports).map_err(CrictlError::Forward)
        }
        Command::Logs { id } => logs(&runtime, id),
        Command::Ps { all, quiet } => {
            let listed: api::ListContainersResponse =
                runtime.call("ListContainers", "list", &api::Empty::new())?;
            let pods: api::ListPodSandboxResponse =
                runtime.call("ListPodSandbox", "list", &api::Empty::new())?;
            tables::containers(listed.containers, &pods.items, all, quiet);
            Ok(())
        }
        Command::Pods { quiet } => {
            let pods: api::ListPodSandboxResponse =
                runtime.call("ListPodSandbox", "list", &api::Empty::new())?;
            tables::pods(pods.items, quiet);
            Ok(())
        }
        Command::Stop { timeout, ids } => each(ids, "", |container_id| {
            let request = api::StopContainerRequest { container_id, timeout, ..Default::default() };
            runtime.call("StopContainer", "stopping the container", &request).map(|_: api::Empty| ())
        }),
        Command::Rm { ids } => each(ids, "", |container_id| {
            let request = api::ContainerRequest { container_id, ..Default::default() };
            runtime.call("RemoveContainer", "removing the container", &request).map(|_: api::Empty| ())
        }),
        Command::Stopp { ids } => each(ids, "Stopped sandbox ", |pod| {
            runtime.call("StopPodSandbox", "stopping the pod sandbox", &of_pod(pod)).map(|_: api::Empty| ())
        }),
        Command::Rmp { ids } => each(ids, "Removed sandbox ", |pod| {
            runtime.call("RemovePodSandbox", "removing the pod sandbox", &of_pod(pod)).map(|_: api::Empty| ())
        }),
    }
}

/// Does something with each, and says so.
fn each(
    ids: Vec<String>,
    said: &str,
    mut work: impl FnMut(String) -> Result<(), CrictlError>,
) -> Result<(), CrictlError> {
    for id in ids {
        work(id.clone())?;
        println!("{said}{id}");
    }
    Ok(())
}

fn of_pod(pod_sandbox_id: String) -> api::PodSandboxRequest {
    api::PodSandboxRequest { pod_sandbox_id, ..Default::default() }
}

fn loaded<M: MessageFull>(path: &Path) -> Result<M, CrictlError> {
    let load = |source| CrictlError::Load { path: path.to_owned(), source };
    let text = fs::read_to_string(path).map_err(load)?;
    protobuf_json_mapping::parse_from_str(&text)
        .map_err(|source| CrictlError::Parse { path: path.to_owned(), source })
}

fn pull(runtime: &Runtime, image: String) -> Result<(), CrictlError> {
    let image = api::ImageSpec { image, ..Default::default() };
    let request = api::PullImageRequest { image: MessageField::some(image), ..Default::default() };
    let refused = |Refusal { code, message }| CrictlError::Refused { what: "pulling image", code, message };
    let pulled: Result<api::PullImageResponse, _> = runtime.0.call("ImageService", "PullImage", &request);
    println!("Image is up to date for {}", pulled.map_err(refused)?.image_ref);
    Ok(())
}

fn start(runtime: &Runtime, container_id: String) -> Result<(), CrictlError> {
    let request = api::ContainerRequest { container_id, ..Default::default() };
    runtime.call("StartContainer", "starting the container", &request).map(|_: api::Empty| ())
}

fn exec(runtime: &Runtime, id: String, cmd: Vec<String>, wanted: Wanted) -> Result<(), CrictlError> {
    let request = api::ExecRequest {
        container_id: id.clone(),
        cmd,
        tty: wanted.tty,
        stdin: wanted.stdin,
        stdout: true,
        stderr: !wanted.tty,
        ..Default::default()
    };
    let url = runtime.streams("Exec", "exec", &request)?;
    streams::copy(&url, wanted).map_err(|source| CrictlError::Exec { id, source })
}

fn attach(runtime: &Runtime, container_id: String, wanted: Wanted) -> Result<(), CrictlError> {
    let request = api::AttachRequest {
        container_id,
        tty: wanted.tty,
        stdin: wanted.stdin,
        stdout: true,
        stderr: !wanted.tty,
        ..Default::default()
    };
    let url = runtime.streams("Attach", "attach", &request)?;
    streams::copy(&url, wanted).map_err(CrictlError::Attach)
}

/// Prints what the kubelet's form has after the time, the stream and the tag of each line.
fn logs(runtime: &Runtime, container_id: String) -> Result<(), CrictlError> {
    let request = api::ContainerRequest { container_id, ..Default::default() };
    let status: api::ContainerStatusResponse =
        runtime.call("ContainerStatus", "getting container status", &request)?;
    let path = PathBuf::from(status.status.unwrap_or_default().log_path);
    let text = fs::read_to_string(&path).map_err(|source| CrictlError::Load { path, source })?;
    for line in text.lines() {
        let mut parts = line.splitn(4, ' ');
        let (_, stream, tag) = (parts.next(), parts.next(), parts.next());
        let said = parts.next().unwrap_or_default();
        let end = if tag == Some("P") { "" } else { "\n" };
        match stream {
            Some("stderr") => eprint!("{said}{end}"),
            _ => print!("{said}{end}"),
        }
    }
    Ok(())
}
