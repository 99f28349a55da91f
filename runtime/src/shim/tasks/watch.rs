//! Waits for what becomes of processes, and tells containerd: exits, and kills for memory.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use bulkhead_protocol::{
    id::{ContainerId, ExecId},
    sandbox::{WaitOomRequest, WaitProcessRequest, WaitProcessResponse},
};
use containerd_shim_protos::events::task::{TaskExit, TaskOOM};
use tokio::time::timeout;

use super::{
    super::{
        process::{Phase, Process, lock},
        reaper::Status,
    },
    DRAINED, Task, TaskError, Tasks, blocking,
    execs::Exec,
    io,
};
use crate::{
    api::{
        client::{KILLED, Server, exit_code, unbounded},
        container::Container,
    },
    log::note,
    store::names,
    time::timestamp,
};

/// For the server to say how a process ended whose proxy is gone.
const TOLD: Duration = Duration::from_secs(1);
/// For the execs of a container that has ended to be known as ended.
const EXECS: Duration = Duration::from_secs(2);

impl Tasks {
    pub(super) async fn watch_exec(self: Arc<Self>, task: Arc<Task>, id: ExecId, exec: Arc<Exec>) {
        let (status, _) = self.ended(&task.id, Some(&id), exec.process.pid()).await;
        self.publish_exit(&task, id.as_str(), &exec.process, status);
        exec.process.outputs_taken().await;
    }

    pub(super) async fn watch_init(self: Arc<Self>, task: Arc<Task>) {
        let (status, told) = self.ended(&task.id, None, task.init.pid()).await;
        // Those that go with it go first.
        let execs: Vec<_> = lock(&task.execs).values().cloned().collect();
        let running = execs.iter().filter(|exec| matches!(exec.process.phase(), Phase::Running));
        let _ = timeout(EXECS, futures::future::join_all(running.map(|exec| exec.process.wait()))).await;
        if told.is_some_and(|exit| exit.oom_killed) {
            self.publish_oom(&task, None);
        }
        self.publish_exit(&task, task.id.as_str(), &task.init, status);
        task.init.outputs_taken().await;
    }

    /// Waits for the end of a process: its exit, and what the server says of it.
    async fn ended(
        &self,
        container: &ContainerId,
        exec: Option<&ExecId>,
        pid: u32,
    ) -> (Status, Option<WaitProcessResponse>) {
        let mut proxy = self.commands.reaper.of(pid);
        let exec = exec.map_or_else(String::new, ExecId::to_string);
        let told = tokio::spawn(told(self.commands.root.clone(), container.clone(), exec));
        tokio::pin!(told);
        let known = |told: Result<Option<WaitProcessResponse>, _>| told.ok().flatten();
        let (status, told) = tokio::select! {
            status = &mut proxy => {
                (status.ok(), timeout(TOLD, &mut told).await.ok().and_then(known))
            }
            told = &mut told => match known(told) {
                Some(told) => (timeout(DRAINED, proxy).await.ok().and_then(Result::ok), Some(told)),
                // The server is gone; its proxies end as soon as they notice.
                None => (proxy.await.ok(), None),
            },
        };
        (status.or_else(|| told.as_ref().map(exit_code)).unwrap_or(KILLED), told)
    }

    fn publish_exit(&self, task: &Task, id: &str, process: &Process, status: Status) {
        process.exited(status);
        let at = process.exit().map(|exit| timestamp(exit.at)).unwrap_or_default();
        let event = TaskExit {
            container_id: task.id.to_string(),
            id: id.to_owned(),
            pid: process.pid(),
            exit_status: status.into(),
            exited_at: at,
            ..Default::default()
        };
        self.tell(task, "exit", &event);
    }

    /// Tells of each time that the guest ran out of a container's memory, while the container lives.
    pub(super) async fn watch_memory(self: Arc<Self>, task: Arc<Task>) {
        let Some(server) = server_of(self.commands.root.clone(), task.id.clone()).await else { return };
        let mut seen = 0;
        loop {
            let request = WaitOomRequest { container_id: task.id.to_string(), seen, ..Default::default() };
            let Ok(counted) = server.sandbox.wait_oom(unbounded(), &request).await else { return };
            if counted.kills > seen {
                self.publish_oom(&task, Some(counted.kills));
            }
            seen = counted.kills;
        }
    }

    /// Once for each count; `None` at the end of a container, whose kill may have been told of.
    fn publish_oom(&self, task: &Task, kills: Option<u64>) {
        let mut told = lock(&task.ooms);
        let kills = kills.unwrap_or_else(|| (*told).max(1));
        if kills > *told {
            *told = kills;
            let event = TaskOOM { container_id: task.id.to_string(), ..Default::default() };
            self.tell(task, "oom", &event);
            // CRI-O takes no events, and looks for this file.
            if let Err(error) = fs::write(task.bundle.join("oom"), "") {
                note(&format!("note the kill for memory of {}: {error}", task.id));
            }
        }
    }
}

/// A connection to the server of a container's sandbox. `None` when there is none any more.
async fn server_of(root: PathBuf, id: ContainerId) -> Option<Server> {
    let connect = move || {
        let container = Container::open(&root, &id)?;
        let sandbox = container.sandbox.ok_or(TaskError::Finished)?;
        sandbox.dir.connect(names::SERVER_SOCKET).map_err(io("connect to the sandbox server"))
    };
    Server::on(blocking(connect).await.ok()?).ok()
}

/// How the server says that a process has ended; the exec is empty for a container's init. `None` when it says nothing.
async fn told(root: PathBuf, id: ContainerId, exec_id: String) -> Option<WaitProcessResponse> {
    let request = WaitProcessRequest { container_id: id.to_string(), exec_id, ..Default::default() };
    match server_of(root, id).await {
        Some(server) => server.sandbox.wait_process(unbounded(), &request).await.ok(),
        None => None,
    }
}
