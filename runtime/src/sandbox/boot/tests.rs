use super::*;
use crate::sandbox::fake::{CONSOLE, FakeAgent, Guest, PATIENCE, inputs, null, vmm};
use bulkhead_sys::chain;

async fn boot_with(guest: Guest, patience: Duration) -> Result<Agent, BootError> {
    let (vmm, _task) = vmm(guest, FakeAgent::default());
    boot_on(&vmm, null(), inputs(), &Timeline::default(), patience).await
}

async fn failure(guest: Guest) -> String {
    chain(&boot_with(guest, PATIENCE).await.unwrap_err())
}

#[tokio::test]
async fn a_guest_that_greets_is_up() {
    boot_with(Guest::Works, PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_line_that_is_no_greeting_is_told() {
    for bytes in [&b"GET / HTTP/1.1\n"[..], b"\xff\xfe\n", &[b'x'; limits::LINE]] {
        assert_eq!(failure(Guest::Says(bytes.to_vec())).await, "the guest's first line is not a greeting");
    }
}

#[tokio::test]
async fn bytes_after_the_greeting_are_refused() {
    let mut bytes = Greeting::new("6.12").to_string().into_bytes();
    bytes.extend_from_slice(b"more");
    assert_eq!(failure(Guest::Says(bytes)).await, "the guest's first line is not a greeting");
}

#[tokio::test]
async fn another_protocol_is_told_with_both_numbers_and_a_hint() {
    let error = boot_with(Guest::Says(b"bulkhead-agent 99 1.0 6.12\n".to_vec()), PATIENCE).await.unwrap_err();
    assert!(chain(&error).contains("guest speaks protocol 99"), "{error}");
    assert!(error.hint().unwrap().contains("same release"));
}

#[tokio::test]
async fn a_silent_guest_is_stopped_and_its_console_shown() {
    let error = boot_with(Guest::Silent, Duration::from_millis(50)).await.unwrap_err();
    let text = chain(&error);
    assert!(text.contains("guest agent silent for 50ms") && text.contains(CONSOLE), "{text}");
}

#[tokio::test]
async fn a_panic_is_told_with_the_console_once() {
    let text = failure(Guest::Panics).await;
    assert!(text.starts_with("the guest kernel panicked"), "{text}");
    assert_eq!(text.matches(CONSOLE).count(), 1, "{text}");
}

#[tokio::test]
async fn a_vmm_that_dies_at_boot_is_told_at_once() {
    assert_eq!(failure(Guest::VmmDies).await, "the VMM died");
}

#[tokio::test]
async fn a_kernel_that_cannot_be_loaded_is_told_though_the_agents_stream_ends_first() {
    assert_eq!(failure(Guest::CannotLoad).await, "load the kernel: not an ELF file");
}

#[test]
fn the_share_strips_setuid_only_when_told_to() {
    for strip_setuid in [false, true] {
        let (machine, _fds) = machine(null(), null(), Inputs { strip_setuid, ..inputs() });
        let exclusive_rootfs = true;
        let share =
            Device::Fs { tag: SHARE_TAG.to_owned(), read_only: false, strip_setuid, exclusive_rootfs };
        assert!(machine.devices.contains(&(FS, share)));
    }
}
