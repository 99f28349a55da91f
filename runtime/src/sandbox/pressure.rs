//! A machine whose container has no memory limit grows when its containers need it to, without being asked.
//!
//!   agent ─pressed─▶ what the host has left ─▶ twice the size, by `resize` ─▶ agent: hold them below the new size ─▶ …
//!
//! The guest holds its containers a little below the memory that it has, so they wait instead of being killed until it has
//! grown. When it cannot grow any more, by its bound or by the host's, nothing holds them: its kernel does what any kernel
//! does without memory. A guest that lies gets what its bound and the host allow, by and by, as every guest does.

use std::{sync::Arc, time::Duration};

use bulkhead_sys::chain;
use tokio::time::{Instant, sleep};

use super::{
    Sandbox,
    agent::{Agent, AgentError},
    cgroup::headroom::headroom,
    resize::{ResizeError, Room},
    sizing::{Memory, Need, grown},
};
use crate::log::note;

/// For a guest that answers at once although nothing has come of the last answer, or that fails.
const PAUSE: Duration = Duration::from_secs(1);
/// After the host could not give more, before it is looked at again.
const RETRY: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
enum GrowthError {
    #[error("the host has no memory left for it: {left} MiB beside a reserve")]
    NoneLeft { left: u64 },
    #[error(transparent)]
    Resize(#[from] ResizeError),
}

/// What to ask of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Hold the containers, and say when they press.
    Hold,
    /// Hold them no more.
    LetGo,
    /// Nothing.
    None,
}

impl Order {
    /// `held`: the guest holds them. `refused`: the host has not more now.
    fn of(room: Room, held: bool, refused: bool) -> Self {
        let grows = room.memory == Memory::Unlimited && room.memory_mib < room.grows_to_mib;
        match (grows && !refused, held) {
            (true, _) => Self::Hold,
            (false, true) => Self::LetGo,
            (false, false) => Self::None,
        }
    }
}

/// Until the guest is gone.
pub(crate) async fn follow(sandbox: Arc<Sandbox>, agent: Agent) {
    let mut room = sandbox.machine().room();
    let (mut held, mut refused) = (false, None::<Instant>);
    loop {
        let now = *room.borrow_and_update();
        if refused.is_some_and(|at| at.elapsed() >= RETRY) && next_size(&sandbox, now).is_ok() {
            refused = None;
        }
        let order = Order::of(now, held, refused.is_some());
        // From the moment in which it is asked to, answer or not.
        held |= order == Order::Hold;
        let asked = async {
            match order {
                Order::None if refused.is_none() => std::future::pending().await,
                Order::None => {
                    sleep(RETRY).await;
                    Ok(false)
                }
                Order::Hold | Order::LetGo => agent.wait_pressure(order == Order::Hold).await,
            }
        };
        let answer = tokio::select! {
            answer = asked => answer,
            changed = room.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        held = order == Order::Hold;
        match answer {
            Ok(true) if held => {
                if let Err(error) = grow(&sandbox, &agent).await {
                    note(&format!("the microVM stays as large as it is: {}", chain(&error)));
                    refused = Some(Instant::now());
                }
            }
            Ok(false) if held => {}
            Err(AgentError::Broken(_)) => return,
            Ok(_) | Err(_) => sleep(PAUSE).await,
        }
    }
}

async fn grow(sandbox: &Sandbox, agent: &Agent) -> Result<(), GrowthError> {
    let mut machine = sandbox.hold_machine().await;
    // Others may have changed it meanwhile.
    let now = machine.room();
    if Order::of(now, true, false) != Order::Hold {
        return Ok(());
    }
    let wanted = next_size(sandbox, now)?;
    let resized = machine.resize(agent, Need { memory_mib: Some(wanted), vcpus: None }).await;
    sandbox.tell_systemd().await;
    Ok(resized?)
}

/// In MiB.
fn next_size(sandbox: &Sandbox, now: Room) -> Result<u32, GrowthError> {
    let left = headroom(sandbox.cgroup().map(|cgroup| cgroup.path.as_path()), now.memory_mib);
    grown(now.memory_mib, now.grows_to_mib, left).ok_or(GrowthError::NoneLeft { left })
}

#[cfg(test)]
mod tests;
