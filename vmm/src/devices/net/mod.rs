//! An Ethernet device (virtio 1.2, 5.1) in front of a tap of the host.
//!
//!   guest tx chain ──▶ `transmit::send` ──writev──▶ tap             each chain is one frame, copied once, by the host
//!   tap ──readv──▶ `receive::Receiver` ──▶ guest rx chains          kernel, from or to guest memory
//!
//! Frames travel with a virtio-net header in front (IFF_VNET_HDR), so checksums and segmentation are left to whoever
//! comes last: a frame may be 64 KiB. One pair of queues, no control queue: there is no filter to set, the tap's other
//! end has none. The tap is read only while the guest has given buffers for the largest frame; else frames wait there,
//! and the host drops what is too much, as a wire does.
//!
//! With a /dev/vhost-net the host kernel does all of that (`vhost`), and there is no worker.

mod error;
mod features;
mod frame;
mod metrics;
mod receive;
mod tap;
mod transmit;
mod vhost;

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use virtio_bindings::{virtio_ids::VIRTIO_ID_NET, virtio_net::VIRTIO_NET_S_LINK_UP};

pub use self::error::NetError;
use self::{
    error::MTU_MIN,
    features::Offloads,
    metrics::NetMetrics,
    receive::{ReceiveError, Received, Receiver},
    tap::Tap,
    vhost::Vhost,
};
use super::{
    device::{ActivateError, Activation, VirtioDevice},
    interrupt::Interrupt,
    on_loop::OnLoop,
    queue::ActiveQueue,
};
use crate::{
    event_loop::{Events, Handle, Registrar, Subscriber, Token, borrow},
    memory::Memory,
};

const QUEUE_SIZE: u16 = 256;
const RECEIVE_KICK: Token = Token(0);
const TRANSMIT_KICK: Token = Token(1);
const TAP: Token = Token(2);
/// Frames taken from the tap in one turn, so that other devices have theirs.
const TURN: usize = 64;

#[derive(Debug)]
pub struct Net {
    worker: OnLoop,
    /// Serves the queues instead of a worker.
    vhost: Option<Vhost>,
    tap: Arc<Tap>,
    mac: [u8; 6],
    mtu: u16,
    link: Arc<AtomicBool>,
    metrics: Arc<NetMetrics>,
}

impl Net {
    /// `tap` has been attached with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR; `vhost` is a fresh /dev/vhost-net.
    pub fn new(
        tap: OwnedFd,
        vhost: Option<OwnedFd>,
        mac: [u8; 6],
        mtu: u16,
        event_loop: Handle,
    ) -> Result<Self, NetError> {
        if mtu < MTU_MIN {
            return Err(NetError::Mtu(mtu));
        }
        if mac == [0; 6] || mac[0] & 1 != 0 {
            return Err(NetError::Mac(mac));
        }
        let tap = Arc::new(Tap::new(tap)?);
        let vhost = vhost.map(Vhost::new).transpose()?;
        let link = Arc::new(AtomicBool::new(true));
        let worker = OnLoop::new("net", event_loop);
        Ok(Self { worker, vhost, tap, mac, mtu, link, metrics: Arc::default() })
    }
}

impl VirtioDevice for Net {
    fn device_id(&self) -> u32 {
        VIRTIO_ID_NET
    }

    fn features(&self) -> u64 {
        features::offered(self.tap.has_uso())
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE, QUEUE_SIZE]
    }

    /// `struct virtio_net_config`: mac, status, the pairs of queues, mtu.
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let mut config = [0; 12];
        let up = if self.link.load(Ordering::Acquire) { VIRTIO_NET_S_LINK_UP as u16 } else { 0 };
        let (mac, rest) = config.split_at_mut(6);
        mac.copy_from_slice(&self.mac);
        for (field, value) in rest.chunks_exact_mut(2).zip([up, 1, self.mtu]) {
            field.copy_from_slice(&value.to_le_bytes());
        }
        super::device::copy_config(&config, offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let failed = |error: NetError| ActivateError { device: "net", source: Box::new(error) };
        let offloads = Offloads::of(activation.features);
        self.tap.set_offloads(offloads.to_guest()).map_err(failed)?;
        match &mut self.vhost {
            None => {
                let worker = Worker::new(activation, offloads, &self.tap, &self.link, &self.metrics);
                self.worker.start(worker.map_err(failed)?)
            }
            Some(vhost) => {
                let watch = vhost.start(&activation, self.tap.as_fd().as_raw_fd()).map_err(failed);
                let started = watch.and_then(|watch| self.worker.start(watch));
                if started.is_err() {
                    vhost.stop();
                }
                started
            }
        }
    }

    fn reset(&mut self) {
        if let Some(vhost) = &mut self.vhost {
            vhost.stop();
        }
        self.worker.stop();
    }

    /// Frames that the host kernel moves are not counted here; the tap's own counters know them.
    fn metrics(&self) -> Vec<(&'static str, u64)> {
        let vhost = [("vhost", self.vhost.is_some().into())];
        self.metrics.values().into_iter().chain(vhost).collect()
    }
}

#[derive(Debug)]
struct Worker {
    memory: Memory,
    interrupt: Arc<Interrupt>,
    receiver: Receiver,
    transmit: ActiveQueue,
    offloads: Offloads,
    tap: Arc<Tap>,
    link: Arc<AtomicBool>,
    metrics: Arc<NetMetrics>,
    /// What the loop watches the tap for; `None` when the tap is of no use any more.
    watched: Option<Events>,
}

impl Worker {
    fn new(
        activation: Activation,
        offloads: Offloads,
        tap: &Arc<Tap>,
        link: &Arc<AtomicBool>,
        metrics: &Arc<NetMetrics>,
    ) -> Result<Self, NetError> {
        let Activation { memory, queues, interrupt, features } = activation;
        features::merging(features)?;
        let [receive, transmit] = <[ActiveQueue; 2]>::try_from(queues).map_err(|_| NetError::Queues)?;
        Ok(Self {
            memory,
            interrupt,
            receiver: Receiver::new(receive),
            transmit,
            offloads,
            tap: Arc::clone(tap),
            link: Arc::clone(link),
            metrics: Arc::clone(metrics),
            watched: None,
        })
    }

    fn transmit(&mut self) {
        let Self { memory, interrupt, transmit, offloads, tap, metrics, .. } = self;
        transmit.clear_kick();
        let served = transmit.serve(&**memory, interrupt, |chain| {
            metrics.transmitted(&transmit::send(memory, chain, tap, *offloads));
            0
        });
        if let Err(error) = served {
            crate::log::limited(&error);
            self.interrupt.fail();
        }
    }

    /// Takes frames until the tap is empty, the guest's buffers are used up, or it is another device's turn.
    fn receive(&mut self, registrar: &mut Registrar<'_>) {
        if self.watched.is_none() {
            return;
        }
        match self.receiver.pump(&self.memory, &self.tap, TURN, &self.metrics) {
            Ok(Received { frames, starved }) => {
                if frames > 0 && self.receiver.needs_interrupt(&self.memory) {
                    self.interrupt.signal_queue();
                }
                // Starved, the next kick comes first. Level-triggered: what is left in the tap wakes us again.
                self.watch(if starved { Events::empty() } else { Events::IN }, registrar);
            }
            Err(ReceiveError::Ring(error)) => {
                crate::log::limited(&error);
                self.unwatch(registrar);
                self.interrupt.fail();
            }
            // The host took the tap away: the cable is out.
            Err(ReceiveError::Tap(error)) => {
                crate::log::limited(&error);
                self.unwatch(registrar);
                self.link.store(false, Ordering::Release);
                self.interrupt.signal_config();
            }
        }
    }

    fn watch(&mut self, events: Events, registrar: &mut Registrar<'_>) {
        if self.watched == Some(events) {
            return;
        }
        match registrar.modify(&*self.tap, TAP, events) {
            Ok(()) => self.watched = Some(events),
            Err(error) => crate::log::limited(&error),
        }
    }

    fn unwatch(&mut self, registrar: &mut Registrar<'_>) {
        self.watched = None;
        if let Err(error) = registrar.remove(&*self.tap) {
            crate::log::limited(&error);
        }
    }
}

impl Subscriber for Worker {
    fn start(&mut self, registrar: &mut Registrar<'_>) -> io::Result<()> {
        registrar.add(borrow(self.receiver.kick()), RECEIVE_KICK, Events::IN)?;
        registrar.add(borrow(self.transmit.kick()), TRANSMIT_KICK, Events::IN)?;
        registrar.add(&*self.tap, TAP, Events::empty())?;
        self.watched = Some(Events::empty());
        self.receive(registrar);
        self.transmit();
        Ok(())
    }

    fn ready(&mut self, token: Token, _events: Events, registrar: &mut Registrar<'_>) {
        match token {
            TRANSMIT_KICK => self.transmit(),
            RECEIVE_KICK => {
                self.receiver.clear_kick();
                self.receive(registrar);
            }
            _ => self.receive(registrar),
        }
    }
}

#[cfg(test)]
mod tests;
