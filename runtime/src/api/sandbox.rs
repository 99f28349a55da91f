//! What the command line and the proxies need beside the Task API.

use std::{fs::File, io, sync::Arc};

use async_trait::async_trait;
use bulkhead_protocol::sandbox::{
    AttachProxyRequest, BeginCreateRequest, CommitCreateResponse, CreationRequest as CreationRequestId,
    Empty, MachineCountersResponse, Process, ProcessesRequest, ProcessesResponse, Sandbox, WaitOomRequest,
    WaitOomResponse, WaitProcessRequest, WaitProcessResponse,
};
use ttrpc::asynchronous::TtrpcContext;

use super::status::ApiError;
use crate::{
    container::{ContainerError, Containers, CreationRequest, detached},
    sandbox::key::Key,
    store,
};

type Answer<T> = Result<T, ttrpc::Error>;

fn key(container: &str, exec: &str) -> Result<Key, ApiError> {
    Ok(Key::parse(container, exec)?)
}

/// The file that the caller holds open. Its process is checked after the file was opened: a pid may be anybody's by then.
fn file_of(request: &BeginCreateRequest) -> io::Result<File> {
    let caller = store::Process { pid: request.pid, start_ticks: request.start_ticks };
    let file = File::open(format!("/proc/{}/fd/{}", request.pid, request.fd))?;
    if caller.is_alive() { Ok(file) } else { Err(io::ErrorKind::NotFound.into()) }
}

pub(super) struct SandboxService {
    pub(super) containers: Arc<Containers>,
}

#[async_trait]
impl Sandbox for SandboxService {
    async fn begin_create(&self, _: &TtrpcContext, request: BeginCreateRequest) -> Answer<Empty> {
        let file = file_of(&request).map_err(|source| ContainerError::Request { source });
        let creation = file.and_then(|file| CreationRequest::read(&file)).map_err(ApiError::from)?;
        self.containers.clone().begin(creation).await.map_err(ApiError::from)?;
        Ok(Empty::new())
    }

    async fn commit_create(
        &self,
        _: &TtrpcContext,
        request: CreationRequestId,
    ) -> Answer<CommitCreateResponse> {
        let id = key(&request.container_id, "")?.container;
        let warnings = detached(self.containers.clone().commit(id)).await.map_err(ApiError::from)?;
        Ok(CommitCreateResponse { warnings, ..Default::default() })
    }

    async fn abort_create(&self, _: &TtrpcContext, request: CreationRequestId) -> Answer<Empty> {
        let id = key(&request.container_id, "")?.container;
        detached(self.containers.clone().abort(id)).await.map_err(ApiError::from)?;
        Ok(Empty::new())
    }

    async fn attach_proxy(&self, _: &TtrpcContext, request: AttachProxyRequest) -> Answer<Empty> {
        let key = key(&request.container_id, &request.exec_id)?;
        self.containers.clone().attach(key, request.pid).await.map_err(ApiError::from)?;
        Ok(Empty::new())
    }

    async fn wait_process(
        &self,
        _: &TtrpcContext,
        request: WaitProcessRequest,
    ) -> Answer<WaitProcessResponse> {
        let exit = self
            .containers
            .wait(&key(&request.container_id, &request.exec_id)?)
            .await
            .map_err(ApiError::from)?;
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
        let processes =
            self.containers.processes(&key(&request.container_id, "")?).await.map_err(ApiError::from)?;
        let one = |process: bulkhead_protocol::agent::ProcessInfo| Process {
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
        let kills = self
            .containers
            .wait_oom(&key(&request.container_id, "")?, request.seen)
            .await
            .map_err(ApiError::from)?;
        Ok(WaitOomResponse { kills, ..Default::default() })
    }

    async fn machine_counters(&self, _: &TtrpcContext, _: Empty) -> Answer<MachineCountersResponse> {
        let counters = self.containers.machine_counters().await.map_err(ApiError::from)?;
        Ok(MachineCountersResponse { counters: counters.into_iter().collect(), ..Default::default() })
    }
}
