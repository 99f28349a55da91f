//! How a process ended.

use std::time::SystemTime;

use bulkhead_protocol::agent::WaitProcessResponse;

use crate::{store::ExitRecord, time::rfc3339};

pub(crate) const SIGKILL: u32 = 9;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exit {
    pub(crate) code: u32,
    /// Not 0: death by that signal.
    pub(crate) signal: u32,
    pub(crate) stdout_bytes: u64,
    pub(crate) stderr_bytes: u64,
    /// The container's cgroup has counted an out-of-memory kill.
    pub(crate) oom_killed: bool,
    pub(crate) at: SystemTime,
    /// The sandbox died under it.
    pub(crate) failure: Option<String>,
}

impl Exit {
    /// As the guest tells it now; codes and signals are capped at what Linux has.
    pub(super) fn told(answer: &WaitProcessResponse) -> Self {
        Self {
            code: answer.code.min(255),
            signal: answer.signal.min(127),
            stdout_bytes: answer.stdout_bytes,
            stderr_bytes: answer.stderr_bytes,
            oom_killed: answer.oom_killed,
            at: SystemTime::now(),
            failure: None,
        }
    }

    /// Of a process whose sandbox has just died.
    pub(super) fn lost(why: String) -> Self {
        Self {
            code: 0,
            signal: SIGKILL,
            stdout_bytes: 0,
            stderr_bytes: 0,
            oom_killed: false,
            at: SystemTime::now(),
            failure: Some(why),
        }
    }

    /// In one number, as shells and the Task API have it.
    pub(crate) fn status(&self) -> u32 {
        if self.signal == 0 { self.code } else { 128 + self.signal }
    }

    pub(super) fn record(&self) -> ExitRecord {
        ExitRecord {
            code: self.code,
            signal: self.signal,
            exited_at: rfc3339(self.at),
            sandbox_failure: self.failure.clone(),
        }
    }
}
