use std::{fs::File, os::fd::AsRawFd};

use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::memory::{HUGE_PAGE, MEMORY_BLOCK};

/// What the server hears of a process that does this, and the status of its end.
fn last_words_of(fault: impl FnOnce()) -> (Option<String>, i32) {
    let (ours, theirs) = PacketSocket::pair().unwrap();
    // SAFETY: the child uses no lock but malloc's, which fork(2) of glibc leaves free, and ends by _exit.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let handled = handle(&theirs);
        if handled.is_ok() {
            fault();
        }
        // SAFETY: ends the child; nothing of the parent's is flushed twice.
        unsafe { libc::_exit(77) };
    }
    assert!(child > 0);
    drop(theirs);
    let mut status = 0;
    // SAFETY: `status` is a place for the child's status.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    let said = match ours.receive::<Message>() {
        Ok((Message::Event(Event::Exited { reason, .. }), _)) => Some(reason.to_string()),
        Ok(other) => panic!("{other:?}"),
        Err(_) => None,
    };
    (said, status)
}

const ENDED_WITH_ONE: i32 = 1 << 8;

/// As the kernel sends it: a process may queue such a signal to itself alone.
fn raise_bus(code: i32) {
    // SAFETY: all zeros is a valid siginfo.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    (info.si_signo, info.si_code) = (libc::SIGBUS, code);
    // SAFETY: `info` is valid, and the ids are the caller's own.
    unsafe {
        libc::syscall(
            libc::SYS_rt_tgsigqueueinfo,
            libc::getpid(),
            libc::gettid(),
            libc::SIGBUS,
            &raw const info,
        );
    }
}

#[test]
fn an_error_of_the_hosts_memory_is_told_before_the_end() {
    for (code, word) in
        [(BUS_MCEERR_AR, "failed below the guest"), (BUS_MCEERR_AO, "memory of this VM fails")]
    {
        let (said, status) = last_words_of(|| raise_bus(code));
        let said = said.unwrap();
        assert!(said.starts_with("the VMM failed: ") && said.contains(word), "{said}");
        assert_eq!(status, ENDED_WITH_ONE);
    }
}

#[test]
fn an_access_behind_the_end_of_a_file_is_told() {
    let (said, status) = last_words_of(|| {
        let Ok(file) = tempfile::tempfile() else { return };
        // SAFETY: a fresh mapping of a file without contents; reading it is the fault to be had.
        unsafe {
            let flags = libc::MAP_PRIVATE;
            let page = libc::mmap(ptr::null_mut(), 4096, libc::PROT_READ, flags, File::as_raw_fd(&file), 0);
            ptr::read_volatile(page.cast::<u8>());
        }
    });
    assert_eq!(said.as_deref(), Some("the VMM failed: an access to memory that is not there (SIGBUS)"));
    assert_eq!(status, ENDED_WITH_ONE);
}

#[test]
fn a_device_that_touches_unplugged_memory_says_whose_fault_it_was() {
    let memory = Memory::growing(HUGE_PAGE, MEMORY_BLOCK).unwrap();
    let hotplug = memory.hotplug().unwrap();
    let (said, status) = last_words_of(|| {
        watch(&memory);
        let _ = memory.read_obj::<u64>(GuestAddress(hotplug.guest));
    });
    assert_eq!(
        said.as_deref(),
        Some("the VMM failed: the guest pointed a device at memory that it has not plugged")
    );
    assert_eq!(status, ENDED_WITH_ONE);
}

#[test]
fn any_other_fault_is_the_old_handlers() {
    let (said, status) = last_words_of(|| {
        // SAFETY: none: the fault is what the test is about. Page 0 is never mapped.
        unsafe { ptr::read_volatile(ptr::dangling::<u8>()) };
    });
    assert_eq!(said, None);
    assert_eq!(status & 0x7f, libc::SIGSEGV, "killed by the signal");
}
