//! The containers of one daemon, from their creation to their deletion. The pod's microVM is the sandbox server's.
//!
//!   create ─▶ mounts, streams, `bulkhead create` ─▶ the proxy's exit is waited for ─▶ exec exits, OOM, exit: in this order
//!   exec ─▶ kept ─▶ start ─▶ `bulkhead exec --detach` ─▶ its proxy's exit is waited for
//!
//! An exit is the proxy's, which has delivered all output by then. When nobody takes the output, the server's word is enough.

mod execs;
mod watch;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bulkhead_protocol::id::{ContainerId, ExecId};
use containerd_shim_protos::{
    api::{Mount, PauseRequest, ResumeRequest},
    events::task::{TaskCreate, TaskDelete, TaskIO, TaskPaused, TaskResumed, TaskStart},
};
use protobuf::MessageFull;
use tokio::task::spawn_blocking;

use self::execs::Exec;
use super::{
    command::{CommandError, Commands, Streams, read_process},
    events::Publisher,
    mounts::{self, MountError},
    place,
    pod::PodError,
    process::{Exit, Held, Phase, Process, lock},
    stdio::{self, Asked, Owner, StdioError},
    terminal::{Console, TerminalError},
};
use crate::{
    api::{
        client::Server,
        container::{Container, RequestError},
    },
    log::note,
    store::{self, StateError},
    time::timestamp,
};

/// For a container to be made: the command has deadlines of its own, which say more.
const CREATED: Duration = Duration::from_secs(300);
const STARTED: Duration = Duration::from_secs(60);
const DELETED: Duration = Duration::from_secs(60);
/// For the last output of a process that has ended to be taken: as long as runc's shim waits.
const DRAINED: Duration = Duration::from_secs(2);
#[derive(Debug, thiserror::Error)]
pub(super) enum TaskError {
    #[error("container {0} exists already")]
    Exists(String),
    #[error("container {0} not found")]
    NoContainer(String),
    #[error("exec {0} not found")]
    NoExec(String),
    #[error("process already finished")]
    Finished,
    #[error("{0}")]
    Phase(&'static str),
    #[error("container {0} has {max} execs", max = execs::MAX)]
    Execs(String),
    #[error(transparent)]
    Pod(#[from] PodError),
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error(transparent)]
    Stdio(#[from] StdioError),
    #[error(transparent)]
    Terminal(#[from] TerminalError),
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("{step}")]
    Io { step: &'static str, source: std::io::Error },
}

fn io(step: &'static str) -> impl FnOnce(std::io::Error) -> TaskError {
    move |source| TaskError::Io { step, source }
}

/// What a container is to containerd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A task.
    Task,
    /// The sandbox of a pod, of which no event of a task tells.
    Sandbox,
}

#[derive(Debug)]
pub(super) struct Task {
    pub(super) id: ContainerId,
    kind: Kind,
    pub(super) bundle: PathBuf,
    pub(super) init: Process,
    execs: Mutex<BTreeMap<ExecId, Arc<Exec>>>,
    ooms: Mutex<u64>,
}

/// What a creation is asked for.
#[derive(Debug)]
pub(super) struct Creation {
    pub(super) id: ContainerId,
    pub(super) kind: Kind,
    pub(super) bundle: PathBuf,
    pub(super) rootfs: Vec<Mount>,
    pub(super) asked: Asked,
    pub(super) systemd_cgroup: bool,
}

#[derive(Debug)]
enum Slot {
    Creating,
    There(Arc<Task>),
}

#[derive(Debug)]
pub(super) struct Tasks {
    commands: Commands,
    publisher: Publisher,
    /// What the pod gives its containers, once it is there.
    pod_files: PathBuf,
    table: Mutex<BTreeMap<ContainerId, Slot>>,
}

impl Tasks {
    pub(super) fn new(commands: Commands, publisher: Publisher, pod_files: PathBuf) -> Arc<Self> {
        Arc::new(Self { commands, publisher, pod_files, table: Mutex::default() })
    }

    /// Tells containerd what has become of a task.
    fn tell<E: MessageFull>(&self, task: &Task, what: &str, event: &E) {
        if task.kind == Kind::Task {
            self.publisher.send(what, event);
        }
    }

    pub(super) fn pod_files(&self) -> &Path {
        &self.pod_files
    }

    pub(super) fn is_empty(&self) -> bool {
        lock(&self.table).is_empty()
    }

    pub(super) fn task(&self, id: &ContainerId) -> Result<Arc<Task>, TaskError> {
        match lock(&self.table).get(id) {
            Some(Slot::There(task)) => Ok(task.clone()),
            Some(Slot::Creating) | None => Err(TaskError::NoContainer(id.to_string())),
        }
    }

    /// Makes a container; its pid on the host.
    pub(super) async fn create(self: Arc<Self>, creation: Creation) -> Result<u32, TaskError> {
        let id = creation.id.clone();
        {
            let mut table = lock(&self.table);
            if table.contains_key(&id) {
                return Err(TaskError::Exists(id.to_string()));
            }
            table.insert(id.clone(), Slot::Creating);
        }
        match self.make(creation).await {
            Ok(task) => {
                let pid = task.init.pid();
                lock(&self.table).insert(id, Slot::There(task.clone()));
                tokio::spawn(self.clone().watch_init(task.clone()));
                tokio::spawn(self.clone().watch_memory(task));
                Ok(pid)
            }
            Err(error) => {
                lock(&self.table).remove(&id);
                Err(error)
            }
        }
    }

    async fn make(&self, creation: Creation) -> Result<Arc<Task>, TaskError> {
        let Creation { id, kind, bundle, rootfs, asked, systemd_cgroup } = creation;
        let target = mounts::rootfs(&bundle);
        let (mounted, at) = (rootfs.clone(), target.clone());
        blocking(move || Ok(mounts::mount_all(&mounted, &at)?)).await?;
        let made = self.make_mounted(&id, kind, &bundle, &asked, systemd_cgroup).await;
        let (proxy, held) = match made {
            Ok(made) => made,
            Err(error) => {
                if !rootfs.is_empty() {
                    let _ = blocking(move || Ok(mounts::unmount_all(&target)?)).await;
                }
                return Err(error);
            }
        };
        let init = Process::new(asked.clone());
        init.is_made(proxy, held);
        let io = TaskIO {
            stdin: asked.stdin,
            stdout: asked.stdout,
            stderr: asked.stderr,
            terminal: asked.terminal,
            ..Default::default()
        };
        let event = TaskCreate {
            container_id: id.to_string(),
            bundle: bundle.to_string_lossy().into_owned(),
            rootfs,
            io: Some(io).into(),
            pid: proxy.pid,
            ..Default::default()
        };
        let task = Task { id, kind, bundle, init, execs: Mutex::default(), ooms: Mutex::default() };
        self.tell(&task, "create", &event);
        Ok(Arc::new(task))
    }

    async fn make_mounted(
        &self,
        id: &ContainerId,
        kind: Kind,
        bundle: &Path,
        asked: &Asked,
        systemd_cgroup: bool,
    ) -> Result<Made, TaskError> {
        let mut arguments: Vec<OsString> = Vec::new();
        let named = bundle.to_owned();
        let wishes = move || place::wishes_of(&named).map_err(io("read the bundle"));
        let wishes = blocking(wishes).await?;
        if systemd_cgroup || wishes.scope {
            arguments.push("--systemd-cgroup".into());
        }
        arguments.extend(["create".into(), "--bundle".into(), bundle.into()]);
        if kind == Kind::Sandbox || wishes.pause {
            arguments.push("--pause".into());
        }
        if kind == Kind::Task && self.pod_files.is_dir() {
            arguments.extend(["--pod-files".into(), self.pod_files.clone().into()]);
        }
        self.run_for(arguments, id, asked, bundle, CREATED).await
    }

    /// Runs a command that makes a process, and takes hold of what stands for it.
    async fn run_for(
        &self,
        mut arguments: Vec<OsString>,
        id: &ContainerId,
        asked: &Asked,
        bundle: &Path,
        patience: Duration,
    ) -> Result<Made, TaskError> {
        let pid_file = tempfile::Builder::new().prefix("bulkhead-").suffix(".pid").tempfile_in(bundle);
        let pid_file = pid_file.map_err(io("make a file for the pid"))?.into_temp_path();
        arguments.extend(["--pid-file".into(), pid_file.as_os_str().to_owned()]);
        let owner = Owner { container: id.as_str(), namespace: &self.commands.namespace };
        let (streams, mut held, console) = if asked.terminal {
            let console = Console::new(asked, owner)?;
            arguments.extend(["--console-socket".into(), console.path().into()]);
            (Streams::none(), Held::default(), Some(console))
        } else {
            let stdio::Opened { streams, input, outputs } = stdio::open(asked, owner)?;
            (streams, Held { input, outputs, terminal: None }, None)
        };
        arguments.push(id.as_str().into());
        self.commands.run(arguments, streams, bundle, patience).await?;
        let proxy = read_process(&pid_file).map_err(io("find the new process"))?;
        if let Some(console) = console {
            let (terminal, outputs) = console.take()?;
            (held.terminal, held.outputs) = (Some(terminal), outputs);
        }
        Ok((proxy, held))
    }

    /// Lets the program of a container run; its pid on the host.
    pub(super) async fn start(self: Arc<Self>, task: Arc<Task>) -> Result<u32, TaskError> {
        match task.init.phase() {
            Phase::Created => {}
            Phase::Running | Phase::Paused => return Err(TaskError::Phase("the container runs already")),
            Phase::Stopped => return Err(TaskError::Phase("the container has stopped")),
        }
        let arguments = vec!["start".into(), task.id.as_str().into()];
        self.commands.run(arguments, Streams::none(), &task.bundle, STARTED).await?;
        task.init.set_phase(Phase::Running);
        let (container_id, pid) = (task.id.to_string(), task.init.pid());
        self.tell(&task, "start", &TaskStart { container_id, pid, ..Default::default() });
        Ok(pid)
    }

    pub(super) async fn kill(
        &self,
        task: Arc<Task>,
        exec: Option<ExecId>,
        signal: u32,
        all: bool,
    ) -> Result<(), TaskError> {
        let phase = match &exec {
            None => task.init.phase(),
            Some(exec) => match task.exec(exec)?.process.phase() {
                // It has nobody to go to yet.
                Phase::Created => Phase::Stopped,
                phase => phase,
            },
        };
        if phase == Phase::Stopped {
            return Err(TaskError::Finished);
        }
        let exec = exec.map_or_else(String::new, |exec| exec.to_string());
        self.with_container(&task, move |container| match container.kill_process(&exec, signal, all) {
            Err(RequestError::Status(_)) => Err(TaskError::Finished),
            other => Ok(other?),
        })
        .await
    }

    pub(super) async fn pause(self: Arc<Self>, task: Arc<Task>) -> Result<(), TaskError> {
        let request = PauseRequest { id: task.id.to_string(), ..Default::default() };
        self.call(&task, async move |server, context| server.task.pause(context, &request).await).await?;
        task.init.set_phase(Phase::Paused);
        let container_id = task.id.to_string();
        self.tell(&task, "paused", &TaskPaused { container_id, ..Default::default() });
        Ok(())
    }

    pub(super) async fn resume(self: Arc<Self>, task: Arc<Task>) -> Result<(), TaskError> {
        let request = ResumeRequest { id: task.id.to_string(), ..Default::default() };
        self.call(&task, async move |server, context| server.task.resume(context, &request).await).await?;
        task.init.set_phase(Phase::Running);
        let container_id = task.id.to_string();
        self.tell(&task, "resumed", &TaskResumed { container_id, ..Default::default() });
        Ok(())
    }

    /// One call to the server of the container's sandbox.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        task: &Arc<Task>,
        call: impl AsyncFnOnce(Server, ttrpc::context::Context) -> Result<T, ttrpc::Error> + Send + 'static,
    ) -> Result<T, TaskError> {
        self.with_container(task, move |container| {
            let answer = container.call(async |server| call(server, crate::api::client::bounded()).await);
            answer.map_err(|error| RequestError::from(error).into())
        })
        .await
    }

    async fn with_container<T: Send + 'static>(
        &self,
        task: &Arc<Task>,
        work: impl FnOnce(&Container) -> Result<T, TaskError> + Send + 'static,
    ) -> Result<T, TaskError> {
        let (root, id) = (self.commands.root.clone(), task.id.clone());
        blocking(move || work(&Container::open(&root, &id)?)).await
    }

    /// Removes a container that has stopped, or was never started: its pid, and its exit when it has one.
    pub(super) async fn delete(self: Arc<Self>, task: Arc<Task>) -> Result<(u32, Option<Exit>), TaskError> {
        if matches!(task.init.phase(), Phase::Running | Phase::Paused) {
            return Err(TaskError::Phase("the container runs: kill it first"));
        }
        // One that still waits for somebody to take output has waited long enough.
        if task.init.phase() == Phase::Stopped
            && let Some(proxy) = task.init.proxy()
            && let Err(error) = blocking(move || end(&proxy, DRAINED)).await
        {
            note(&format!("end the proxy of {}: {error}", task.id));
        }
        let delete = |force: bool| {
            let mut arguments: Vec<OsString> = vec!["delete".into(), task.id.as_str().into()];
            if force {
                arguments.push("--force".into());
            }
            self.commands.run(arguments, Streams::none(), &task.bundle, DELETED)
        };
        if let Err(error) = delete(false).await {
            // Of a sandbox whose containers have all ended, nothing is to be asked.
            note(&format!("delete {}: {error}", task.id));
            delete(true).await?;
        }
        task.init.forget_outputs();
        let target = mounts::rootfs(&task.bundle);
        blocking(move || Ok(mounts::unmount_all(&target)?)).await?;
        let exit = task.init.exit();
        let event = TaskDelete {
            container_id: task.id.to_string(),
            pid: task.init.pid(),
            exit_status: exit.map_or(0, |exit| exit.status.into()),
            exited_at: exit.map(|exit| timestamp(exit.at)).unwrap_or_default(),
            id: task.id.to_string(),
            ..Default::default()
        };
        lock(&self.table).remove(&task.id);
        self.tell(&task, "delete", &event);
        Ok((task.init.pid(), exit))
    }
}

/// Gives a process the time to end by itself, and then none.
fn end(process: &store::Process, patience: Duration) -> Result<(), TaskError> {
    if process.wait(Instant::now() + patience).map_err(io("wait for a process"))? {
        return Ok(());
    }
    process.kill().map_err(io("kill a process"))
}

/// A proxy, and what is held for it.
type Made = (store::Process, Held);

impl Task {
    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// Of the host: one for the container, and one for each exec that runs.
    pub(super) fn pids(&self) -> Vec<u32> {
        let execs = lock(&self.execs);
        let running = execs.values().filter(|exec| exec.process.phase() == Phase::Running);
        std::iter::once(self.init.pid()).chain(running.map(|exec| exec.process.pid())).collect()
    }
}

/// Work that waits for the disk or for a process, off the event loop.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TaskError> + Send + 'static,
) -> Result<T, TaskError> {
    spawn_blocking(work).await.unwrap_or_else(|error| Err(io("run a step")(std::io::Error::other(error))))
}
