//! Boots real microVMs with the built `bulkhead-vmm`, and looks at how they live and end.
//!
//!   this program on the host ──control socket──▶ bulkhead-vmm ──▶ guest kernel ──▶ this program as /init (guest.rs)
//!
//! Needs root, a KVM that runs stock guests and a guest kernel (`BULKHEAD_KERNEL`, or the newest in the cache of
//! guest-kernel-config); where one of them is missing all tests are ignored, and the summary says so. Options as
//! libtest: words filter by name, `--exact` takes them as whole names, `--list` lists.

#![allow(clippy::unwrap_used, reason = "a test ends where its assumption does")]

mod cpu;
mod devices;
mod guest;
mod guest_devices;
mod hijack;
mod host;
mod jail;
mod memory;
mod report;
mod scenarios;
mod vhost;
mod vsock;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    time::Instant,
};

fn main() -> ExitCode {
    if std::process::id() == 1 {
        guest::init();
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    let given = |option: &str| words.iter().any(|word| word == option);
    let filters: Vec<&String> = words.iter().filter(|word| !word.starts_with('-')).collect();
    let asked_for =
        |name: &str, filter: &str| if given("--exact") { name == filter } else { name.contains(filter) };
    let chosen: Vec<_> = [scenarios::ALL, cpu::ALL, devices::ALL, memory::ALL, vhost::ALL]
        .into_iter()
        .flatten()
        .filter(|(name, _)| filters.is_empty() || filters.iter().any(|filter| asked_for(name, filter)))
        .collect();
    if given("--list") {
        chosen.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", chosen.len());
    let (mut passed, mut failed, mut ignored) = (0, 0, 0);
    let missing = host::missing();
    for (name, test) in chosen {
        if let Some(missing) = &missing {
            println!("test {name} ... ignored, {missing}");
            ignored += 1;
            continue;
        }
        let started = Instant::now();
        if catch_unwind(AssertUnwindSafe(test)).is_ok() {
            println!("test {name} ... ok ({:.1} s)", started.elapsed().as_secs_f32());
            passed += 1;
        } else {
            println!("test {name} ... FAILED");
            failed += 1;
        }
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {passed} passed; {failed} failed; {ignored} ignored; 0 measured; 0 filtered out"
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
