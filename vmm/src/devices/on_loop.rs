//! A device's worker on the device loop: there from DRIVER_OK until reset takes it back.

use super::device::ActivateError;
use crate::event_loop::{Handle, Subscriber, SubscriberId};

#[derive(Debug)]
pub(super) struct OnLoop {
    device: &'static str,
    event_loop: Handle,
    worker: Option<SubscriberId>,
}

impl OnLoop {
    /// `device` names it in errors.
    pub(super) fn new(device: &'static str, event_loop: Handle) -> Self {
        Self { device, event_loop, worker: None }
    }

    pub(super) fn start(&mut self, worker: impl Subscriber + 'static) -> Result<(), ActivateError> {
        let failed = |error| ActivateError { device: self.device, source: Box::new(error) };
        self.worker = Some(self.event_loop.add(Box::new(worker)).map_err(failed)?);
        Ok(())
    }

    /// The worker is dropped when this returns, unless the loop does not answer.
    pub(super) fn stop(&mut self) {
        if let Some(worker) = self.worker.take()
            && let Err(error) = self.event_loop.remove(worker)
        {
            crate::log::limited(&error);
        }
    }
}
