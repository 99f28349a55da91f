use std::fs;

use super::super::Verdict;
use super::*;

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, bytes: &[u8]) -> std::path::PathBuf {
        let path = self.0.path().join("file");
        fs::write(&path, bytes).unwrap();
        path
    }

    /// A shell script in place of the VMM. Another program writes it: a descriptor of this process would be held for a moment
    /// by what other tests fork meanwhile, and a program that is open for writing cannot be run (ETXTBSY).
    fn script(&self, text: &str) -> std::path::PathBuf {
        let draft = self.write(format!("#!/bin/sh\n{text}\n").as_bytes());
        let path = self.0.path().join("script");
        let installed = Command::new("install").args(["-m", "755"]).args([&draft, &path]).status();
        assert!(installed.unwrap().success());
        path
    }
}

#[test]
fn a_kernel_says_its_version() {
    let files = Files::new();
    let path =
        files.write(b"\x7fELF\x02\x01\x01....Linux version %s (...Linux version 6.12.9-x (builder) #1");
    let finding = kernel(&path);
    assert_eq!(finding.verdict, Verdict::Ok);
    assert!(finding.detail.starts_with("Linux 6.12.9-x, "), "{}", finding.detail);
}

#[test]
fn a_kernel_that_is_missing_compressed_or_mute_is_found_out() {
    let files = Files::new();
    let missing = kernel(Path::new("/nonexistent/vmlinux"));
    assert_eq!(missing.verdict, Verdict::Fail);
    assert!(missing.detail.starts_with("open /nonexistent/vmlinux: No such file"));
    assert_eq!(kernel(&files.write(b"\x1f\x8b\x08compressed")).verdict, Verdict::Fail);
    assert_eq!(kernel(&files.write(b"\x7fELF\x02\x01\x01 no banner")).verdict, Verdict::Warn);
    assert_eq!(kernel(files.0.path()).verdict, Verdict::Fail);
}

#[test]
fn an_image_is_known_by_its_magic() {
    let files = Files::new();
    assert_eq!(initramfs(&files.write(b"070701rest")).verdict, Verdict::Ok);
    assert_eq!(initramfs(&files.write(b"\x1f\x8b\x08rest")).verdict, Verdict::Fail);
    assert_eq!(initramfs(&files.write(b"")).verdict, Verdict::Fail);
    assert_eq!(initramfs(Path::new("/nonexistent")).verdict, Verdict::Fail);
}

#[test]
fn a_vmm_of_another_release_is_found_out() {
    let files = Files::new();
    let same = files.script(concat!("echo bulkhead-vmm ", env!("CARGO_PKG_VERSION")));
    assert_eq!(vmm(&same).verdict, Verdict::Ok);
    let other = vmm(&files.script("echo bulkhead-vmm 99.0"));
    assert_eq!(other.verdict, Verdict::Fail);
    assert!(other.detail.contains("99.0"));
    assert_eq!(vmm(Path::new("/nonexistent")).verdict, Verdict::Fail);
}

#[test]
fn the_probes_words_and_exit_code_decide_on_kvm() {
    let files = Files::new();
    let good = kvm(&files.script("echo it runs"));
    assert_eq!((good.verdict, good.detail.as_str()), (Verdict::Ok, "it runs"));
    let bad = kvm(&files.script("echo it does not; exit 1"));
    assert_eq!((bad.verdict, bad.detail.as_str()), (Verdict::Fail, "it does not"));
    assert_eq!(bad.hint, Some(KVM_HINT));
    let emulated = kvm(&files.script("echo guest code ended badly; exit 1"));
    assert_eq!((emulated.verdict, emulated.hint), (Verdict::Fail, Some(GUEST_HINT)));
    let old = kvm(&files.script("echo this KVM lacks KVM_CAP_IRQFD; exit 1"));
    assert_eq!((old.verdict, old.hint), (Verdict::Fail, Some(LACKING_HINT)));
    let mute = kvm(&files.script("kill -SEGV $$"));
    assert_eq!(mute.detail, "the probe ended without output");
}

#[test]
fn a_program_that_hangs_is_killed_at_the_deadline() {
    let files = Files::new();
    let path = files.script("echo $$ > \"$0.pid\"; exec sleep 1000");
    let error = run(&path, "x", Duration::from_millis(300)).err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    if let Ok(pid) = fs::read_to_string(path.with_extension("pid")) {
        assert!(!Path::new("/proc").join(pid.trim()).exists());
    }
}

#[test]
fn output_is_read_up_to_a_limit() {
    let output = run(&Files::new().script("yes x | head -c 20000"), "x", VERSION).unwrap();
    assert!(output.text.len() <= 4096 && output.text.len() > 4000);
}
