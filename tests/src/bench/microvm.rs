//! The yardstick for the machine alone: QEMU's microvm with the same kernel and an init that resets at once.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use bulkhead_rootfs_builder::{BuildError, Initramfs};

/// Everything that one bare boot needs.
#[derive(Debug)]
pub struct Microvm {
    kernel: PathBuf,
    initramfs: PathBuf,
}

impl Microvm {
    /// Packs the probe, which resets when it is PID 1, as `/init`.
    pub fn new(kernel: &Path, probe: &Path, dir: &Path) -> Result<Self, BuildError> {
        let initramfs = dir.join("reset.img");
        Initramfs::new(probe, &[])?.write_file(&initramfs)?;
        Ok(Self { kernel: kernel.to_owned(), initramfs })
    }

    /// `qemu`, told to boot it. Start to exit: the guest resets, and `-no-reboot` makes that the end.
    pub fn command(&self, mut qemu: Command) -> Command {
        qemu.args(["-M", "microvm,accel=kvm,rtc=off,isa-serial=off,acpi=off,x-option-roms=off"])
            .args(["-cpu", "host", "-m", "512M", "-smp", "1", "-nodefaults", "-no-user-config", "-nographic"])
            .arg("-no-reboot")
            .arg("-kernel")
            .arg(&self.kernel)
            .arg("-initrd")
            .arg(&self.initramfs)
            .args(["-append", "quiet reboot=t panic=-1 tsc=reliable no_timer_check random.trust_cpu=on"])
            .stdin(Stdio::null());
        qemu
    }
}
