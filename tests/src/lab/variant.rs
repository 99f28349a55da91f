//! What of the emulation can be chosen.

use std::ffi::OsString;
use std::path::PathBuf;

/// What of the emulation can be chosen. The default is what labs use; the rest is for comparing (`bulkhead-lab soak`).
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct Variant {
    /// How TCG runs the lab's processors: a thread for each, or one for all.
    #[arg(long, value_enum, default_value_t)]
    pub accel_thread: Threads,
    /// Further properties of QEMU's TCG accelerator, such as `one-insn-per-tb=on`.
    #[arg(long)]
    pub accel: Option<String>,
    /// Processor of the lab, with features, as QEMU's -cpu takes it. It must have SVM.
    #[arg(long)]
    pub cpu_model: Option<String>,
    /// Another QEMU: a program, or a directory that packages were unpacked into.
    #[arg(long)]
    pub qemu: Option<PathBuf>,
    /// Another kernel: a directory that its package was unpacked into, with `modules.dep` made.
    #[arg(long)]
    pub lab_kernel: Option<PathBuf>,
    /// More of the lab kernel's command line.
    #[arg(long, allow_hyphen_values = true)]
    pub append: Option<String>,
}

/// How TCG runs the processors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Threads {
    #[default]
    Multi,
    Single,
}

impl Variant {
    /// The value of QEMU's `-accel`.
    pub(super) fn accelerator(&self) -> String {
        // A thread for each is what makes two processors out of two.
        let threads = match self.accel_thread {
            Threads::Multi => "multi",
            Threads::Single => "single",
        };
        let more = self.accel.iter().flat_map(|more| [",", more.as_str()]);
        ["tcg,thread=", threads].into_iter().chain(more).collect()
    }

    /// The options that make this variant, for a process with another working directory.
    #[must_use]
    pub fn arguments(&self) -> Vec<OsString> {
        let mut all = Vec::new();
        if self.accel_thread == Threads::Single {
            all.extend(["--accel-thread", "single"].map(OsString::from));
        }
        let texts = [("--accel", &self.accel), ("--cpu-model", &self.cpu_model), ("--append", &self.append)];
        for (option, text) in texts {
            all.extend(text.iter().flat_map(|text| [option.into(), text.into()]));
        }
        for (option, path) in [("--qemu", &self.qemu), ("--lab-kernel", &self.lab_kernel)] {
            // A path that cannot be made absolute is empty, and found missing where it is used.
            let path = path.as_ref().map(|path| std::path::absolute(path).unwrap_or_default());
            all.extend(path.into_iter().flat_map(|path| [option.into(), path.into_os_string()]));
        }
        all
    }
}
