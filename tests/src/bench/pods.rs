//! Kubernetes pods by containerd's CRI plugin, with Bulkhead and with runc: how long a pod takes to run, what a probe costs, and
//! what an idle pod takes of the host.
//!
//! Each call is one of curl's, for both alike: it makes the ratios smaller than they are.

use std::{
    fs, io, thread,
    time::{Duration, Instant},
};

use bulkhead_sys::meminfo;

use super::samples::Samples;
use crate::host::{Cri, DEADLINE, HANDLER, Pod, RUNC, Refusal, cri_container, until};

/// Pods at once.
pub const MANY: usize = 10;

/// Seconds of Bulkhead's pods, and of runc's.
#[derive(Debug, Default)]
pub struct Pair {
    pub own: Samples,
    pub runc: Samples,
}

/// What was measured.
#[derive(Debug, Default)]
pub struct Measured {
    /// From the call for a pod until its container runs.
    pub start: Pair,
    /// An exec of `true` in a container that runs.
    pub probe: Pair,
    /// Until the containers of all pods run that were asked for at once.
    pub many: Pair,
    /// MiB of the host for each of those, when they are idle.
    pub memory: Pair,
}

#[derive(Debug, thiserror::Error)]
pub enum PodsError {
    #[error("containerd refused: {}", .0.message)]
    Refused(Refusal),
    #[error("the probe ended with {0}")]
    Probe(i32),
    #[error("read /proc/meminfo")]
    Memory(#[source] io::Error),
}

/// # Errors
/// A pod that cannot be made.
pub fn measure(rounds: usize) -> Result<Measured, PodsError> {
    let cri = Cri::new();
    let mut measured = Measured::default();
    // The first round is not counted.
    for round in 0..=rounds {
        for handler in [HANDLER, RUNC] {
            let (start, probe) = one(&cri, handler, rounds)?;
            if round > 0 {
                side(&mut measured.start, handler).0.push(start);
                side(&mut measured.probe, handler).0.push(probe);
            }
        }
        eprintln!("bench: pods, round {round} of {rounds}");
    }
    for handler in [HANDLER, RUNC] {
        let (took, memory) = many(&cri, handler)?;
        side(&mut measured.many, handler).0.push(took);
        side(&mut measured.memory, handler).0.push(memory);
    }
    Ok(measured)
}

fn side<'a>(pair: &'a mut Pair, handler: &str) -> &'a mut Samples {
    if handler == HANDLER { &mut pair.own } else { &mut pair.runc }
}

/// A pod with one container that runs: its id.
fn run(cri: &Cri, handler: &str, name: &str) -> Result<(Pod, String), PodsError> {
    let pod = cri.run_pod_by(handler, cri.pod_config(name)).map_err(PodsError::Refused)?;
    let id = cri.create(&pod, cri_container(name, &["sleep", "1000000"])).map_err(PodsError::Refused)?;
    cri.start(&id).map_err(PodsError::Refused)?;
    Ok((pod, id))
}

/// Seconds until a pod runs, and of a probe in it: the median of several.
fn one(cri: &Cri, handler: &str, probes: usize) -> Result<(f64, f64), PodsError> {
    let began = Instant::now();
    let (pod, id) = run(cri, handler, handler)?;
    let start = began.elapsed().as_secs_f64();
    let mut samples = Samples::default();
    for _ in 0..probes {
        let began = Instant::now();
        let exit = cri.exec(&id, &["true"]).map_err(PodsError::Refused)?.exit_code;
        samples.0.push(began.elapsed().as_secs_f64());
        if exit != 0 {
            return Err(PodsError::Probe(exit));
        }
    }
    cri.remove_pod(&pod);
    Ok((start, samples.median()))
}

/// Seconds until all run, and MiB of the host for each.
fn many(cri: &Cri, handler: &str) -> Result<(f64, f64), PodsError> {
    let before = settled()?;
    let began = Instant::now();
    let pods = thread::scope(|scope| {
        let start = |number| scope.spawn(move || run(cri, handler, &format!("{handler}{number}")));
        let started: Vec<_> = (0..MANY).map(start).collect();
        started.into_iter().map(|pod| pod.join().expect("a pod's thread")).collect::<Result<Vec<_>, _>>()
    })?;
    let took = began.elapsed().as_secs_f64();
    let taken = before - settled()?;
    for (pod, _) in &pods {
        cri.remove_pod(pod);
    }
    #[allow(clippy::cast_precision_loss)]
    Ok((took, taken / MANY as f64))
}

/// MiB of memory that the host has, once it does not change any more: what has ended is given back a while later, and a guest
/// gives back what its start took.
fn settled() -> Result<f64, PodsError> {
    const STILL_MIB: f64 = 8.0;
    const LOOKS: usize = 5;
    let mut seen = vec![available()?];
    until("memory does not change any more", DEADLINE, || {
        thread::park_timeout(Duration::from_secs(1));
        seen.push(available().unwrap_or(f64::NAN));
        let last = &seen[seen.len().saturating_sub(LOOKS)..];
        let (min, max) =
            last.iter().fold((f64::MAX, f64::MIN), |(min, max), &mib| (min.min(mib), max.max(mib)));
        (last.len() == LOOKS && max - min < STILL_MIB).then_some(())
    });
    available()
}

/// MemAvailable, in MiB.
fn available() -> Result<f64, PodsError> {
    let text = fs::read_to_string("/proc/meminfo").map_err(PodsError::Memory)?;
    #[allow(clippy::cast_precision_loss)]
    let mib = meminfo::kib(&text, "MemAvailable").map(|kib| kib as f64 / 1024.0);
    mib.ok_or_else(|| PodsError::Memory(io::ErrorKind::InvalidData.into()))
}
