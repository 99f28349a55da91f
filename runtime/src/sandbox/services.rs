//! The two services on `server.sock`: each method checks its request, calls the pod, and wraps the answer.

use std::{
    path::Path,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use bulkhead_protocol::sandbox::{
    AttachProxyRequest, Empty as SandboxEmpty, Process as SandboxProcess, ProcessesRequest,
    ProcessesResponse, Sandbox, Stamp, TimelineResponse, WaitOomRequest, WaitOomResponse, WaitProcessRequest,
    WaitProcessResponse,
};
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
use protobuf::{EnumOrUnknown, MessageField, well_known_types::timestamp::Timestamp};
use tokio::sync::Notify;
use ttrpc::{Code, asynchronous::TtrpcContext};

use super::{
    plan::{ContainerPlan, ExecPlan, PlanError},
    pod::{Pod, uncut},
    stats,
    status::Status,
    stdio::Stdio,
    table::{Key, TableError, status},
};
use crate::{error::chain, spec};

type Answer<T> = Result<T, ttrpc::Error>;

fn invalid(error: &dyn std::error::Error) -> ttrpc::Error {
    status(Code::INVALID_ARGUMENT, chain(error))
}

fn planned<T>(result: Result<T, PlanError>) -> Answer<T> {
    result.map_err(|error| invalid(&error))
}

fn timestamp(time: SystemTime) -> MessageField<Timestamp> {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let timestamp = Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0),
        ..Default::default()
    };
    Some(timestamp).into()
}

/// containerd's Task API.
pub(super) struct TaskService {
    pub(super) pod: Arc<Pod>,
    pub(super) shutdown: Arc<Notify>,
}

#[async_trait]
impl Task for TaskService {
    async fn create(&self, _: &TtrpcContext, request: CreateTaskRequest) -> Answer<CreateTaskResponse> {
        let key = Key::parse(&request.id, "")?;
        if !request.rootfs.is_empty() || !request.checkpoint.is_empty() {
            return Err(status(Code::UNIMPLEMENTED, "rootfs mounts and checkpoints are not supported yet"));
        }
        let plan = planned(ContainerPlan::from_request(
            request.options.as_ref(),
            Path::new(&request.bundle),
            &key.container,
        ))?;
        if plan.terminal != request.terminal {
            return Err(status(Code::INVALID_ARGUMENT, "process.terminal and the request differ"));
        }
        let stdio = Stdio::parse(request.terminal, &request.stdin, &request.stdout, &request.stderr)
            .map_err(|error| invalid(&error))?;
        let pid = uncut(self.pod.clone().create(key, plan, stdio)).await?;
        Ok(CreateTaskResponse { pid, ..Default::default() })
    }

    async fn start(&self, _: &TtrpcContext, request: StartRequest) -> Answer<StartResponse> {
        let key = Key::parse(&request.id, &request.exec_id)?;
        let pid = uncut(self.pod.clone().start(key)).await?;
        Ok(StartResponse { pid, ..Default::default() })
    }

    async fn exec(&self, _: &TtrpcContext, request: ExecProcessRequest) -> Answer<Empty> {
        let key = Key::parse(&request.id, &request.exec_id)?;
        let Some(exec) = key.exec else {
            return Err(TableError::Invalid("exec id is empty".into()).into());
        };
        let plan = planned(ExecPlan::from_any(&request.spec))?;
        if plan.process.terminal != request.terminal {
            return Err(status(Code::INVALID_ARGUMENT, "process.terminal and the request differ"));
        }
        let stdio = Stdio::parse(request.terminal, &request.stdin, &request.stdout, &request.stderr)
            .map_err(|error| invalid(&error))?;
        self.pod.describe(&Key::init(key.container), &exec, stdio, plan)?;
        Ok(Empty::new())
    }

    async fn delete(&self, _: &TtrpcContext, request: DeleteRequest) -> Answer<DeleteResponse> {
        let key = Key::parse(&request.id, &request.exec_id)?;
        let pid = self.pod.host_pid(&key);
        let exit = uncut(self.pod.clone().delete(key)).await?;
        let exit_status = exit.as_ref().map_or(0, super::table::Exit::status);
        let exited_at = exit.map(|exit| timestamp(exit.at)).unwrap_or_default();
        Ok(DeleteResponse { pid, exit_status, exited_at, ..Default::default() })
    }

    async fn kill(&self, _: &TtrpcContext, request: KillRequest) -> Answer<Empty> {
        let key = Key::parse(&request.id, &request.exec_id)?;
        uncut(self.pod.clone().kill(key, request.signal, request.all)).await?;
        Ok(Empty::new())
    }

    async fn wait(&self, _: &TtrpcContext, request: WaitRequest) -> Answer<WaitResponse> {
        let exit = self.pod.wait(&Key::parse(&request.id, &request.exec_id)?).await?;
        Ok(WaitResponse { exit_status: exit.status(), exited_at: timestamp(exit.at), ..Default::default() })
    }

    async fn state(&self, _: &TtrpcContext, request: StateRequest) -> Answer<StateResponse> {
        let key = Key::parse(&request.id, &request.exec_id)?;
        let pid = self.pod.host_pid(&key);
        let table = self.pod.table();
        let process = table.process(&key)?;
        let exit = process.exit();
        let status = match process.status {
            Status::Creating => TaskStatus::UNKNOWN,
            Status::Created => TaskStatus::CREATED,
            Status::Starting | Status::Running => TaskStatus::RUNNING,
            Status::Paused => TaskStatus::PAUSED,
            Status::Stopped => TaskStatus::STOPPED,
        };
        Ok(StateResponse {
            bundle: table.bundle(&key)?.to_string_lossy().into_owned(),
            id: request.id,
            exec_id: request.exec_id,
            pid,
            status: EnumOrUnknown::new(status),
            stdin: process.stdio.stdin.clone(),
            stdout: process.stdio.stdout.clone(),
            stderr: process.stdio.stderr.clone(),
            terminal: process.stdio.terminal,
            exit_status: exit.as_ref().map_or(0, super::table::Exit::status),
            exited_at: exit.map(|exit| timestamp(exit.at)).unwrap_or_default(),
            ..Default::default()
        })
    }

    async fn pids(&self, _: &TtrpcContext, request: PidsRequest) -> Answer<PidsResponse> {
        let processes = self.pod.processes(&Key::parse(&request.id, "")?).await?;
        let one = |pid| ProcessInfo { pid, ..Default::default() };
        let processes = processes.into_iter().map(|process| one(process.pid)).collect();
        Ok(PidsResponse { processes, ..Default::default() })
    }

    async fn pause(&self, _: &TtrpcContext, request: PauseRequest) -> Answer<Empty> {
        uncut(self.pod.clone().pause(Key::parse(&request.id, "")?)).await?;
        Ok(Empty::new())
    }

    async fn resume(&self, _: &TtrpcContext, request: ResumeRequest) -> Answer<Empty> {
        uncut(self.pod.clone().resume(Key::parse(&request.id, "")?)).await?;
        Ok(Empty::new())
    }

    async fn update(&self, _: &TtrpcContext, request: UpdateTaskRequest) -> Answer<Empty> {
        let key = Key::parse(&request.id, "")?;
        // containerd gives the type a version that differs by its release; the value is the spec's JSON in all.
        let update = spec::parse_update(&request.resources.value).map_err(|error| invalid(&error))?;
        uncut(self.pod.clone().update(key, update)).await?;
        Ok(Empty::new())
    }

    async fn stats(&self, _: &TtrpcContext, request: StatsRequest) -> Answer<StatsResponse> {
        let counted = self.pod.stats(&Key::parse(&request.id, "")?).await?;
        let metrics = stats::to_any(&stats::metrics(counted))
            .map_err(|error| status(Code::INTERNAL, format!("write metrics: {error}")))?;
        Ok(StatsResponse { stats: Some(metrics).into(), ..Default::default() })
    }

    async fn resize_pty(&self, _: &TtrpcContext, request: ResizePtyRequest) -> Answer<Empty> {
        let key = Key::parse(&request.id, &request.exec_id)?;
        self.pod.resize(&key, request.width, request.height).await?;
        Ok(Empty::new())
    }

    async fn close_io(&self, _: &TtrpcContext, request: CloseIORequest) -> Answer<Empty> {
        // The caller holds the stream itself and half-closes it; only whether the process exists is left to say.
        self.pod.table().process(&Key::parse(&request.id, &request.exec_id)?)?;
        Ok(Empty::new())
    }

    async fn connect(&self, _: &TtrpcContext, request: ConnectRequest) -> Answer<ConnectResponse> {
        let key = Key::parse(&request.id, "")?;
        self.pod.table().process(&key)?;
        Ok(ConnectResponse {
            shim_pid: std::process::id(),
            task_pid: self.pod.host_pid(&key),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Default::default()
        })
    }

    async fn shutdown(&self, _: &TtrpcContext, request: ShutdownRequest) -> Answer<Empty> {
        // With containers left it is for containerd's other tasks of the pod, and no reason to end.
        if request.now || self.pod.table().is_empty() {
            self.shutdown.notify_one();
        }
        Ok(Empty::new())
    }
}

/// What the command line needs beside it.
pub(super) struct SandboxService {
    pub(super) pod: Arc<Pod>,
}

#[async_trait]
impl Sandbox for SandboxService {
    async fn attach_proxy(&self, _: &TtrpcContext, request: AttachProxyRequest) -> Answer<SandboxEmpty> {
        let key = Key::parse(&request.container_id, &request.exec_id)?;
        self.pod.clone().attach(key, request.pid).await?;
        Ok(SandboxEmpty::new())
    }

    async fn wait_process(
        &self,
        _: &TtrpcContext,
        request: WaitProcessRequest,
    ) -> Answer<WaitProcessResponse> {
        let exit = self.pod.wait(&Key::parse(&request.container_id, &request.exec_id)?).await?;
        Ok(WaitProcessResponse {
            code: exit.code,
            signal: exit.signal,
            stdout_bytes: exit.stdout_bytes,
            stderr_bytes: exit.stderr_bytes,
            sandbox_failure: exit.failure.unwrap_or_default(),
            oom_killed: exit.oom_killed,
            ..Default::default()
        })
    }

    async fn processes(&self, _: &TtrpcContext, request: ProcessesRequest) -> Answer<ProcessesResponse> {
        let processes = self.pod.processes(&Key::parse(&request.container_id, "")?).await?;
        let one = |process: bulkhead_protocol::agent::ProcessInfo| SandboxProcess {
            pid: process.pid,
            ppid: process.ppid,
            uid: process.uid,
            command: process.command,
            cpu_ticks: process.cpu_ticks,
            rss_bytes: process.rss_bytes,
            start_ticks: process.start_ticks,
            state: process.state,
            exec_id: process.exec_id,
            ..Default::default()
        };
        Ok(ProcessesResponse { processes: processes.into_iter().map(one).collect(), ..Default::default() })
    }

    async fn wait_oom(&self, _: &TtrpcContext, request: WaitOomRequest) -> Answer<WaitOomResponse> {
        let kills = self.pod.wait_oom(&Key::parse(&request.container_id, "")?, request.seen).await?;
        Ok(WaitOomResponse { kills, ..Default::default() })
    }

    async fn timeline(&self, _: &TtrpcContext, _: SandboxEmpty) -> Answer<TimelineResponse> {
        let one = |stamp: bulkhead_protocol::timeline::Stamp| Stamp {
            phase: stamp.phase.name().to_owned(),
            monotonic_ns: stamp.monotonic_ns,
            ..Default::default()
        };
        let stamps = self.pod.timeline.stamps().into_iter().map(one).collect();
        Ok(TimelineResponse { stamps, ..Default::default() })
    }
}
