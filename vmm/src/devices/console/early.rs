//! The guest's voice before hvc0: the transmit register of the first UART, for `earlyprintk=ttyS0`.
//!
//! Linux's virtio console drops what was printed before its probe, so a panic in early boot would be silent. With
//! `quiet` only errors come this way, one exit or two for each character; the kernel leaves the UART when hvc0 is
//! there. Everything else about a UART is missing: reads float high, which says "ready to transmit".

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use super::output::Output;

const DATA: u16 = 0x3f8;
const LINE_CONTROL: u16 = 0x3fb;
/// Line control: the data register is the low half of the baud rate's divisor.
const DIVISOR_LATCH: u8 = 0x80;

#[derive(Debug)]
pub struct Early {
    output: Arc<Output>,
    divisor_latch: AtomicBool,
}

impl Early {
    pub fn new(output: Arc<Output>) -> Self {
        Self { output, divisor_latch: AtomicBool::new(false) }
    }

    /// A write of the guest to any port.
    pub fn write(&self, port: u16, data: &[u8]) {
        match (port, data) {
            (LINE_CONTROL, [control]) => {
                self.divisor_latch.store(control & DIVISOR_LATCH != 0, Ordering::Relaxed);
            }
            (DATA, text) if !self.divisor_latch.load(Ordering::Relaxed) => self.output.say(text),
            _ => {}
        }
    }
}
