//! Watchers in the guest (inotify) hear of changes that others than the guest make in its volumes.
//!
//!   agent ─WaitWatches─▶ `Marks` of a fanotify group ─▶ the kernel's queue ─▶ `News` ─TellWatchers─▶ agent ─▶ inotify
//!
//! One task for a sandbox with volumes. Until something is watched, there is a call that waits in the guest, and nothing
//! else. What the guest says is a set of paths in its own share, bounded in number and bytes; what the host says is
//! bounded by the kernel's queue, by `News`, and by one call at a time.

mod fanotify;
mod marks;
mod news;
mod volumes;

use std::{
    collections::HashSet,
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bulkhead_protocol::{limits, watch::Answer};
use bulkhead_sys::chain;
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::watch,
    task::{JoinError, JoinSet, spawn_blocking},
    time::sleep,
};

pub(crate) use self::volumes::Volumes;
use self::{
    fanotify::Group,
    marks::{MarkError, Marks},
    news::News,
};
use super::{
    agent::{Agent, AgentError},
    vmm::processes::Processes,
};
use crate::log::note;

/// Between two questions to the guest at least, whatever it answers.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// Between two batches of events: what happens meanwhile goes together.
const BATCH: Duration = Duration::from_millis(20);
/// Volumes that are warned of in one sandbox.
const WARNED: usize = 4096;
/// Bytes of the kernel's queue that are read at once.
const BUFFER: usize = 32 << 10;

#[derive(Debug, thiserror::Error)]
enum WatchesError {
    #[error("make a fanotify group")]
    Group { source: io::Error },
    #[error("read the fanotify group")]
    Read { source: io::Error },
    #[error("a thread that looks at watched files")]
    Thread { source: JoinError },
    #[error(transparent)]
    Agent(#[from] AgentError),
}

/// Follows what is watched in the volumes of a guest until they have no sender, or the guest is gone. `share` is a descriptor of
/// the root of the share.
pub(super) async fn follow(
    agent: Agent,
    share: OwnedFd,
    processes: Processes,
    mut volumes: watch::Receiver<Volumes>,
) {
    let mut follower = Follower {
        agent,
        marks: Arc::new(Mutex::new(Marks::new(share))),
        processes,
        group: None,
        telling: JoinSet::new(),
        warned: Warned::default(),
    };
    if let Err(error) = follower.run(&mut volumes).await
        && !matches!(error, WatchesError::Agent(AgentError::Broken(_)))
    {
        note(&format!("changes made on the host do not reach watchers in volumes: {}", chain(&error)));
    }
}

struct Follower {
    agent: Agent,
    marks: Arc<Mutex<Marks>>,
    processes: Processes,
    /// While something is watched.
    group: Option<Arc<AsyncFd<Group>>>,
    telling: JoinSet<Result<(), WatchesError>>,
    warned: Warned,
}

/// What was warned of already.
#[derive(Debug, Default)]
struct Warned {
    too_many: bool,
    volumes: HashSet<String>,
}

impl Follower {
    async fn run(&mut self, volumes: &mut watch::Receiver<Volumes>) -> Result<(), WatchesError> {
        let mut seen = 0;
        let mut had_any = false;
        loop {
            let now = volumes.borrow_and_update().clone();
            let any = !now.is_empty();
            if !any && !had_any {
                if volumes.changed().await.is_err() {
                    return Ok(());
                }
                continue;
            }
            had_any = any;
            let answer = tokio::select! {
                answer = self.agent.watches(any, seen) => answer?,
                told = self.telling.join_next(), if !self.telling.is_empty() => match told {
                    Some(told) => return told.map_err(|source| WatchesError::Thread { source })?,
                    None => continue,
                },
                changed = volumes.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return Ok(()),
                },
            };
            seen = answer.generation;
            self.take(answer, &now).await?;
            sleep(ASK_AGAIN).await;
        }
    }

    async fn take(&mut self, answer: Answer, volumes: &Volumes) -> Result<(), WatchesError> {
        if let Some(warning) = self.warned.of_too_many(&answer, volumes) {
            note(&warning);
        }
        let set = answer.watches;
        if set.is_empty() {
            // With the group, all marks are gone.
            self.telling.shutdown().await;
            if self.group.take().is_some() {
                lock(&self.marks).forget();
            }
            return Ok(());
        }
        let group = self.group()?;
        let marks = self.marks.clone();
        let work = move || lock(&marks).become_those_of(group.get_ref(), &set);
        let failed = spawn_blocking(work).await.map_err(|source| WatchesError::Thread { source })?;
        for warning in failed.iter().filter_map(|error| self.warned.of_mark(error, volumes)) {
            note(&warning);
        }
        Ok(())
    }

    fn group(&mut self) -> Result<Arc<AsyncFd<Group>>, WatchesError> {
        if let Some(group) = &self.group {
            return Ok(group.clone());
        }
        let failed = |source| WatchesError::Group { source };
        let group = Group::new().map_err(failed)?;
        // SAFETY: a `Group` stands for one descriptor that is open until it is dropped.
        let group = unsafe { AsyncFd::register_with_interest(group, Interest::READABLE) };
        let group = Arc::new(group.map_err(|error| failed(error.into_parts().1))?);
        let (agent, marks, processes) = (self.agent.clone(), self.marks.clone(), self.processes.clone());
        self.telling.spawn(tell(agent, group.clone(), marks, processes));
        Ok(self.group.insert(group).clone())
    }
}

/// Passes on what the kernel tells, one batch at a time.
async fn tell(
    agent: Agent,
    group: Arc<AsyncFd<Group>>,
    marks: Arc<Mutex<Marks>>,
    processes: Processes,
) -> Result<(), WatchesError> {
    let mut news = News::default();
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = |group: &Group| group.read(&mut buffer);
        let len = group.async_io(Interest::READABLE, read).await;
        let len = len.map_err(|source| WatchesError::Read { source })?;
        let own: Vec<u32> = processes.all().iter().map(|process| process.pid).collect();
        let marks = marks.clone();
        let mut taken = std::mem::take(&mut news);
        let bytes = std::mem::take(&mut buffer);
        let work = move || {
            taken.take(&fanotify::parse(&bytes[..len]), &lock(&marks), &own);
            (taken, bytes)
        };
        (news, buffer) = spawn_blocking(work).await.map_err(|source| WatchesError::Thread { source })?;
        if news.has_lost() {
            note("more changes were made in watched volumes than watchers could be told of");
        }
        while !news.is_empty() {
            agent.tell_watchers(news.next(limits::WATCH_EVENTS)).await?;
            sleep(BATCH).await;
        }
    }
}

fn lock(marks: &Mutex<Marks>) -> MutexGuard<'_, Marks> {
    marks.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is to be warned of now.
impl Warned {
    /// Until there are fewer.
    fn of_too_many(&mut self, answer: &Answer, volumes: &Volumes) -> Option<String> {
        let too_many = answer.left_out > 0;
        let warn = too_many && !self.too_many;
        self.too_many = too_many;
        warn.then(|| {
            let first = answer.first_left_out.as_ref();
            let first = first.map_or_else(|| "some of them".to_owned(), |path| volumes.name_of(path));
            format!(
                "{} more than {} files and directories are watched in volumes, {first} first: their watchers do not \
                 hear of changes made on the host",
                answer.left_out,
                limits::WATCHES,
            )
        })
    }

    /// Once for each volume. What is in none is not warned of: the guest may name any path of its share.
    fn of_mark(&mut self, error: &MarkError, volumes: &Volumes) -> Option<String> {
        let volume = volumes.volume_of(&error.path)?;
        let first = self.volumes.len() < WARNED && self.volumes.insert(volume);
        first.then(|| {
            let name = volumes.name_of(&error.path);
            format!("changes made on the host in {name} do not reach watchers: {}", chain(error))
        })
    }
}

#[cfg(test)]
mod tests;
