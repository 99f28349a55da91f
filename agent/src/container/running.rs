//! A container whose init was made: what further requests need of it.

use std::os::fd::OwnedFd;

use bulkhead_protocol::{
    container::{Confinement, IdMapping},
    id::ContainerId,
};

use super::cgroup::Cgroup;

/// Its init, which may be parked or have ended, and what every process of it gets.
#[derive(Debug)]
pub struct Running {
    pub id: ContainerId,
    pub pid: u32,
    pub pidfd: OwnedFd,
    pub cgroup: Cgroup,
    pub confinement: Confinement,
    /// Of its user namespace; empty without one.
    pub uid_mappings: Vec<IdMapping>,
}
