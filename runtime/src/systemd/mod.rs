//! Scopes of systemd: on hosts with systemd the cgroup of a container is a unit, so that systemd leaves it alone.
//!
//!   StartTransientUnit (Slice, PIDs, Delegate) ─▶ job ─▶ JobRemoved "done"        StopUnit ─▶ job ─▶ ResetFailedUnit
//!
//! A directory without a unit does not last: a reload of systemd takes its controllers away, and the end of the slice removes
//! it. A limit of the whole unit is set as a file and as a property, since systemd writes the files anew at any time
//! (`properties`). All calls go over systemd's own socket (`bus`), with a deadline.
//!
//! A user may have a systemd of its own, below whose cgroup its units are. A rootless engine means that one.

mod bus;
mod properties;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use bulkhead_sys::user_namespace;
use serde::Serialize;
use zbus::{DynamicType, OwnedObjectPath, OwnedVariant, Variant, wire::serialized::Data};

use self::bus::{Bus, BusError, read};

pub use crate::store::Scope;

/// There while systemd is the init system: sd_booted(3).
const BOOTED: &str = "/run/systemd/system";
const SOCKET: &str = "/run/systemd/private";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const OBJECT: &str = "/org/freedesktop/systemd1";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
/// For one call and its job: the time that runc gives a job.
const DEADLINE: Duration = Duration::from_secs(30);
/// The name of systemd's error about an unknown unit.
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";

#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    #[error("--systemd-cgroup needs systemd, and systemd is not the init system of this host")]
    Absent,
    #[error("connect to systemd at {}", .socket.display())]
    Connect { socket: PathBuf, source: BusError },
    #[error("ask systemd for its cgroup")]
    Tree { source: BusError },
    #[error("ask systemd to {step} {unit}")]
    Call { step: &'static str, unit: String, source: BusError },
    #[error("systemd did not {step} {unit}: the job ended as {result:?}")]
    Job { step: &'static str, unit: String, result: String },
}

impl SystemdError {
    /// systemd may have done it, and did not say so in time.
    pub fn is_late(&self) -> bool {
        matches!(self, Self::Call { source: BusError::Late(_), .. })
    }
}

/// Makes the values that the files of the cgroup have now properties of the unit.
///
/// # Errors
/// A value that systemd does not take.
pub fn follow(scope: &Scope, cgroup: &Path) -> Result<(), SystemdError> {
    let unit = scope.unit.as_str();
    // For as long as the unit lives.
    let body = (unit, true, properties::of(cgroup));
    Manager::connect()?.call("set properties of", unit, "SetUnitProperties", &body).map(drop)
}

/// # Errors
/// `Absent` where systemd is not the init system.
fn is_there() -> Result<(), SystemdError> {
    if Path::new(BOOTED).is_dir() { Ok(()) } else { Err(SystemdError::Absent) }
}

/// Where a systemd has its units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// The cgroup above all its slices, from the root of the hierarchy on and without a slash at either end. Empty for the root.
    pub group: String,
    /// Of units that name none.
    pub slice: &'static str,
}

impl Tree {
    /// That of the machine's systemd.
    pub const MACHINE: Self = Self { group: String::new(), slice: "system.slice" };

    /// That of the systemd which makes the scopes of this process.
    ///
    /// # Errors
    /// `Absent` where systemd is not the init system; a user's does not answer.
    pub fn find() -> Result<Self, SystemdError> {
        is_there()?;
        let Home::User(_) = Home::find() else { return Ok(Self::MACHINE) };
        let mut manager = Manager::connect()?;
        let mut get = || -> Result<String, BusError> {
            let answer = manager.0.call((OBJECT, PROPERTIES, "Get"), &(MANAGER, "ControlGroup"))?;
            match &*read::<OwnedVariant>(&answer)? {
                Variant::Str(group) => Ok(group.as_str().trim_matches('/').to_owned()),
                _ => Err(BusError::Message { what: "the cgroup is not a text" }),
            }
        };
        let group = get().map_err(|source| SystemdError::Tree { source })?;
        Ok(Self { group, slice: "user.slice" })
    }
}

/// Whose systemd it is.
#[derive(Debug, PartialEq, Eq)]
enum Home {
    Machine,
    /// That of this user, as logind starts it.
    User(u32),
}

impl Home {
    /// The machine's root has the machine's. Root of a user namespace may be a container's own, with a systemd like a machine's, or a
    /// rootless engine, whose user has one.
    fn find() -> Self {
        let root = rustix::process::geteuid().is_root();
        if root && user_namespace::is_initial() {
            return Self::Machine;
        }
        let user = Self::User(user_namespace::uid_outside());
        if root && !user.socket().exists() { Self::Machine } else { user }
    }

    fn socket(&self) -> PathBuf {
        match self {
            Self::Machine => PathBuf::from(SOCKET),
            Self::User(uid) => PathBuf::from(format!("/run/user/{uid}/systemd/private")),
        }
    }
}

/// Makes the scope, with `pid` in it: systemd makes no empty scope, and removes a scope with its last process.
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
    Manager::connect()?.job("start", unit, "StartTransientUnit", &body)
}

/// Ends the scope, whose processes are gone. A scope that does not exist is no error.
///
/// # Errors
/// When systemd does not do it.
pub fn stop(scope: &Scope) -> Result<(), SystemdError> {
    let unit = scope.unit.as_str();
    let mut manager = Manager::connect()?;
    absent_is_fine(manager.job("stop", unit, "StopUnit", &(unit, "fail")))?;
    // A scope whose processes were killed may be left as failed, which keeps its name.
    absent_is_fine(manager.call("reset", unit, "ResetFailedUnit", &unit).map(drop))
}

fn absent_is_fine(result: Result<(), SystemdError>) -> Result<(), SystemdError> {
    match result {
        Err(SystemdError::Call { source: BusError::Answer { name, .. }, .. }) if name == NO_SUCH_UNIT => {
            Ok(())
        }
        other => other,
    }
}

/// systemd's manager object, over a connection to systemd itself.
struct Manager(Bus);

impl Manager {
    fn connect() -> Result<Self, SystemdError> {
        is_there()?;
        let socket = Home::find().socket();
        let bus = Bus::connect(&socket, DEADLINE);
        bus.map(Self).map_err(|source| SystemdError::Connect { socket, source })
    }

    fn call<B: Serialize + DynamicType>(
        &mut self,
        step: &'static str,
        unit: &str,
        method: &'static str,
        body: &B,
    ) -> Result<Data<'static, 'static>, SystemdError> {
        let failed = |source| SystemdError::Call { step, unit: unit.to_owned(), source };
        self.0.call((OBJECT, MANAGER, method), body).map_err(failed)
    }

    /// A call that starts a job, and the end of that job. The signal of it may come before the reply is read.
    fn job<B: Serialize + DynamicType>(
        &mut self,
        step: &'static str,
        unit: &str,
        method: &'static str,
        body: &B,
    ) -> Result<(), SystemdError> {
        let failed = |source| SystemdError::Call { step, unit: unit.to_owned(), source };
        let job: OwnedObjectPath = read(&self.call(step, unit, method, body)?).map_err(failed)?;
        loop {
            let signal = self.0.signal("JobRemoved").map_err(failed)?;
            let (_, removed, _, result): (u32, OwnedObjectPath, String, String) =
                read(&signal).map_err(failed)?;
            match result {
                _ if removed != job => {}
                done if done == "done" => return Ok(()),
                result => return Err(SystemdError::Job { step, unit: unit.to_owned(), result }),
            }
        }
    }
}
