//! containerd's Task API: each method checks its request, calls what does it, and wraps the answer.

use std::{future::Future, path::Path, sync::Arc};

use async_trait::async_trait;
use containerd_shim_protos::{
    api::{
        CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest, CreateTaskResponse,
        DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, KillRequest, PauseRequest, PidsRequest,
        PidsResponse, ProcessInfo, ResizePtyRequest, ResumeRequest, ShutdownRequest, StartRequest,
        StartResponse, StateRequest, StateResponse, StatsRequest, StatsResponse, Status as TaskStatus,
        UpdateTaskRequest, WaitRequest, WaitResponse,
    },
    shim_async::Task,
};
use protobuf::EnumOrUnknown;
use tokio::sync::Notify;
use ttrpc::asynchronous::TtrpcContext;

use super::{
    stats,
    status::ApiError,
    wire::{container_plan, exec_plan},
};
use crate::{
    container::{ContainerError, Containers, Exit, Stdio, detached, status::Status},
    sandbox::key::Key,
    spec,
    time::timestamp,
};

type Answer<T> = Result<T, ttrpc::Error>;

fn key(container: &str, exec: &str) -> Result<Key, ApiError> {
    Ok(Key::parse(container, exec)?)
}

/// The streams of a request, which say the same as the plan about a terminal.
fn stdio(planned: bool, asked: bool, streams: [&str; 3]) -> Result<Stdio, ApiError> {
    if planned != asked {
        return Err(ApiError::Invalid("process.terminal and the request differ"));
    }
    let [stdin, stdout, stderr] = streams;
    Ok(Stdio::parse(asked, stdin, stdout, stderr)?)
}

/// Runs an operation that must not be cut in half.
async fn whole<T: Send + 'static>(
    work: impl Future<Output = Result<T, ContainerError>> + Send + 'static,
) -> Result<T, ApiError> {
    Ok(detached(work).await?)
}

/// containerd's Task API.
pub(super) struct TaskService {
    pub(super) containers: Arc<Containers>,
    pub(super) shutdown: Arc<Notify>,
}

#[async_trait]
impl Task for TaskService {
    async fn create(&self, _: &TtrpcContext, request: CreateTaskRequest) -> Answer<CreateTaskResponse> {
        let key = key(&request.id, "")?;
        if !request.rootfs.is_empty() || !request.checkpoint.is_empty() {
            return Err(ApiError::Unsupported("rootfs mounts and checkpoints").into());
        }
        let plan = container_plan(request.options.as_ref(), Path::new(&request.bundle), &key.container)
            .map_err(ApiError::from)?;
        let streams = [&*request.stdin, &*request.stdout, &*request.stderr];
        let stdio = stdio(plan.terminal, request.terminal, streams)?;
        let pid = whole(self.containers.clone().create(key, plan, stdio)).await?;
        Ok(CreateTaskResponse { pid, ..Default::default() })
    }

    async fn start(&self, _: &TtrpcContext, request: StartRequest) -> Answer<StartResponse> {
        let key = key(&request.id, &request.exec_id)?;
        let pid = whole(self.containers.clone().start(key)).await?;
        Ok(StartResponse { pid, ..Default::default() })
    }

    async fn exec(&self, _: &TtrpcContext, request: ExecProcessRequest) -> Answer<Empty> {
        let key = key(&request.id, &request.exec_id)?;
        let Some(exec) = key.exec else {
            return Err(ApiError::Invalid("exec id is empty").into());
        };
        let plan = exec_plan(&request.spec).map_err(ApiError::from)?;
        let streams = [&*request.stdin, &*request.stdout, &*request.stderr];
        let stdio = stdio(plan.process.terminal, request.terminal, streams)?;
        self.containers.describe(&Key::init(key.container), &exec, stdio, plan).map_err(ApiError::from)?;
        Ok(Empty::new())
    }

    async fn delete(&self, _: &TtrpcContext, request: DeleteRequest) -> Answer<DeleteResponse> {
        let key = key(&request.id, &request.exec_id)?;
        let pid = self.containers.host_pid(&key);
        let exit = whole(self.containers.clone().delete(key)).await?;
        let exit_status = exit.as_ref().map_or(0, Exit::status);
        let exited_at = exit.map(|exit| timestamp(exit.at)).unwrap_or_default();
        Ok(DeleteResponse { pid, exit_status, exited_at, ..Default::default() })
    }

    async fn kill(&self, _: &TtrpcContext, request: KillRequest) -> Answer<Empty> {
        let key = key(&request.id, &request.exec_id)?;
        whole(self.containers.clone().kill(key, request.signal, request.all)).await?;
        Ok(Empty::new())
    }

    async fn wait(&self, _: &TtrpcContext, request: WaitRequest) -> Answer<WaitResponse> {
        let exit =
            self.containers.wait(&key(&request.id, &request.exec_id)?).await.map_err(ApiError::from)?;
        Ok(WaitResponse { exit_status: exit.status(), exited_at: timestamp(exit.at), ..Default::default() })
    }

    async fn state(&self, _: &TtrpcContext, request: StateRequest) -> Answer<StateResponse> {
        let key = key(&request.id, &request.exec_id)?;
        let pid = self.containers.host_pid(&key);
        let table = self.containers.table();
        let process = table.process(&key).map_err(ApiError::from)?;
        let exit = process.exit();
        let status = match process.status {
            Status::Creating => TaskStatus::UNKNOWN,
            Status::Created => TaskStatus::CREATED,
            Status::Starting | Status::Running => TaskStatus::RUNNING,
            Status::Paused => TaskStatus::PAUSED,
            Status::Stopped => TaskStatus::STOPPED,
        };
        Ok(StateResponse {
            bundle: table.bundle(&key).map_err(ApiError::from)?.to_string_lossy().into_owned(),
            id: request.id,
            exec_id: request.exec_id,
            pid,
            status: EnumOrUnknown::new(status),
            stdin: process.stdio.stdin.clone(),
            stdout: process.stdio.stdout.clone(),
            stderr: process.stdio.stderr.clone(),
            terminal: process.stdio.terminal,
            exit_status: exit.as_ref().map_or(0, Exit::status),
            exited_at: exit.map(|exit| timestamp(exit.at)).unwrap_or_default(),
            ..Default::default()
        })
    }

    async fn pids(&self, _: &TtrpcContext, request: PidsRequest) -> Answer<PidsResponse> {
        let processes = self.containers.processes(&key(&request.id, "")?).await.map_err(ApiError::from)?;
        let one = |pid| ProcessInfo { pid, ..Default::default() };
        let processes = processes.into_iter().map(|process| one(process.pid)).collect();
        Ok(PidsResponse { processes, ..Default::default() })
    }

    async fn pause(&self, _: &TtrpcContext, request: PauseRequest) -> Answer<Empty> {
        whole(self.containers.clone().pause(key(&request.id, "")?)).await?;
        Ok(Empty::new())
    }

    async fn resume(&self, _: &TtrpcContext, request: ResumeRequest) -> Answer<Empty> {
        whole(self.containers.clone().resume(key(&request.id, "")?)).await?;
        Ok(Empty::new())
    }

    async fn update(&self, _: &TtrpcContext, request: UpdateTaskRequest) -> Answer<Empty> {
        let key = key(&request.id, "")?;
        // containerd gives the type a version that differs by its release; the value is the spec's JSON in all.
        let update = spec::parse_update(&request.resources.value).map_err(ApiError::from)?;
        whole(self.containers.clone().update(key, update)).await?;
        Ok(Empty::new())
    }

    async fn stats(&self, _: &TtrpcContext, request: StatsRequest) -> Answer<StatsResponse> {
        let counted = self.containers.stats(&key(&request.id, "")?).await.map_err(ApiError::from)?;
        let metrics =
            stats::to_any(&stats::metrics(counted)).map_err(|source| ApiError::Metrics { source })?;
        Ok(StatsResponse { stats: Some(metrics).into(), ..Default::default() })
    }

    async fn resize_pty(&self, _: &TtrpcContext, request: ResizePtyRequest) -> Answer<Empty> {
        let key = key(&request.id, &request.exec_id)?;
        self.containers.resize(&key, request.width, request.height).await.map_err(ApiError::from)?;
        Ok(Empty::new())
    }

    async fn close_io(&self, _: &TtrpcContext, request: CloseIORequest) -> Answer<Empty> {
        // The caller holds the stream itself and half-closes it; only whether the process exists is left to say.
        self.containers.table().process(&key(&request.id, &request.exec_id)?).map_err(ApiError::from)?;
        Ok(Empty::new())
    }

    async fn connect(&self, _: &TtrpcContext, request: ConnectRequest) -> Answer<ConnectResponse> {
        let key = key(&request.id, "")?;
        self.containers.table().process(&key).map_err(ApiError::from)?;
        Ok(ConnectResponse {
            shim_pid: std::process::id(),
            task_pid: self.containers.host_pid(&key),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Default::default()
        })
    }

    async fn shutdown(&self, _: &TtrpcContext, request: ShutdownRequest) -> Answer<Empty> {
        // With containers left it is for containerd's other tasks of the pod, and no reason to end.
        if request.now || self.containers.table().is_empty() {
            self.shutdown.notify_one();
        }
        Ok(Empty::new())
    }
}
