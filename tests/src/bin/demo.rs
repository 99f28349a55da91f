//! `bulkhead-demo`: see `demo`. `rootfs` prepares on the build machine, `show` runs where KVM works; `make demo` does both.

use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use bulkhead_sys::chain;
use bulkhead_tests::demo::workload::{self, Ran, Workload};
use bulkhead_tests::demo::{self, rootfs};
use clap::Parser;

/// Prints what the userland is, which kernel runs it, and works a little.
const TOUR: &str = r#"
cat /etc/os-release | head -n 3
echo "kernel inside:  $(uname -r)"
python3 -c '
import math, platform
digits = 1000
x = 10 ** (digits + 10)
def arctan(inverse):
    term = total = x // inverse
    n, sign = 3, -1
    while term:
        term //= inverse * inverse
        total += sign * (term // n)
        n, sign = n + 2, -sign
    return total
pi = 4 * (4 * arctan(5) - arctan(239)) // 10 ** 10
print("python", platform.python_version(), "computed", digits, "digits of pi, the last ten:", str(pi)[-10:])
'
"#;

#[derive(Debug, Parser)]
enum Cli {
    /// Makes the userland, or finds it, and prints its directory
    Rootfs,
    /// Runs the workloads over a userland
    Show { userland: PathBuf },
}

fn main() -> ExitCode {
    let done = match Cli::parse() {
        Cli::Rootfs => rootfs::prepare().map(|path| println!("{}", path.display())),
        Cli::Show { userland } => show(&userland),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bulkhead-demo: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn show(userland: &Path) -> Result<(), demo::Error> {
    println!("== 1. A Debian userland, in a microVM of its own");
    println!("kernel outside: {}", host_kernel());
    let tour = Workload::new("tour", userland, &["sh", "-c", TOUR])?;
    let ran = tour.run(Stdio::null(), Stdio::inherit())?;
    println!("(took {:.1} s)", ran.took.as_secs_f64());

    println!("== 2. 64 MiB through a container's stdin and stdout, in another microVM");
    let (streamed, sum) = workload::pipeline(userland)?;
    println!("sha256 in and out: {sum} (took {:.1} s)", streamed.took.as_secs_f64());

    println!("== The first run's start, in milliseconds since the command was entered");
    print_timeline(&ran);
    Ok(())
}

/// `uname -r` of the machine that the microVMs run on.
fn host_kernel() -> String {
    nix::sys::utsname::uname()
        .map_or_else(|_| "?".into(), |name| name.release().to_string_lossy().into_owned())
}

fn print_timeline(ran: &Ran) {
    for (phase, at) in &ran.timeline {
        println!("{phase:>20}  {at:>10}");
    }
}
