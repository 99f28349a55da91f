//! Devices that come, and CPUs that come and go, while the guest runs.
//!
//! Devices are virtio-mmio slots, all announced at boot. The VMM fills a slot, then `bind` has the kernel's driver
//! probe it; before it empties one, `unbind` has the driver let go. The write to sysfs answers when the probe is done, so nothing here waits for an event, but it blocks: call
//! these from a thread that may.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use bulkhead_protocol::{cpu_list::CpuList, limits};

#[derive(Debug, thiserror::Error)]
pub enum HotplugError {
    #[error("bind slot {slot}: the machine has {slots} slots", slots = limits::SLOTS)]
    NoSlot { slot: u32 },
    #[error("bind slot {slot}: no driver of the guest's kernel takes a device there")]
    NotBound { slot: u32 },
    #[error("bind slot {slot}")]
    Slot { slot: u32, source: io::Error },
    #[error("unbind slot {slot}")]
    Unbind { slot: u32, source: io::Error },
    #[error("look for the disk in slot {slot}: there is none")]
    NoDisk { slot: u32 },
    #[error("set {wanted} CPUs online: the machine has {present}")]
    Cpus { wanted: u32, present: u32 },
    #[error("read the list of CPUs {}", .path.display())]
    CpuList { path: PathBuf, source: io::Error },
    #[error("set CPU {cpu} {state}")]
    Cpu { cpu: u32, state: &'static str, source: io::Error },
}

/// A block device of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockDevice {
    /// As in /dev.
    pub name: String,
    pub major: u32,
    pub minor: u32,
}

/// How far a disk is read ahead, in KiB. Each request to the VMM costs an exit from the guest, so fewer and larger ones are worth
/// more than on a host, where the kernel reads 128 KiB ahead.
const READ_AHEAD: &str = "1024";

/// The kernel's view in sysfs, elsewhere in tests.
#[derive(Debug, Clone)]
pub struct Sysfs(PathBuf);

impl Default for Sysfs {
    fn default() -> Self {
        Self("/sys".into())
    }
}

impl Sysfs {
    /// Binds a filled slot. A slot that is bound already is fine.
    pub fn bind(&self, slot: u32) -> Result<(), HotplugError> {
        let device = self.device(slot)?;
        if bound(&device) {
            return Ok(());
        }
        match fs::write(self.0.join("bus/platform/drivers/virtio-mmio/bind"), name(slot)) {
            Ok(()) if bound(&device) => {
                if let Some(block) = block_device(&device) {
                    // Without it the disk is slower, and works.
                    let _ = fs::write(block.join("queue/read_ahead_kb"), READ_AHEAD);
                }
                Ok(())
            }
            // The transport took the slot but no driver the device.
            Ok(()) => Err(HotplugError::NotBound { slot }),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Err(HotplugError::NotBound { slot }),
            Err(source) => Err(HotplugError::Slot { slot, source }),
        }
    }

    /// Unbinds a slot. One that is not bound is fine.
    pub fn unbind(&self, slot: u32) -> Result<(), HotplugError> {
        let device = self.device(slot)?;
        if !device.join("driver").exists() {
            return Ok(());
        }
        fs::write(self.0.join("bus/platform/drivers/virtio-mmio/unbind"), name(slot))
            .map_err(|source| HotplugError::Unbind { slot, source })
    }

    /// What the kernel has made of the disk in a slot that is bound.
    pub fn disk(&self, slot: u32) -> Result<BlockDevice, HotplugError> {
        let device = self.device(slot)?;
        let found = || {
            let block = block_device(&device)?;
            let numbers = fs::read_to_string(block.join("dev")).ok()?;
            let (major, minor) = numbers.trim().split_once(':')?;
            let name = block.file_name()?.to_str()?.to_owned();
            Some(BlockDevice { name, major: major.parse().ok()?, minor: minor.parse().ok()? })
        };
        found().ok_or(HotplugError::NoDisk { slot })
    }

    /// Brings CPUs online, lowest first, or offline, highest first, until `wanted` are. CPU 0 always is.
    pub fn set_online_cpus(&self, wanted: u32) -> Result<(), HotplugError> {
        let present = self.cpus("present")?;
        if wanted == 0 || wanted > present.count() {
            return Err(HotplugError::Cpus { wanted, present: present.count() });
        }
        let online = self.cpus("online")?;
        for (index, cpu) in (0..).zip(present.numbers()) {
            let up = index < wanted;
            if up != online.contains(cpu) {
                let path = self.0.join(format!("devices/system/cpu/cpu{cpu}/online"));
                let state = if up { "online" } else { "offline" };
                fs::write(path, if up { "1" } else { "0" }).map_err(|source| HotplugError::Cpu {
                    cpu,
                    state,
                    source,
                })?;
            }
        }
        Ok(())
    }

    fn cpus(&self, name: &str) -> Result<CpuList, HotplugError> {
        let path = self.0.join("devices/system/cpu").join(name);
        let text = fs::read_to_string(&path);
        text.and_then(|text| CpuList::try_from(text).map_err(io::Error::other))
            .map_err(|source| HotplugError::CpuList { path, source })
    }

    fn device(&self, slot: u32) -> Result<PathBuf, HotplugError> {
        let device = self.0.join("bus/platform/devices").join(name(slot));
        if slot as usize >= limits::SLOTS || !device.exists() {
            return Err(HotplugError::NoSlot { slot });
        }
        Ok(device)
    }
}

fn name(slot: u32) -> String {
    format!("virtio-mmio.{slot}")
}

/// Whether a virtio device with a driver sits on the slot: `virtioN/driver`. The write to `bind` alone does not say.
fn bound(device: &Path) -> bool {
    virtio_devices(device).any(|virtio| virtio.join("driver").exists())
}

/// The virtio devices on a slot, of which there is one at most.
fn virtio_devices(device: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(device).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("virtio"))?;
        number.parse::<u32>().is_ok().then(|| entry.path())
    })
}

/// The block device of the slot, if that has a disk: `virtioN/block/vdX`.
fn block_device(device: &Path) -> Option<PathBuf> {
    let blocks = |virtio: PathBuf| fs::read_dir(virtio.join("block")).ok()?.flatten().next();
    Some(virtio_devices(device).find_map(blocks)?.path())
}

#[cfg(test)]
mod tests;
