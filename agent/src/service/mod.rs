//! The agent's RPCs: each method converts the request into checked types, makes one call, converts the answer.
//!
//! Nothing is decided here. What fails is mapped to a status in `status`, the one border for that.

mod status;

use async_trait::async_trait;
use bulkhead_protocol::{
    agent::*,
    binfmt::{HANDLERS, Handler},
    container::{ContainerSpec, ProcessSpec, Resources},
    id::{ContainerId, ExecId},
    limits,
    tuning::Tuning,
    watch,
};
use bulkhead_sys::chain;
use protobuf::MessageField;
use serde::de::DeserializeOwned;
use ttrpc::{Result, r#async::TtrpcContext};

use crate::{
    binfmt,
    boot::SHARE,
    clock,
    container::Pressure,
    host_sockets::HostSockets,
    hotplug::{HotplugError, Sysfs},
    network::{self, settings::Settings},
    process::{SignalNumber, list},
    reaper::ExitStatus,
    sandbox::{
        Sandbox, StdioRequest,
        command::{Command, ExecOrder},
    },
    say,
    stdio::pending::Wanted,
    tuning::ProcSys,
    watches::Watches,
};
use status::{IntoStatus, invalid};

#[derive(Debug)]
pub struct Service {
    sandbox: Sandbox,
    sockets: HostSockets,
    sysfs: Sysfs,
    proc_sys: ProcSys,
    pressure: Pressure,
    watches: Watches,
}

impl Service {
    pub fn new(sandbox: Sandbox, sockets: HostSockets, watches: Watches) -> Self {
        Self {
            sandbox,
            sockets,
            sysfs: Sysfs::default(),
            proc_sys: ProcSys::default(),
            pressure: Pressure::default(),
            watches,
        }
    }

    /// What cannot be set stays as it is: no container fails for it.
    fn tune(&self, tuning: &Tuning) {
        for failure in self.proc_sys.apply(tuning) {
            say!("{}", chain(&failure));
        }
    }

    async fn freeze(&self, container: &str, frozen: bool) -> Result<Empty> {
        let container = container_id(container)?;
        let frozen = self.sandbox.send(&container, |reply| Command::Freeze { frozen, reply }).await;
        frozen.map_err(IntoStatus::into_status)?;
        Ok(Empty::new())
    }

    /// Runs what blocks on the kernel (probing a device, starting a CPU) beside the event loop.
    async fn hotplug(
        &self,
        work: impl FnOnce(Sysfs) -> std::result::Result<(), HotplugError> + Send + 'static,
    ) -> Result<Empty> {
        let sysfs = self.sysfs.clone();
        let done = tokio::task::spawn_blocking(move || work(sysfs)).await;
        done.map_err(IntoStatus::into_status)?.map_err(IntoStatus::into_status)?;
        Ok(Empty::new())
    }
}

#[async_trait]
impl Agent for Service {
    async fn create_container(
        &self,
        _: &TtrpcContext,
        request: CreateContainerRequest,
    ) -> Result<CreateContainerResponse> {
        let id = container_id(&request.container_id)?;
        let spec: ContainerSpec = from_json("container spec", &request.spec)?;
        let stdio = stdio(request.stdio)?;
        if !request.tuning.is_empty() {
            self.tune(&from_json("tuning", &request.tuning)?);
        }
        let pid = self.sandbox.create(id, spec, stdio).await.map_err(IntoStatus::into_status)?;
        Ok(CreateContainerResponse { pid, ..CreateContainerResponse::new() })
    }

    async fn start_container(
        &self,
        _: &TtrpcContext,
        request: StartContainerRequest,
    ) -> Result<StartContainerResponse> {
        let id = container_id(&request.container_id)?;
        let pid = self.sandbox.send(&id, |reply| Command::Start { reply }).await;
        let pid = pid.map_err(IntoStatus::into_status)?;
        Ok(StartContainerResponse { pid, ..StartContainerResponse::new() })
    }

    async fn exec(&self, _: &TtrpcContext, request: ExecRequest) -> Result<ExecResponse> {
        let container = container_id(&request.container_id)?;
        let id = request.exec_id.parse::<ExecId>().map_err(invalid)?;
        let process: Box<ProcessSpec> = from_json("process", &request.process)?;
        let stdio = stdio(request.stdio)?;
        let order = ExecOrder { process, cgroup: request.cgroup, stdio };
        let command = |reply| Command::Exec { id, order, reply };
        let pid = self.sandbox.send(&container, command).await.map_err(IntoStatus::into_status)?;
        Ok(ExecResponse { pid, ..ExecResponse::new() })
    }

    async fn signal_process(&self, _: &TtrpcContext, request: SignalProcessRequest) -> Result<Empty> {
        let container = container_id(&request.container_id)?;
        let exec = exec_id(&request.exec_id)?;
        let signal = SignalNumber::new(request.signal)
            .ok_or_else(|| invalid(format_args!("signal {} does not exist", request.signal)))?;
        let sent = if request.all {
            self.sandbox.send(&container, |reply| Command::SignalAll { signal, reply }).await
        } else {
            self.sandbox.send(&container, |reply| Command::Signal { exec, signal, reply }).await
        };
        sent.map_err(IntoStatus::into_status)?;
        Ok(Empty::new())
    }

    async fn wait_process(
        &self,
        _: &TtrpcContext,
        request: WaitProcessRequest,
    ) -> Result<WaitProcessResponse> {
        let container = container_id(&request.container_id)?;
        let exec = exec_id(&request.exec_id)?;
        let waiting = self.sandbox.send(&container, |reply| Command::Wait { exec, reply }).await;
        let exited = waiting.map_err(IntoStatus::into_status)?.0.await;
        let exited = exited.ok_or_else(|| status::internal("the agent is shutting down"))?;
        let (code, signal) = match exited.status {
            ExitStatus::Code(code) => (code.into(), 0),
            ExitStatus::Signal(signal) => (0, signal.into()),
        };
        Ok(WaitProcessResponse {
            code,
            signal,
            stdout_bytes: exited.counts.stdout,
            stderr_bytes: exited.counts.stderr,
            oom_killed: exited.oom_killed,
            ..WaitProcessResponse::new()
        })
    }

    async fn resize_tty(&self, _: &TtrpcContext, request: ResizeTtyRequest) -> Result<Empty> {
        let container = container_id(&request.container_id)?;
        let exec = exec_id(&request.exec_id)?;
        let size = |value: u32| u16::try_from(value).map_err(|_| invalid("window size is too large"));
        let (columns, rows) = (size(request.columns)?, size(request.rows)?);
        let command = |reply| Command::Resize { exec, columns, rows, reply };
        self.sandbox.send(&container, command).await.map_err(IntoStatus::into_status)?;
        Ok(Empty::new())
    }

    async fn list_processes(
        &self,
        _: &TtrpcContext,
        request: ListProcessesRequest,
    ) -> Result<ListProcessesResponse> {
        let container = container_id(&request.container_id)?;
        let listed = self.sandbox.send(&container, |reply| Command::List { reply }).await;
        let processes = listed.map_err(IntoStatus::into_status)?.into_iter().map(process_info).collect();
        Ok(ListProcessesResponse { processes, ..ListProcessesResponse::new() })
    }

    async fn pause_container(&self, _: &TtrpcContext, request: PauseContainerRequest) -> Result<Empty> {
        self.freeze(&request.container_id, true).await
    }

    async fn resume_container(&self, _: &TtrpcContext, request: ResumeContainerRequest) -> Result<Empty> {
        self.freeze(&request.container_id, false).await
    }

    async fn update_container(&self, _: &TtrpcContext, request: UpdateContainerRequest) -> Result<Empty> {
        let container = container_id(&request.container_id)?;
        let resources: Box<Resources> = from_json("resources", &request.resources)?;
        let command = |reply| Command::Update { resources, reply };
        self.sandbox.send(&container, command).await.map_err(IntoStatus::into_status)?;
        Ok(Empty::new())
    }

    async fn container_stats(
        &self,
        _: &TtrpcContext,
        request: ContainerStatsRequest,
    ) -> Result<ContainerStatsResponse> {
        let container = container_id(&request.container_id)?;
        let stats = self.sandbox.send(&container, |reply| Command::Stats { reply }).await;
        stats.map_err(IntoStatus::into_status)
    }

    async fn wait_oom(&self, _: &TtrpcContext, request: WaitOomRequest) -> Result<WaitOomResponse> {
        let container = container_id(&request.container_id)?;
        let WaitOomRequest { seen, patient, .. } = request;
        let command = |reply| Command::WaitOom { seen, patient, reply };
        let waiting = self.sandbox.send(&container, command).await.map_err(IntoStatus::into_status)?;
        Ok(WaitOomResponse { kills: waiting.0.await, ..WaitOomResponse::new() })
    }

    async fn wait_watches(
        &self,
        _: &TtrpcContext,
        request: WaitWatchesRequest,
    ) -> Result<WaitWatchesResponse> {
        let found = self.watches.wait(request.look, request.seen).await.map_err(IntoStatus::into_status)?;
        Ok(found.into())
    }

    async fn tell_watchers(&self, _: &TtrpcContext, request: TellWatchersRequest) -> Result<Empty> {
        if request.events.len() > limits::WATCH_EVENTS {
            return Err(invalid(format_args!("{} events are too many", request.events.len())));
        }
        let events = request.events.into_iter().map(watch::FileEvent::try_from);
        let events: Vec<_> = events.collect::<std::result::Result<_, _>>().map_err(invalid)?;
        self.watches.tell(&events).map_err(IntoStatus::into_status)?;
        Ok(Empty::new())
    }

    async fn wait_connections(&self, _: &TtrpcContext, _: Empty) -> Result<WaitConnectionsResponse> {
        let connections = self.sockets.wait().await.into_iter().map(|(number, volume)| Connection {
            number,
            volume: volume.into(),
            ..Connection::new()
        });
        Ok(WaitConnectionsResponse { connections: connections.collect(), ..WaitConnectionsResponse::new() })
    }

    async fn delete_process(&self, _: &TtrpcContext, request: DeleteProcessRequest) -> Result<Empty> {
        let container = container_id(&request.container_id)?;
        let exec = request.exec_id.parse::<ExecId>().map_err(invalid)?;
        let command = |reply| Command::DeleteProcess { exec, reply };
        self.sandbox.send(&container, command).await.map_err(IntoStatus::into_status)?;
        Ok(Empty::new())
    }

    async fn delete_container(&self, _: &TtrpcContext, request: DeleteContainerRequest) -> Result<Empty> {
        let container = container_id(&request.container_id)?;
        let deleted = self.sandbox.send(&container, |reply| Command::Delete { reply }).await;
        deleted.map_err(IntoStatus::into_status)?;
        Ok(Empty::new())
    }

    async fn register_handlers(&self, _: &TtrpcContext, request: RegisterHandlersRequest) -> Result<Empty> {
        let handlers: Vec<Handler> = from_json("handlers", &request.handlers)?;
        if handlers.len() > HANDLERS {
            return Err(invalid(format_args!("more than {HANDLERS} handlers")));
        }
        let done = tokio::task::spawn_blocking(move || binfmt::register(SHARE.as_ref(), &handlers)).await;
        done.map_err(IntoStatus::into_status)?.map_err(IntoStatus::into_status)?;
        Ok(Empty::new())
    }

    async fn get_time(&self, _: &TtrpcContext, _: Empty) -> Result<GetTimeResponse> {
        let (seconds, nanoseconds) = clock::now();
        Ok(GetTimeResponse { seconds, nanoseconds, ..GetTimeResponse::new() })
    }

    async fn adjust_time(&self, _: &TtrpcContext, request: AdjustTimeRequest) -> Result<Empty> {
        clock::adjust(request.nanoseconds).map_err(IntoStatus::into_status)?;
        Ok(Empty::new())
    }

    async fn update_network(&self, _: &TtrpcContext, request: UpdateNetworkRequest) -> Result<Empty> {
        let namespace = match request.container_id.as_str() {
            "" => None,
            id => {
                let opened = self.sandbox.send(&container_id(id)?, |reply| Command::Network { reply }).await;
                Some(opened.map_err(IntoStatus::into_status)?)
            }
        };
        let settings = Settings::try_from(request).map_err(invalid)?;
        network::update(settings, namespace).await.map_err(IntoStatus::into_status)?;
        Ok(Empty::new())
    }

    async fn wait_pressure(
        &self,
        _: &TtrpcContext,
        request: WaitPressureRequest,
    ) -> Result<WaitPressureResponse> {
        let pressed = self.pressure.wait(request.more).await.map_err(IntoStatus::into_status)?;
        Ok(WaitPressureResponse { pressed, ..WaitPressureResponse::new() })
    }

    async fn set_online_cpus(&self, _: &TtrpcContext, request: SetOnlineCpusRequest) -> Result<Empty> {
        self.hotplug(move |sysfs| sysfs.set_online_cpus(request.count)).await
    }

    async fn bind_slot(&self, _: &TtrpcContext, request: SlotRequest) -> Result<Empty> {
        self.hotplug(move |sysfs| sysfs.bind(request.slot)).await
    }

    async fn unbind_slot(&self, _: &TtrpcContext, request: SlotRequest) -> Result<Empty> {
        self.hotplug(move |sysfs| sysfs.unbind(request.slot)).await
    }
}

fn container_id(id: &str) -> Result<ContainerId> {
    id.parse().map_err(invalid)
}

/// Empty names the container's init.
fn exec_id(id: &str) -> Result<Option<ExecId>> {
    if id.is_empty() { Ok(None) } else { id.parse().map(Some).map_err(invalid) }
}

fn from_json<T: DeserializeOwned>(what: &str, json: &[u8]) -> Result<T> {
    if json.len() > limits::CONTAINER_SPEC {
        return Err(invalid(format_args!("{what} of {} bytes is too large", json.len())));
    }
    serde_json::from_slice(json).map_err(|error| invalid(format_args!("{what}: {error}")))
}

fn stdio(stdio: MessageField<Stdio>) -> Result<StdioRequest> {
    let stdio = stdio.unwrap_or_default();
    let token = match stdio.token.as_str() {
        "" => None,
        token => Some(token.parse().map_err(invalid)?),
    };
    let wanted = Wanted { stdin: stdio.stdin, stdout: stdio.stdout, stderr: stdio.stderr, tty: stdio.tty };
    Ok(StdioRequest { token, wanted })
}

fn process_info((info, exec): (list::Info, Option<ExecId>)) -> ProcessInfo {
    ProcessInfo {
        pid: info.pid,
        ppid: info.ppid,
        uid: info.uid,
        command: info.command,
        cpu_ticks: info.cpu_ticks,
        rss_bytes: info.rss_bytes,
        start_ticks: info.start_ticks,
        state: info.state.to_string(),
        exec_id: exec.map(String::from).unwrap_or_default(),
        ..ProcessInfo::new()
    }
}

#[cfg(test)]
mod tests;
