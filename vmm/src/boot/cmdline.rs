//! The kernel command line, written from typed options and nothing else: no text of a user ever gets here.
//!
//! Quiet by default, because each line on a console costs a round trip; `debug` shows all levels. Every slot is
//! announced, filled or not, so that a device can be plugged without a word to the kernel.

use std::fmt;

use bulkhead_protocol::{limits::SLOTS, vmm::Slot};

use crate::devices::mmio;

pub(super) const ADDRESS: u64 = 0x20000;
/// COMMAND_LINE_SIZE of Linux on x86.
pub(super) const MAX: usize = 2048;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandLine {
    /// vCPUs that the kernel brings up.
    pub vcpus: u8,
    /// vCPUs that exist.
    pub max_vcpus: u8,
    /// Memory can be plugged.
    pub grows: bool,
    /// Kernel messages of all levels.
    pub debug: bool,
    /// The host keeps time by its TSC.
    pub stable_tsc: bool,
}

/// What every guest gets: how to end (`reboot=p` writes the reset control register, which no crash does by chance; a
/// panic reboots at once),
/// and what need not be checked, or set aside for hardware, in a virtual machine. Its tick is slow, so it does not wait
/// for ticks to end a grace period of RCU.
const ALWAYS: &str = "console=hvc0 reboot=p panic=-1 no_timer_check random.trust_cpu=on cryptomgr.notests \
     swiotlb=noforce rcupdate.rcu_expedited=1";

impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(ALWAYS)?;
        if self.stable_tsc {
            // No watchdog compares it with another clock.
            f.write_str(" tsc=reliable")?;
        }
        f.write_str(if self.debug { " loglevel=8" } else { " quiet" })?;
        // After the level, which holds only for consoles that come later on the line. Ends when hvc0 is there.
        f.write_str(" earlyprintk=ttyS0")?;
        if self.vcpus < self.max_vcpus {
            // Else a kernel that starts with one CPU takes the lock prefixes out of its code, and puts them back when the second
            // comes. Each of the places is a write to the kernel's code, with a switch of page tables.
            write!(f, " maxcpus={} noreplace-smp", self.vcpus)?;
        }
        if self.grows {
            // What is plugged goes where it can be taken away again, as long as the kernel has enough of its own.
            f.write_str(" memory_hotplug.online_policy=auto-movable")?;
        }
        for slot in (0..SLOTS as u8).map(Slot) {
            write!(f, " virtio_mmio.device=4K@{:#x}:{}", mmio::address(slot), mmio::gsi(slot))?;
        }
        Ok(())
    }
}
