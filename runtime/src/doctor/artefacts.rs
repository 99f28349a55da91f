//! What is installed: the guest kernel, the guest image and the VMM, and whether KVM runs guests under it.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};

use super::Finding;

const KERNEL_HINT: &str = "install Bulkhead's kernel, or set `kernel` in the configuration";
const IMAGE_HINT: &str = "install Bulkhead's guest image, or set `initramfs` in the configuration";
const VMM_HINT: &str = "install bulkhead-vmm of the same release, or set `vmm` in the configuration";
const KVM_HINT: &str = "enable virtualization in firmware, load kvm_intel or kvm_amd, run as root or in group kvm; \
                        inside a VM, ask for nested virtualization";

const GUEST_HINT: &str = "use another machine, or the lab for a trial (docs/lab.md): this KVM does not run unmodified \
                          guests, as some clouds emulate KVM";

const LACKING_HINT: &str = "update the host's kernel; in a virtual machine, the kernel of its host";

/// Bytes read of a kernel while looking for its version.
const KERNEL_SIZE_MAX: u64 = 512 << 20;
/// What the VMM may say.
const OUTPUT_MAX: u64 = 4096;
/// The probe itself gives up after 10 s.
const PROBE: Duration = Duration::from_secs(20);
const VERSION: Duration = Duration::from_secs(5);

pub(super) fn kernel(path: &Path) -> Finding {
    let subject = "guest kernel";
    let name = path.display();
    let bytes = match read(path, KERNEL_SIZE_MAX) {
        Ok(bytes) => bytes,
        Err(error) => return Finding::fail(subject, format!("open {name}: {error}"), KERNEL_HINT),
    };
    // e_ident: ELF, 64 bits, little-endian.
    if !bytes.starts_with(b"\x7fELF\x02\x01") {
        return Finding::fail(subject, format!("{name} is not an uncompressed vmlinux"), KERNEL_HINT);
    }
    match linux_version(&bytes) {
        Some(version) => Finding::ok(subject, format!("Linux {version}, {name}")),
        None => Finding::warn(subject, format!("{name} names no Linux version"), KERNEL_HINT),
    }
}

/// From the banner `Linux version 6.12.1 (…`.
fn linux_version(kernel: &[u8]) -> Option<String> {
    const BANNER: &[u8] = b"Linux version ";
    // The first occurrence may be a format string: take the first that goes on with a digit.
    let mut places = kernel.windows(BANNER.len() + 1).enumerate();
    let start = places.find_map(|(at, window)| {
        (window.starts_with(BANNER) && window[BANNER.len()].is_ascii_digit()).then_some(at + BANNER.len())
    })?;
    let version = kernel[start..].iter().take(64).take_while(|byte| byte.is_ascii_graphic());
    Some(version.map(|byte| char::from(*byte)).collect())
}

pub(super) fn initramfs(path: &Path) -> Finding {
    let subject = "guest image";
    let name = path.display();
    match read(path, 6) {
        Err(error) => Finding::fail(subject, format!("open {name}: {error}"), IMAGE_HINT),
        // cpio "newc"
        Ok(magic) if magic != b"070701" => {
            Finding::fail(subject, format!("{name} is not an uncompressed initramfs"), IMAGE_HINT)
        }
        Ok(_) => Finding::ok(subject, name.to_string()),
    }
}

pub(super) fn vmm(path: &Path) -> Finding {
    let subject = "VMM";
    let name = path.display();
    let expected = concat!("bulkhead-vmm ", env!("CARGO_PKG_VERSION"));
    match run(path, "--version", VERSION) {
        Err(error) => Finding::fail(subject, format!("run {name}: {error}"), VMM_HINT),
        Ok(output) if output.success && output.text == expected => {
            Finding::ok(subject, format!("{expected}, {name}"))
        }
        Ok(output) => {
            let detail = format!("{name} has version {:?}, and this program needs {expected:?}", output.text);
            Finding::fail(subject, detail, VMM_HINT)
        }
    }
}

pub(super) fn kvm(vmm: &Path) -> Finding {
    let subject = "KVM";
    match run(vmm, "--probe-kvm", PROBE) {
        Err(error) => Finding::fail(subject, format!("the probe failed: {error}"), KVM_HINT),
        Ok(output) if output.success => Finding::ok(subject, output.text),
        Ok(output) if output.text.is_empty() => {
            Finding::fail(subject, "the probe ended without output", KVM_HINT)
        }
        Ok(output) => {
            // What the probe says when it got as far as running guest code, and when it did not try.
            let hint = match &output.text {
                text if text.contains("guest code") => GUEST_HINT,
                text if text.contains("this KVM lacks") => LACKING_HINT,
                _ => KVM_HINT,
            };
            Finding::fail(subject, output.text, hint)
        }
    }
}

fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

struct Output {
    success: bool,
    /// The first `OUTPUT_MAX` bytes of standard output, trimmed.
    text: String,
}

/// Killed and reaped when dropped, whatever happened.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(program: &Path, argument: &str, deadline: Duration) -> io::Result<Output> {
    let child = Command::new(program)
        .arg(argument)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut child = Running(child);
    if !ended_within(&child.0, deadline)? {
        return Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer after {deadline:?}")));
    }
    let success = child.0.wait()?.success();
    let mut text = String::new();
    if let Some(stdout) = child.0.stdout.take() {
        let mut bytes = Vec::new();
        stdout.take(OUTPUT_MAX).read_to_end(&mut bytes)?;
        text = String::from_utf8_lossy(&bytes).trim().to_owned();
    }
    Ok(Output { success, text })
}

fn ended_within(child: &Child, deadline: Duration) -> io::Result<bool> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("the child has no pid"))?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let end = Instant::now() + deadline;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(|_| io::Error::other("the deadline is too far away"))?;
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&left)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests;
