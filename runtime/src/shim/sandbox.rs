//! containerd's sandbox service (`sandboxer = "shim"`): the pod's microVM without a pause container of containerd's.
//!
//!   CreateSandbox ─▶ Pod: a bundle of ours ─▶ a container that pauses ─▶ StartSandbox: its pid, whose namespaces containers join
//!   StopSandbox: killed, and with it the microVM ─▶ ShutdownSandbox: removed, and the daemon ends
//!
//! Containers come by the Task API, which the same socket serves.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use bulkhead_protocol::id::ContainerId;
use containerd_shim_protos::{
    sandbox_api::{
        CreateSandboxRequest, CreateSandboxResponse, PingRequest, PingResponse, PlatformRequest,
        PlatformResponse, SandboxMetricsRequest, SandboxMetricsResponse, SandboxStatusRequest,
        SandboxStatusResponse, ShutdownSandboxRequest, ShutdownSandboxResponse, StartSandboxRequest,
        StartSandboxResponse, StopSandboxRequest, StopSandboxResponse, WaitSandboxRequest,
        WaitSandboxResponse,
    },
    sandbox_async::Sandbox,
};
use serde_json::json;
use tokio::{sync::Notify, time::timeout};
use ttrpc::{Code, asynchronous::TtrpcContext};

use super::{
    pod::{self, Pod},
    process::{Phase, lock},
    service::{Answer, exited, invalid, refused, stats_of, whole},
    stdio::Asked,
    tasks::{Creation, Kind, Task, TaskError, Tasks, blocking},
};
use crate::{log::note, time::timestamp};

/// For a sandbox that is killed to have ended: longer than the server takes for a guest that does nothing.
const KILLED: Duration = Duration::from_secs(60);
const KILL: u32 = 9;

pub(super) struct SandboxService {
    pod: ContainerId,
    tasks: Arc<Tasks>,
    /// Told when the daemon is of no use any more.
    over: Arc<Notify>,
    /// When the one creation that there is began.
    created: Arc<Mutex<Option<SystemTime>>>,
}

impl SandboxService {
    pub(super) fn new(pod: ContainerId, tasks: Arc<Tasks>, over: Arc<Notify>) -> Self {
        Self { pod, tasks, over, created: Arc::default() }
    }

    /// A daemon has the one sandbox that it was started for.
    fn check(&self, id: &str) -> Answer<()> {
        let id: ContainerId = id.parse().map_err(|error| invalid(&error))?;
        if id == self.pod { Ok(()) } else { Err(refused(Code::NOT_FOUND, format!("sandbox {id} not found"))) }
    }

    fn sandbox(&self, id: &str) -> Answer<Arc<Task>> {
        self.check(id)?;
        let task = self.tasks.task(&self.pod).ok().filter(|task| task.kind() == Kind::Sandbox);
        task.ok_or_else(|| refused(Code::NOT_FOUND, format!("sandbox {id} not found")))
    }
}

/// Ends the sandbox; one that has ended stays so.
async fn stop(tasks: Arc<Tasks>, sandbox: Arc<Task>) -> Result<(), TaskError> {
    match tasks.kill(sandbox.clone(), None, KILL, true).await {
        Ok(()) | Err(TaskError::Finished) => {}
        // Its server is gone or silent: the exit is on its way.
        Err(error) => note(&format!("stop the sandbox {}: {error}", sandbox.id)),
    }
    match timeout(KILLED, sandbox.init.wait()).await {
        Ok(_) => Ok(()),
        Err(_) => Err(TaskError::Phase("the sandbox did not end")),
    }
}

#[async_trait]
impl Sandbox for SandboxService {
    async fn create_sandbox(
        &self,
        _: &TtrpcContext,
        request: CreateSandboxRequest,
    ) -> Answer<CreateSandboxResponse> {
        self.check(&request.sandbox_id)?;
        let pod = Pod::parse(self.pod.clone(), &request).map_err(TaskError::from)?;
        {
            let mut created = lock(&self.created);
            if created.is_some() {
                return Err(TaskError::Exists(self.pod.to_string()).into());
            }
            *created = Some(SystemTime::now());
        }
        let (tasks, id, created) = (self.tasks.clone(), self.pod.clone(), self.created.clone());
        whole(async move {
            let made = tasks.create_sandbox(id, pod).await;
            if made.is_err() {
                *lock(&created) = None;
            }
            made
        })
        .await?;
        Ok(CreateSandboxResponse::new())
    }

    async fn start_sandbox(
        &self,
        _: &TtrpcContext,
        request: StartSandboxRequest,
    ) -> Answer<StartSandboxResponse> {
        let sandbox = self.sandbox(&request.sandbox_id)?;
        let pid = whole(self.tasks.clone().start(sandbox)).await?;
        let created_at = (*lock(&self.created)).map(timestamp).unwrap_or_default();
        Ok(StartSandboxResponse { pid, created_at, ..Default::default() })
    }

    async fn platform(&self, _: &TtrpcContext, _: PlatformRequest) -> Answer<PlatformResponse> {
        let mut response = PlatformResponse::new();
        let platform = response.platform.mut_or_insert_default();
        platform.os = "linux".to_owned();
        platform.architecture = "amd64".to_owned();
        Ok(response)
    }

    async fn stop_sandbox(
        &self,
        _: &TtrpcContext,
        request: StopSandboxRequest,
    ) -> Answer<StopSandboxResponse> {
        let sandbox = self.sandbox(&request.sandbox_id)?;
        whole(stop(self.tasks.clone(), sandbox)).await?;
        Ok(StopSandboxResponse::new())
    }

    async fn wait_sandbox(
        &self,
        _: &TtrpcContext,
        request: WaitSandboxRequest,
    ) -> Answer<WaitSandboxResponse> {
        let exit = self.sandbox(&request.sandbox_id)?.init.wait().await;
        let (exit_status, exited_at) = exited(Some(exit));
        Ok(WaitSandboxResponse { exit_status, exited_at, ..Default::default() })
    }

    async fn sandbox_status(
        &self,
        _: &TtrpcContext,
        request: SandboxStatusRequest,
    ) -> Answer<SandboxStatusResponse> {
        let sandbox = self.sandbox(&request.sandbox_id)?;
        let ready = sandbox.init.phase() == Phase::Running;
        let mut response = SandboxStatusResponse {
            sandbox_id: request.sandbox_id,
            pid: sandbox.init.pid(),
            state: if ready { "SANDBOX_READY" } else { "SANDBOX_NOTREADY" }.to_owned(),
            created_at: (*lock(&self.created)).map(timestamp).unwrap_or_default(),
            exited_at: exited(sandbox.init.exit()).1,
            ..Default::default()
        };
        if request.verbose {
            // containerd reads it as JSON.
            let info = json!({"pid": response.pid, "bundle": sandbox.bundle});
            response.info.insert("info".to_owned(), info.to_string());
        }
        Ok(response)
    }

    async fn ping_sandbox(&self, _: &TtrpcContext, request: PingRequest) -> Answer<PingResponse> {
        self.sandbox(&request.sandbox_id)?;
        Ok(PingResponse::new())
    }

    async fn shutdown_sandbox(
        &self,
        _: &TtrpcContext,
        request: ShutdownSandboxRequest,
    ) -> Answer<ShutdownSandboxResponse> {
        self.check(&request.sandbox_id)?;
        if let Ok(sandbox) = self.sandbox(&request.sandbox_id) {
            let tasks = self.tasks.clone();
            whole(async move {
                stop(tasks.clone(), sandbox.clone()).await?;
                tasks.delete_sandbox(sandbox).await
            })
            .await?;
        }
        self.over.notify_one();
        Ok(ShutdownSandboxResponse::new())
    }

    async fn sandbox_metrics(
        &self,
        _: &TtrpcContext,
        request: SandboxMetricsRequest,
    ) -> Answer<SandboxMetricsResponse> {
        let sandbox = self.sandbox(&request.sandbox_id)?;
        let stats = stats_of(&self.tasks, &sandbox).await?;
        let mut response = SandboxMetricsResponse::new();
        let metrics = response.metrics.mut_or_insert_default();
        metrics.timestamp = timestamp(SystemTime::now());
        metrics.id = request.sandbox_id;
        metrics.data = stats.stats;
        Ok(response)
    }
}

impl Tasks {
    /// Makes the sandbox of a pod, from a bundle that is made here.
    async fn create_sandbox(self: Arc<Self>, id: ContainerId, description: Pod) -> Result<(), TaskError> {
        let bundle = self.pod_files().to_owned();
        let directory = bundle.clone();
        blocking(move || Ok(description.lay_out(&directory)?)).await?;
        let creation = Creation {
            id,
            kind: Kind::Sandbox,
            bundle: bundle.clone(),
            rootfs: Vec::new(),
            asked: Asked::default(),
            systemd_cgroup: false,
        };
        let created = self.create(creation).await;
        if created.is_err() {
            let _ = blocking(move || Ok(pod::clear(&bundle)?)).await;
        }
        created.map(drop)
    }

    async fn delete_sandbox(self: Arc<Self>, sandbox: Arc<Task>) -> Result<(), TaskError> {
        let bundle = self.pod_files().to_owned();
        self.delete(sandbox).await?;
        blocking(move || Ok(pod::clear(&bundle)?)).await
    }
}
