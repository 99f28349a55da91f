//! The Task API as containerd calls it, versions 2 and 3: each method checks its request, calls what does it, and wraps the answer.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use bulkhead_protocol::id::{ContainerId, ExecId, IdError};
use bulkhead_sys::chain;
use containerd_shim_protos::{
    api::{
        CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest,
        CreateTaskResponse, DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, KillRequest,
        PauseRequest, PidsRequest, PidsResponse, ProcessInfo, ResizePtyRequest, ResumeRequest,
        ShutdownRequest, StartRequest, StartResponse, StateRequest, StateResponse, StatsRequest,
        StatsResponse, Status as TaskStatus, UpdateTaskRequest, WaitRequest, WaitResponse,
    },
    shim::oci::Options,
    shim_async::Task,
};
use protobuf::{
    EnumOrUnknown, Message as _, MessageField,
    well_known_types::{any::Any, timestamp::Timestamp},
};
use tokio::sync::Notify;
use ttrpc::{Code, asynchronous::TtrpcContext, get_status};

use super::{
    pod::PodError,
    process::{Exit, Phase, Process},
    stdio::Asked,
    tasks::{Creation, Kind, TaskError, Tasks},
};
use crate::{
    api::{
        client::{CallError, Server},
        container::RequestError,
        no_metrics,
    },
    time::timestamp,
};

/// The type of the options that containerd sends when it has none of ours: those of runc.
const RUNC_OPTIONS: &str = "containerd.runc.v1.Options";

pub(super) type Answer<T> = Result<T, ttrpc::Error>;

pub(super) fn refused(code: Code, message: impl Into<String>) -> ttrpc::Error {
    ttrpc::Error::RpcStatus(get_status(code, message.into()))
}

pub(super) fn invalid(error: &IdError) -> ttrpc::Error {
    refused(Code::INVALID_ARGUMENT, error.to_string())
}

impl From<TaskError> for ttrpc::Error {
    fn from(error: TaskError) -> Self {
        let code = match &error {
            TaskError::Exists(_) => Code::ALREADY_EXISTS,
            TaskError::NoContainer(_) | TaskError::NoExec(_) | TaskError::Finished | TaskError::State(_) => {
                Code::NOT_FOUND
            }
            TaskError::Phase(_) => Code::FAILED_PRECONDITION,
            TaskError::Pod(PodError::Io { .. } | PodError::Unmount(_)) => Code::UNKNOWN,
            TaskError::Stdio(_) | TaskError::Pod(_) => Code::INVALID_ARGUMENT,
            TaskError::Execs(_) => Code::RESOURCE_EXHAUSTED,
            TaskError::Request(RequestError::Call(CallError::Refused { code, .. })) => *code,
            TaskError::Mount(_)
            | TaskError::Terminal(_)
            | TaskError::Command(_)
            | TaskError::Request(_)
            | TaskError::Io { .. } => Code::UNKNOWN,
        };
        refused(code, chain(&error))
    }
}

/// What a request is about.
struct Subject {
    container: ContainerId,
    exec: Option<ExecId>,
}

impl Subject {
    fn parse(container: &str, exec: &str) -> Answer<Self> {
        let container = container.parse().map_err(|error| invalid(&error))?;
        let exec = (!exec.is_empty()).then(|| exec.parse().map_err(|error| invalid(&error))).transpose()?;
        Ok(Self { container, exec })
    }
}

pub(super) struct TaskService {
    pub(super) tasks: Arc<Tasks>,
    /// Told when the daemon is of no use any more.
    pub(super) over: Arc<Notify>,
}

impl TaskService {
    /// Works with the process of a request.
    fn with_process<T>(&self, id: &str, exec: &str, work: impl FnOnce(&Process) -> Answer<T>) -> Answer<T> {
        let subject = Subject::parse(id, exec)?;
        let task = self.tasks.task(&subject.container)?;
        match &subject.exec {
            None => work(&task.init),
            Some(exec) => work(&task.exec(exec)?.process),
        }
    }

    fn task(&self, id: &str) -> Answer<Arc<super::tasks::Task>> {
        Ok(self.tasks.task(&id.parse().map_err(|error| invalid(&error))?)?)
    }
}

/// An operation that a client's going away must not cut in half.
pub(super) async fn whole<T: Send + 'static>(
    work: impl Future<Output = Result<T, TaskError>> + Send + 'static,
) -> Answer<T> {
    match tokio::spawn(work).await {
        Ok(done) => Ok(done?),
        Err(error) => Err(refused(Code::INTERNAL, error.to_string())),
    }
}

/// Whether the caller wants its containers in systemd's scopes.
fn wants_systemd(options: Option<&Any>) -> bool {
    let options = options.filter(|options| options.type_url.ends_with(RUNC_OPTIONS));
    options.and_then(|any| Options::parse_from_bytes(&any.value).ok()).is_some_and(|runc| runc.systemd_cgroup)
}

fn bundle(text: &str) -> Answer<PathBuf> {
    let path = Path::new(text);
    if path.is_absolute() {
        Ok(path.to_owned())
    } else {
        Err(refused(Code::INVALID_ARGUMENT, format!("the bundle {text:?} is no absolute path")))
    }
}

/// The figures of a container, all 0 when it has ended: callers ask also for one that has just stopped, and an error would cost
/// them the figures of all others.
pub(super) async fn stats_of(tasks: &Tasks, task: &Arc<super::tasks::Task>) -> Answer<StatsResponse> {
    if task.init.phase() != Phase::Stopped {
        let request = StatsRequest { id: task.id.to_string(), ..Default::default() };
        let stats = async move |server: Server, context| server.task.stats(context, &request).await;
        if let Ok(stats) = tasks.call(task, stats).await {
            return Ok(stats);
        }
    }
    let none = no_metrics().map_err(|error| refused(Code::INTERNAL, error.to_string()))?;
    Ok(StatsResponse { stats: Some(none).into(), ..Default::default() })
}

pub(super) fn exited(exit: Option<Exit>) -> (u32, MessageField<Timestamp>) {
    exit.map_or_else(Default::default, |exit| (exit.status.into(), timestamp(exit.at)))
}

#[async_trait]
impl Task for TaskService {
    async fn create(&self, _: &TtrpcContext, request: CreateTaskRequest) -> Answer<CreateTaskResponse> {
        if !request.checkpoint.is_empty() {
            return Err(refused(Code::UNIMPLEMENTED, "a container cannot be restored from a checkpoint"));
        }
        let creation = Creation {
            id: Subject::parse(&request.id, "")?.container,
            kind: Kind::Task,
            bundle: bundle(&request.bundle)?,
            systemd_cgroup: wants_systemd(request.options.as_ref()),
            rootfs: request.rootfs,
            asked: Asked {
                stdin: request.stdin,
                stdout: request.stdout,
                stderr: request.stderr,
                terminal: request.terminal,
            },
        };
        let pid = whole(self.tasks.clone().create(creation)).await?;
        Ok(CreateTaskResponse { pid, ..Default::default() })
    }

    async fn start(&self, _: &TtrpcContext, request: StartRequest) -> Answer<StartResponse> {
        let Subject { container, exec } = Subject::parse(&request.id, &request.exec_id)?;
        let (tasks, task) = (self.tasks.clone(), self.tasks.task(&container)?);
        let pid = match exec {
            None => whole(tasks.start(task)).await?,
            Some(exec) => whole(tasks.start_exec(task, exec)).await?,
        };
        Ok(StartResponse { pid, ..Default::default() })
    }

    async fn exec(&self, _: &TtrpcContext, request: ExecProcessRequest) -> Answer<Empty> {
        let Subject { container, exec: Some(exec) } = Subject::parse(&request.id, &request.exec_id)? else {
            return Err(refused(Code::INVALID_ARGUMENT, "the exec id is empty"));
        };
        let asked = Asked {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        };
        let spec = request.spec.into_option().unwrap_or_default().value;
        self.tasks.describe(&*self.tasks.task(&container)?, exec, asked, spec)?;
        Ok(Empty::new())
    }

    async fn delete(&self, _: &TtrpcContext, request: DeleteRequest) -> Answer<DeleteResponse> {
        let Subject { container, exec } = Subject::parse(&request.id, &request.exec_id)?;
        let task = self.tasks.task(&container)?;
        let (pid, exit) = match exec {
            None => whole(self.tasks.clone().delete(task)).await?,
            Some(exec) => self.tasks.delete_exec(&task, &exec)?,
        };
        let (exit_status, exited_at) = exited(exit);
        Ok(DeleteResponse { pid, exit_status, exited_at, ..Default::default() })
    }

    async fn kill(&self, _: &TtrpcContext, request: KillRequest) -> Answer<Empty> {
        let Subject { container, exec } = Subject::parse(&request.id, &request.exec_id)?;
        let task = self.tasks.task(&container)?;
        self.tasks.kill(task, exec, request.signal, request.all).await?;
        Ok(Empty::new())
    }

    async fn wait(&self, _: &TtrpcContext, request: WaitRequest) -> Answer<WaitResponse> {
        let Subject { container, exec } = Subject::parse(&request.id, &request.exec_id)?;
        let task = self.tasks.task(&container)?;
        let exit = match exec {
            None => task.init.wait().await,
            Some(exec) => task.exec(&exec)?.process.wait().await,
        };
        let (exit_status, exited_at) = exited(Some(exit));
        Ok(WaitResponse { exit_status, exited_at, ..Default::default() })
    }

    async fn state(&self, _: &TtrpcContext, request: StateRequest) -> Answer<StateResponse> {
        let bundle = self.task(&request.id)?.bundle.to_string_lossy().into_owned();
        let (id, exec_id) = (request.id.clone(), request.exec_id.clone());
        self.with_process(&request.id, &request.exec_id, |process| {
            let status = match process.phase() {
                Phase::Created => TaskStatus::CREATED,
                Phase::Running => TaskStatus::RUNNING,
                Phase::Paused => TaskStatus::PAUSED,
                Phase::Stopped => TaskStatus::STOPPED,
            };
            let (exit_status, exited_at) = exited(process.exit());
            Ok(StateResponse {
                id,
                exec_id,
                bundle,
                pid: process.pid(),
                status: EnumOrUnknown::new(status),
                stdin: process.asked.stdin.clone(),
                stdout: process.asked.stdout.clone(),
                stderr: process.asked.stderr.clone(),
                terminal: process.asked.terminal,
                exit_status,
                exited_at,
                ..Default::default()
            })
        })
    }

    async fn pids(&self, _: &TtrpcContext, request: PidsRequest) -> Answer<PidsResponse> {
        let one = |pid| ProcessInfo { pid, ..Default::default() };
        let processes = self.task(&request.id)?.pids().into_iter().map(one).collect();
        Ok(PidsResponse { processes, ..Default::default() })
    }

    async fn pause(&self, _: &TtrpcContext, request: PauseRequest) -> Answer<Empty> {
        whole(self.tasks.clone().pause(self.task(&request.id)?)).await?;
        Ok(Empty::new())
    }

    async fn resume(&self, _: &TtrpcContext, request: ResumeRequest) -> Answer<Empty> {
        whole(self.tasks.clone().resume(self.task(&request.id)?)).await?;
        Ok(Empty::new())
    }

    async fn checkpoint(&self, _: &TtrpcContext, _: CheckpointTaskRequest) -> Answer<Empty> {
        Err(refused(Code::UNIMPLEMENTED, "a container in a microVM cannot be checkpointed"))
    }

    async fn update(&self, _: &TtrpcContext, request: UpdateTaskRequest) -> Answer<Empty> {
        let task = self.task(&request.id)?;
        let update = async move |server: Server, context| server.task.update(context, &request).await;
        Ok(self.tasks.call(&task, update).await?)
    }

    async fn stats(&self, _: &TtrpcContext, request: StatsRequest) -> Answer<StatsResponse> {
        stats_of(&self.tasks, &self.task(&request.id)?).await
    }

    async fn resize_pty(&self, _: &TtrpcContext, request: ResizePtyRequest) -> Answer<Empty> {
        self.with_process(&request.id, &request.exec_id, |process| {
            // What has no terminal has no size; runc's shim says nothing either.
            let resized = process.resize(request.width, request.height);
            resized.map(|_| Empty::new()).map_err(|error| refused(Code::UNKNOWN, error.to_string()))
        })
    }

    async fn close_io(&self, _: &TtrpcContext, request: CloseIORequest) -> Answer<Empty> {
        self.with_process(&request.id, &request.exec_id, |process| {
            if request.stdin {
                process.close_input();
            }
            Ok(Empty::new())
        })
    }

    async fn connect(&self, _: &TtrpcContext, request: ConnectRequest) -> Answer<ConnectResponse> {
        // Asked about a sandbox without a container as well.
        let task = self.tasks.task(&Subject::parse(&request.id, "")?.container);
        Ok(ConnectResponse {
            shim_pid: std::process::id(),
            task_pid: task.map_or(0, |task| task.init.pid()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Default::default()
        })
    }

    async fn shutdown(&self, _: &TtrpcContext, _: ShutdownRequest) -> Answer<Empty> {
        // It comes after every deletion: with containers left it is for another one.
        if self.tasks.is_empty() {
            self.over.notify_one();
        }
        Ok(Empty::new())
    }
}
