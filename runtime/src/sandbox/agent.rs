//! The agent in the guest, as the server calls it: its RPCs with a deadline each.
//!
//! What the guest answers is its own business until it is checked here: lengths and counts are capped, and an error is
//! a code and a text, shown to the user word for word but never interpreted.

use std::{io, time::Duration};

use bulkhead_protocol::{
    agent::{
        AdjustTimeRequest, AgentClient, ContainerStatsRequest, ContainerStatsResponse,
        CreateContainerRequest, DeleteContainerRequest, DeleteProcessRequest, Empty, ExecRequest,
        ListProcessesRequest, PauseContainerRequest, ProcessInfo, RegisterHandlersRequest, ResizeTtyRequest,
        ResumeContainerRequest, SetOnlineCpusRequest, SignalProcessRequest, SlotRequest,
        StartContainerRequest, Stdio, TellWatchersRequest, UpdateContainerRequest, UpdateNetworkRequest,
        WaitOomRequest, WaitPressureRequest, WaitProcessRequest, WaitProcessResponse, WaitWatchesRequest,
    },
    binfmt::Handler,
    container::{ContainerSpec, ProcessSpec, Resources, SharePath},
    id::ContainerId,
    limits,
    tuning::Tuning,
    vmm::Slot,
    watch::{Answer, FileEvent},
};
use bulkhead_sys::text::bounded;
use tokio::net::UnixStream;
use ttrpc::{
    Code,
    asynchronous::{Client, transport::Socket},
    context,
};

use super::key::Key;

/// Bytes of an error text that are kept.
pub(crate) const MESSAGE_MAX: usize = 16 << 10;
/// What the guest may take beyond a call's deadline before it drops the call.
const GRACE: Duration = Duration::from_secs(5);
/// Processes of a listing that are passed on.
const PROCESSES_MAX: usize = 65_536;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AgentError {
    /// The agent refused or failed, in its own words.
    #[error("{message}")]
    Refused { code: Code, message: String },
    /// The stream is broken: the sandbox is dying, and its end will say why.
    #[error("the connection to the guest's agent broke: {0}")]
    Broken(String),
    #[error("the guest's agent did not answer for {waited:?}")]
    Silent { waited: Duration },
    #[error("{what} is larger than {} bytes", limits::CONTAINER_SPEC)]
    TooLarge { what: &'static str },
}

impl From<ttrpc::Error> for AgentError {
    fn from(error: ttrpc::Error) -> Self {
        match error {
            ttrpc::Error::RpcStatus(status) => {
                let message = bounded(&status.message, MESSAGE_MAX);
                let code = status.code.enum_value().unwrap_or(Code::UNKNOWN);
                Self::Refused { code, message }
            }
            error => Self::Broken(error.to_string()),
        }
    }
}

#[derive(Clone)]
pub(crate) struct Agent(AgentClient);

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Agent")
    }
}

impl Agent {
    /// On a stream whose greeting has been read.
    pub(crate) fn on(stream: UnixStream) -> Self {
        Self(AgentClient::new(Client::new(Socket::from(stream))))
    }

    /// `tuning` comes first, and holds for the whole guest.
    pub(crate) async fn create(
        &self,
        key: &Key,
        spec: &ContainerSpec,
        stdio: Stdio,
        tuning: Option<&Tuning>,
    ) -> Result<u32, AgentError> {
        let request = CreateContainerRequest {
            container_id: key.container.to_string(),
            spec: json("the container's spec", spec)?,
            stdio: Some(stdio).into(),
            tuning: tuning.map_or(Ok(Vec::new()), |tuning| json("the guest's settings", tuning))?,
            ..Default::default()
        };
        Ok(within(limits::RPC, async |context| self.0.create_container(context, &request).await).await?.pid)
    }

    pub(crate) async fn start(&self, key: &Key) -> Result<u32, AgentError> {
        let request = StartContainerRequest { container_id: key.container.to_string(), ..Default::default() };
        Ok(within(limits::RPC, async |context| self.0.start_container(context, &request).await).await?.pid)
    }

    pub(crate) async fn exec(
        &self,
        key: &Key,
        process: &ProcessSpec,
        cgroup: &str,
        stdio: Stdio,
    ) -> Result<u32, AgentError> {
        let request = ExecRequest {
            container_id: key.container.to_string(),
            exec_id: key.exec_id(),
            process: json("the process", process)?,
            cgroup: cgroup.to_owned(),
            stdio: Some(stdio).into(),
            ..Default::default()
        };
        Ok(within(limits::RPC, async |context| self.0.exec(context, &request).await).await?.pid)
    }

    pub(crate) async fn signal(&self, key: &Key, signal: u32, all: bool) -> Result<(), AgentError> {
        let request = SignalProcessRequest {
            container_id: key.container.to_string(),
            exec_id: key.exec_id(),
            signal,
            all,
            ..Default::default()
        };
        within(limits::RPC, async |context| self.0.signal_process(context, &request).await).await?;
        Ok(())
    }

    /// Has no deadline: it ends with the process or with the stream.
    pub(crate) async fn wait(&self, key: &Key) -> Result<WaitProcessResponse, AgentError> {
        let request = WaitProcessRequest {
            container_id: key.container.to_string(),
            exec_id: key.exec_id(),
            ..Default::default()
        };
        Ok(self.0.wait_process(context::Context::default(), &request).await?)
    }

    pub(crate) async fn resize(&self, key: &Key, columns: u32, rows: u32) -> Result<(), AgentError> {
        let request = ResizeTtyRequest {
            container_id: key.container.to_string(),
            exec_id: key.exec_id(),
            columns,
            rows,
            ..Default::default()
        };
        within(limits::RPC, async |context| self.0.resize_tty(context, &request).await).await?;
        Ok(())
    }

    pub(crate) async fn processes(&self, key: &Key) -> Result<Vec<ProcessInfo>, AgentError> {
        let request = ListProcessesRequest { container_id: key.container.to_string(), ..Default::default() };
        let mut processes =
            within(limits::RPC, async |context| self.0.list_processes(context, &request).await)
                .await?
                .processes;
        processes.truncate(PROCESSES_MAX);
        Ok(processes)
    }

    /// Has the guest's kernel take the device that the VMM has put into a slot.
    pub(crate) async fn bind_slot(&self, slot: Slot) -> Result<(), AgentError> {
        let request = SlotRequest { slot: slot.0.into(), ..Default::default() };
        within(limits::RPC, async |context| self.0.bind_slot(context, &request).await).await?;
        Ok(())
    }

    /// Has the guest's kernel let go of the device in a slot, and write what it has not written yet.
    pub(crate) async fn unbind_slot(&self, slot: Slot) -> Result<(), AgentError> {
        let request = SlotRequest { slot: slot.0.into(), ..Default::default() };
        within(limits::RPC, async |context| self.0.unbind_slot(context, &request).await).await?;
        Ok(())
    }

    pub(crate) async fn update_network(&self, request: &UpdateNetworkRequest) -> Result<(), AgentError> {
        within(limits::RPC, async |context| self.0.update_network(context, request).await).await?;
        Ok(())
    }

    pub(crate) async fn set_online_cpus(&self, count: u32) -> Result<(), AgentError> {
        let request = SetOnlineCpusRequest { count, ..Default::default() };
        within(limits::RPC, async |context| self.0.set_online_cpus(context, &request).await).await?;
        Ok(())
    }

    /// Has the guest run foreign binaries. Once, before the first container.
    pub(crate) async fn register_handlers(&self, handlers: &[Handler]) -> Result<(), AgentError> {
        let handlers = json("the handlers of foreign binaries", &handlers)?;
        let request = RegisterHandlersRequest { handlers, ..Default::default() };
        within(limits::RPC, async |context| self.0.register_handlers(context, &request).await).await?;
        Ok(())
    }

    /// The guest's CLOCK_REALTIME in nanoseconds since 1970, whatever it says.
    pub(crate) async fn time(&self, deadline: Duration) -> Result<i128, AgentError> {
        let time = within(deadline, async |context| self.0.get_time(context, &Empty::new()).await).await?;
        Ok(i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanoseconds))
    }

    /// Moves the guest's CLOCK_REALTIME by so many nanoseconds.
    pub(crate) async fn adjust_time(&self, nanoseconds: i64, deadline: Duration) -> Result<(), AgentError> {
        let request = AdjustTimeRequest { nanoseconds, ..Default::default() };
        within(deadline, async |context| self.0.adjust_time(context, &request).await).await?;
        Ok(())
    }

    pub(crate) async fn pause(&self, key: &Key) -> Result<(), AgentError> {
        let request = PauseContainerRequest { container_id: key.container.to_string(), ..Default::default() };
        within(limits::RPC, async |context| self.0.pause_container(context, &request).await).await?;
        Ok(())
    }

    pub(crate) async fn resume(&self, key: &Key) -> Result<(), AgentError> {
        let request =
            ResumeContainerRequest { container_id: key.container.to_string(), ..Default::default() };
        within(limits::RPC, async |context| self.0.resume_container(context, &request).await).await?;
        Ok(())
    }

    pub(crate) async fn update(&self, key: &Key, resources: &Resources) -> Result<(), AgentError> {
        let request = UpdateContainerRequest {
            container_id: key.container.to_string(),
            resources: json("the resources", resources)?,
            ..Default::default()
        };
        within(limits::RPC, async |context| self.0.update_container(context, &request).await).await?;
        Ok(())
    }

    pub(crate) async fn stats(&self, key: &Key) -> Result<ContainerStatsResponse, AgentError> {
        let request = ContainerStatsRequest { container_id: key.container.to_string(), ..Default::default() };
        within(limits::RPC, async |context| self.0.container_stats(context, &request).await).await
    }

    /// The kills so far, at the latest after `limits::OOM_POLL`.
    pub(crate) async fn wait_oom(&self, key: &Key, seen: u64) -> Result<u64, AgentError> {
        let container_id = key.container.to_string();
        let request = WaitOomRequest { container_id, seen, ..Default::default() };
        Ok(within(limits::OOM_POLL + limits::RPC, async |context| self.0.wait_oom(context, &request).await)
            .await?
            .kills)
    }

    /// As `wait_oom`, without a deadline: it ends with the container or with the stream.
    pub(crate) async fn wait_oom_patiently(
        &self,
        container: &ContainerId,
        seen: u64,
    ) -> Result<u64, AgentError> {
        let container_id = container.to_string();
        let request = WaitOomRequest { container_id, seen, patient: true, ..Default::default() };
        Ok(self.0.wait_oom(context::Context::default(), &request).await?.kills)
    }

    /// True when the containers have not enough memory; false after `limits::PRESSURE_POLL` at the latest, or when it is called
    /// again. Without `more` they are held back no longer.
    pub(crate) async fn wait_pressure(&self, more: bool) -> Result<bool, AgentError> {
        let request = WaitPressureRequest { more, ..Default::default() };
        let deadline = limits::PRESSURE_POLL + limits::RPC;
        Ok(within(deadline, async |context| self.0.wait_pressure(context, &request).await).await?.pressed)
    }

    /// What is watched in volumes, when that is another set than that of `seen`; at the latest after
    /// `limits::WATCH_POLL`. A guest that need not `look` answers at once, and has none.
    pub(crate) async fn watches(&self, look: bool, seen: u64) -> Result<Answer, AgentError> {
        let request = WaitWatchesRequest { look, seen, ..Default::default() };
        let deadline = limits::WATCH_POLL + limits::RPC;
        let answer = within(deadline, async |context| self.0.wait_watches(context, &request).await).await?;
        Ok(answer.into())
    }

    /// Connections that programs have made to sockets of the host, by number and volume. Has no deadline: it ends with the stream.
    pub(crate) async fn connections(&self) -> Result<Vec<(u64, SharePath)>, AgentError> {
        let answer = self.0.wait_connections(context::Context::default(), &Empty::new()).await?;
        let told = answer.connections.into_iter().take(limits::RELAYS);
        // What is no name of a volume is none of ours.
        Ok(told.filter_map(|told| Some((told.number, told.volume.try_into().ok()?))).collect())
    }

    /// Tells watchers in the guest of changes that it has not made.
    pub(crate) async fn tell_watchers(&self, events: Vec<FileEvent>) -> Result<(), AgentError> {
        let events = events.into_iter().map(Into::into).collect();
        let request = TellWatchersRequest { events, ..Default::default() };
        within(limits::RPC, async |context| self.0.tell_watchers(context, &request).await).await?;
        Ok(())
    }

    pub(crate) async fn delete(&self, key: &Key) -> Result<(), AgentError> {
        let container_id = key.container.to_string();
        match &key.exec {
            None => {
                let request = DeleteContainerRequest { container_id, ..Default::default() };
                within(limits::DELETE, async |context| self.0.delete_container(context, &request).await)
                    .await?;
            }
            Some(exec) => {
                let exec_id = exec.to_string();
                let request = DeleteProcessRequest { container_id, exec_id, ..Default::default() };
                within(limits::DELETE, async |context| self.0.delete_process(context, &request).await)
                    .await?;
            }
        }
        Ok(())
    }
}

/// One call; the guest is given a little longer than it is waited for, so that it is here that the time is up.
async fn within<T>(
    deadline: Duration,
    call: impl AsyncFnOnce(context::Context) -> Result<T, ttrpc::Error>,
) -> Result<T, AgentError> {
    let context = context::with_duration(deadline + GRACE);
    match tokio::time::timeout(deadline, call(context)).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(AgentError::Silent { waited: deadline }),
    }
}

fn json<T: serde::Serialize>(what: &'static str, value: &T) -> Result<Vec<u8>, AgentError> {
    let bytes = serde_json::to_vec(value).map_err(|e| AgentError::Broken(io::Error::from(e).to_string()))?;
    if bytes.len() > limits::CONTAINER_SPEC { Err(AgentError::TooLarge { what }) } else { Ok(bytes) }
}
