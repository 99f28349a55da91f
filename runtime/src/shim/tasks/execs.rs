//! Further processes of a container: described first, made when they start.

use std::{
    ffi::OsString,
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bulkhead_protocol::id::ExecId;
use containerd_shim_protos::events::task::{TaskExecAdded, TaskExecStarted};
use tokio::task::spawn_blocking;

use super::{
    super::{
        process::{Exit, Phase, Process, lock},
        reaper::Status,
        stdio::Asked,
    },
    DRAINED, STARTED, Task, TaskError, Tasks, end, io,
};

/// Execs of one container that have not been deleted.
pub(super) const MAX: usize = 4096;

/// An exec, and what it is to run.
#[derive(Debug)]
pub(in crate::shim) struct Exec {
    pub(in crate::shim) process: Process,
    spec: Vec<u8>,
    /// Set by the first start, so that a second one at the same time makes nothing.
    started: AtomicBool,
}

impl Task {
    pub(in crate::shim) fn exec(&self, id: &ExecId) -> Result<Arc<Exec>, TaskError> {
        lock(&self.execs).get(id).cloned().ok_or_else(|| TaskError::NoExec(id.to_string()))
    }
}

impl Tasks {
    /// Keeps what an exec is to be; it is made when it starts.
    pub(in crate::shim) fn describe(
        &self,
        task: &Task,
        id: ExecId,
        asked: Asked,
        spec: Vec<u8>,
    ) -> Result<(), TaskError> {
        let mut execs = lock(&task.execs);
        if execs.contains_key(&id) {
            return Err(TaskError::Exists(id.to_string()));
        }
        if execs.len() >= MAX {
            return Err(TaskError::Execs(task.id.to_string()));
        }
        let event = TaskExecAdded {
            container_id: task.id.to_string(),
            exec_id: id.to_string(),
            ..Default::default()
        };
        execs.insert(
            id,
            Arc::new(Exec { process: Process::new(asked), spec, started: AtomicBool::new(false) }),
        );
        self.tell(task, "exec-added", &event);
        Ok(())
    }

    pub(in crate::shim) async fn start_exec(
        self: Arc<Self>,
        task: Arc<Task>,
        id: ExecId,
    ) -> Result<u32, TaskError> {
        let exec = task.exec(&id)?;
        if exec.started.swap(true, Ordering::Relaxed) {
            return Err(TaskError::Phase("the exec has been started already"));
        }
        let file = tempfile::Builder::new().prefix("bulkhead-").suffix(".json").tempfile_in(&task.bundle);
        let file = file.map_err(io("make a file for the process"))?.into_temp_path();
        fs::write(&file, &exec.spec).map_err(io("write the process"))?;
        let mut arguments: Vec<OsString> = vec!["exec".into(), "--detach".into(), "--exec-id".into()];
        arguments.extend([id.as_str().into(), "--process".into(), file.as_os_str().into()]);
        let asked = exec.process.asked.clone();
        let made = self.run_for(arguments, &task.id, &asked, &task.bundle, STARTED).await;
        let (proxy, held) = match made {
            Ok(made) => made,
            Err(error) => {
                // It has ended before it began: who waits for it hears so.
                exec.process.exited(Status::MAX);
                return Err(error);
            }
        };
        exec.process.is_made(proxy, held);
        exec.process.set_phase(Phase::Running);
        let event = TaskExecStarted {
            container_id: task.id.to_string(),
            exec_id: id.to_string(),
            pid: proxy.pid,
            ..Default::default()
        };
        self.tell(&task, "exec-started", &event);
        tokio::spawn(self.clone().watch_exec(task, id, exec));
        Ok(proxy.pid)
    }

    /// As `delete`, of an exec.
    pub(in crate::shim) fn delete_exec(
        &self,
        task: &Task,
        id: &ExecId,
    ) -> Result<(u32, Option<Exit>), TaskError> {
        let exec = task.exec(id)?;
        if exec.process.phase() == Phase::Running {
            return Err(TaskError::Phase("the exec runs: kill it first"));
        }
        lock(&task.execs).remove(id);
        exec.process.forget_outputs();
        if let Some(proxy) = exec.process.proxy() {
            spawn_blocking(move || end(&proxy, DRAINED));
        }
        Ok((exec.process.pid(), exec.process.exit()))
    }
}
