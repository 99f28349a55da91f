//! One process that containerd knows: the init of a container, or an exec.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::{sync::watch, time::sleep};

use super::{
    reaper::Status,
    stdio::{Asked, Input, Outputs},
    terminal::Terminal,
};
use crate::store;

/// Between two looks at whether output has been taken: a client that reads sees the end after the first ones.
const FIRST_LOOK: Duration = Duration::from_millis(2);
const LAST_LOOK: Duration = Duration::from_millis(200);

/// Where a process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Created,
    Running,
    Paused,
    Stopped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exit {
    pub(super) status: Status,
    pub(super) at: SystemTime,
}

/// What is held on the host for it.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) input: Option<Input>,
    pub(super) terminal: Option<Terminal>,
    /// Until they have been taken, or it is deleted.
    pub(super) outputs: Outputs,
}

#[derive(Debug)]
pub(super) struct Process {
    pub(super) asked: Asked,
    /// Its proxy. `None`: an exec that has not been started.
    proxy: Mutex<Option<store::Process>>,
    phase: Mutex<Phase>,
    held: Mutex<Held>,
    /// `CloseIO` was called, perhaps before the process was there. Changed with `held` locked.
    input_closed: AtomicBool,
    exit: watch::Sender<Option<Exit>>,
}

/// Each critical section leaves what it guards whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Process {
    pub(super) fn new(asked: Asked) -> Self {
        Self {
            asked,
            proxy: Mutex::default(),
            phase: Mutex::new(Phase::Created),
            held: Mutex::default(),
            input_closed: AtomicBool::new(false),
            exit: watch::Sender::new(None),
        }
    }

    /// It is there, and this is what stands for it.
    pub(super) fn is_made(&self, proxy: store::Process, held: Held) {
        *lock(&self.proxy) = Some(proxy);
        let mut kept = lock(&self.held);
        *kept = held;
        if let Some(input) = &mut kept.input {
            if self.input_closed.load(Ordering::Relaxed) {
                input.close();
            } else {
                input.hold();
            }
        }
    }

    /// 0: there is none yet. It stays what it was when the process has ended.
    pub(super) fn pid(&self) -> u32 {
        lock(&self.proxy).map_or(0, |proxy| proxy.pid)
    }

    pub(super) fn proxy(&self) -> Option<store::Process> {
        *lock(&self.proxy)
    }

    pub(super) fn phase(&self) -> Phase {
        *lock(&self.phase)
    }

    /// A process that has stopped stays so.
    pub(super) fn set_phase(&self, phase: Phase) {
        let mut current = lock(&self.phase);
        if *current != Phase::Stopped {
            *current = phase;
        }
    }

    pub(super) fn exited(&self, status: Status) {
        self.set_phase(Phase::Stopped);
        self.exit.send_if_modified(|exit| {
            let first = exit.is_none();
            exit.get_or_insert(Exit { status, at: SystemTime::now() });
            first
        });
    }

    pub(super) fn exit(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Its exit, when it has come.
    pub(super) async fn wait(&self) -> Exit {
        let mut exit = self.exit.subscribe();
        loop {
            if let Some(exit) = *exit.borrow_and_update() {
                return exit;
            }
            // The sender is ours: it does not go away.
            if exit.changed().await.is_err() {
                return Exit { status: Status::MAX, at: SystemTime::now() };
            }
        }
    }

    /// Of one that has ended: lets go of its outputs as soon as a client has taken what is in them. A fifo does not tell when it
    /// becomes empty, so this looks, less and less often.
    pub(super) async fn outputs_taken(&self) {
        let mut pause = FIRST_LOOK;
        while !lock(&self.held).outputs.are_taken() {
            sleep(pause).await;
            pause = (2 * pause).min(LAST_LOOK);
        }
    }

    /// Nobody has use for what is left of its output.
    pub(super) fn forget_outputs(&self) {
        lock(&self.held).outputs = Outputs::default();
    }

    /// Its input ends when its client does.
    pub(super) fn close_input(&self) {
        let mut held = lock(&self.held);
        self.input_closed.store(true, Ordering::Relaxed);
        if let Some(input) = &mut held.input {
            input.close();
        }
    }

    /// False when it has no terminal.
    pub(super) fn resize(&self, columns: u32, rows: u32) -> std::io::Result<bool> {
        let bounded = |cells: u32| u16::try_from(cells).unwrap_or(u16::MAX);
        match &lock(&self.held).terminal {
            None => Ok(false),
            Some(terminal) => terminal.resize(bounded(columns), bounded(rows)).map(|()| true),
        }
    }
}
