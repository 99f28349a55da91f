//! Scopes of systemd: on its hosts the cgroup of a container is a unit, so that systemd leaves it alone.
//!
//!   StartTransientUnit (Slice, PIDs, Delegate) ─▶ job ─▶ JobRemoved "done"        StopUnit ─▶ job ─▶ ResetFailedUnit
//!
//! A directory that is made behind systemd's back has no unit: a reload takes controllers away, and a slice that stops takes
//! the directory along. What limits the unit as a whole is a property of it as well as a file, for systemd writes its
//! files anew whenever it likes (`properties`). Over systemd's own socket, as systemctl does for root: there need not be a
//! message bus. Every call and every job has a deadline.

mod properties;

use std::{future::Future, io, num::NonZeroUsize, path::Path, time::Duration};

use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use zbus::{
    Connection, DynamicType, MatchRule, Message, MessageStream, OwnedObjectPath, Variant, connection::Builder,
};

/// There while systemd is the init system: sd_booted(3).
const BOOTED: &str = "/run/systemd/system";
const SOCKET: &str = "unix:path=/run/systemd/private";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const OBJECT: &str = "/org/freedesktop/systemd1";
/// For one call with its job: what runc gives a job.
const DEADLINE: Duration = Duration::from_secs(30);
/// Signals of jobs of others that may come while ours runs.
const SIGNALS: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");
/// What systemd answers about a unit that it does not have.
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";

/// A scope, by the names of systemd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// `machine.slice`.
    pub slice: String,
    /// `libpod-web.scope`.
    pub unit: String,
}

#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    #[error("systemd does not run here, which --systemd-cgroup asks for")]
    Absent,
    #[error("talk to systemd")]
    Connect { source: Box<zbus::Error> },
    #[error("{step} {unit} of systemd")]
    Call { step: &'static str, unit: String, source: Box<zbus::Error> },
    #[error("{step} {unit} of systemd: its job ended as {result:?}")]
    Job { step: &'static str, unit: String, result: String },
    #[error("{step} {unit} of systemd: no answer within {DEADLINE:?}")]
    Late { step: &'static str, unit: String },
    #[error("start a thread that talks to systemd")]
    Thread { source: io::Error },
}

impl Scope {
    /// That of a directory of the hierarchy below `root`; `None` when its name is not that of a scope.
    pub fn at(path: &Path, root: &Path) -> Option<Self> {
        let unit = path.file_name()?.to_str().filter(|name| name.ends_with(".scope"))?.to_owned();
        let above = path.parent()?;
        // The root slice has no directory.
        let slice = if above == root { "-.slice" } else { above.file_name()?.to_str()? };
        Some(Self { slice: slice.to_owned(), unit })
    }
}

/// Has the unit keep what the files of its cgroup say now.
///
/// # Errors
/// A value that systemd does not take.
pub async fn follow(scope: &Scope, cgroup: &Path) -> Result<(), SystemdError> {
    set(scope, &properties::of(cgroup)).await
}

/// # Errors
/// `Absent` where systemd is not the init system.
pub fn is_there() -> Result<(), SystemdError> {
    if Path::new(BOOTED).is_dir() { Ok(()) } else { Err(SystemdError::Absent) }
}

/// Makes the scope, with `pid` in it: systemd makes none that is empty, and removes it with its last process.
///
/// # Errors
/// When systemd refuses: above all, a unit of this name exists.
pub fn start(scope: &Scope, id: &str, pid: u32) -> Result<(), SystemdError> {
    let description = format!("microVM container {id}");
    let properties: [(&str, Variant<'_>); 9] = [
        ("Description", description.as_str().into()),
        ("Slice", scope.slice.as_str().into()),
        ("PIDs", vec![pid].into()),
        ("Delegate", true.into()),
        // It neither waits for other units nor ends before the engines at shutdown.
        ("DefaultDependencies", false.into()),
        ("CPUAccounting", true.into()),
        ("MemoryAccounting", true.into()),
        ("IOAccounting", true.into()),
        ("TasksAccounting", true.into()),
    ];
    let others: [(&str, Vec<(&str, Variant<'_>)>); 0] = [];
    let unit = scope.unit.as_str();
    let body = (unit, "fail", properties.as_slice(), others.as_slice());
    blocking(async { Manager::connect().await?.job("start", unit, "StartTransientUnit", &body).await })
}

/// Ends the scope; its processes are gone. One that is not there is no error.
///
/// # Errors
/// When systemd does not do it.
pub fn stop(scope: &Scope) -> Result<(), SystemdError> {
    let unit = scope.unit.as_str();
    blocking(async {
        let manager = Manager::connect().await?;
        absent_is_fine(manager.job("stop", unit, "StopUnit", &(unit, "fail")).await)?;
        // A scope whose processes were killed may be left as failed, which keeps its name.
        absent_is_fine(manager.call("reset", unit, "ResetFailedUnit", &unit).await.map(drop))
    })
}

/// For as long as the unit lives.
async fn set(scope: &Scope, properties: &[(&str, Variant<'_>)]) -> Result<(), SystemdError> {
    let unit = scope.unit.as_str();
    let body = (unit, true, properties);
    let manager = Manager::connect().await?;
    manager.call("set properties of", unit, "SetUnitProperties", &body).await.map(drop)
}

/// Runs one exchange with systemd, wherever the caller is: inside another runtime as well.
pub fn blocking<T: Send>(
    work: impl Future<Output = Result<T, SystemdError>> + Send,
) -> Result<T, SystemdError> {
    let thread = |source| SystemdError::Thread { source };
    let inside = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(thread)?;
        runtime.block_on(work)
    };
    std::thread::scope(|scope| {
        let worker =
            std::thread::Builder::new().name("systemd".into()).spawn_scoped(scope, inside).map_err(thread)?;
        worker.join().unwrap_or_else(|_| Err(thread(io::Error::other("it panicked"))))
    })
}

fn absent_is_fine(result: Result<(), SystemdError>) -> Result<(), SystemdError> {
    match result {
        Err(SystemdError::Call { source, .. }) if matches!(&*source, zbus::Error::MethodError(name, ..) if name.as_str() == NO_SUCH_UNIT) => {
            Ok(())
        }
        other => other,
    }
}

/// systemd's manager object, over a connection to systemd itself.
struct Manager(Connection);

impl Manager {
    async fn connect() -> Result<Self, SystemdError> {
        is_there()?;
        let connect = async { Builder::address(SOCKET).p2p().method_timeout(DEADLINE).build().await };
        match tokio::time::timeout(DEADLINE, connect).await {
            Ok(connection) => {
                connection.map(Self).map_err(|source| SystemdError::Connect { source: Box::new(source) })
            }
            Err(_) => Err(SystemdError::Late { step: "connect for", unit: "a unit".to_owned() }),
        }
    }

    async fn call<B: Serialize + DynamicType>(
        &self,
        step: &'static str,
        unit: &str,
        method: &'static str,
        body: &B,
    ) -> Result<Message, SystemdError> {
        let call = self.0.call_method(None::<&str>, OBJECT, Some(MANAGER), method, body);
        let failed = |source| SystemdError::Call { step, unit: unit.to_owned(), source: Box::new(source) };
        call.await.map_err(failed)
    }

    /// A call that starts a job, and the end of that job.
    async fn job<B: Serialize + DynamicType>(
        &self,
        step: &'static str,
        unit: &str,
        method: &'static str,
        body: &B,
    ) -> Result<(), SystemdError> {
        let call = |source| SystemdError::Call { step, unit: unit.to_owned(), source: Box::new(source) };
        let rule = MatchRule::builder()
            .msg_type(zbus::message::Type::Signal)
            .interface(MANAGER)
            .member("JobRemoved")
            .build()
            .map_err(call)?;
        // Before the call: the signal may come before its reply is read.
        let mut removed = MessageStream::for_match_rule(rule, &self.0, Some(SIGNALS)).await.map_err(call)?;
        let reply = self.call(step, unit, method, body).await?;
        let job: OwnedObjectPath = reply.body().deserialize().map_err(call)?;
        let end = async {
            while let Some(signal) = removed.next().await {
                let signal = signal.map_err(call)?;
                let (_, removed, _, result): (u32, OwnedObjectPath, String, String) =
                    signal.body().deserialize().map_err(call)?;
                if removed == job {
                    return Ok(result);
                }
            }
            Err(call(zbus::Error::InputOutput(std::sync::Arc::new(io::ErrorKind::UnexpectedEof.into()))))
        };
        match tokio::time::timeout(DEADLINE, end).await {
            Ok(Ok(result)) if result == "done" => Ok(()),
            Ok(Ok(result)) => Err(SystemdError::Job { step, unit: unit.to_owned(), result }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(SystemdError::Late { step, unit: unit.to_owned() }),
        }
    }
}
