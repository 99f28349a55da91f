//! The runtimes to compare with, as Debian has them.

use std::{fs, path::Path, sync::OnceLock};

use crate::{
    bench::programs::Programs,
    host::{Bundle, DEADLINE, Finished, TestHost, finish},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reference {
    Crun,
    Runc,
}

impl Reference {
    /// Runs the bundle to its end.
    pub(super) fn run(self, host: &TestHost, bundle: &Bundle) -> Finished {
        let name = match self {
            Self::Crun => "crun",
            Self::Runc => "runc",
        };
        // One that fails may leave its container behind.
        let number = bundle.dir().file_name().unwrap_or_default().to_string_lossy();
        let id = host.id(&format!("{name}-{number}"));
        let mut command = programs().command(name);
        command.arg("--root").arg(host.dir().join(name)).args(["run", "--bundle"]);
        command.arg(bundle.write()).arg(&id);
        // Not /dev/null, which crun would give to the user of the container, on the host.
        let finished = finish(&mut command, b"\n", DEADLINE);
        // A crun that fails leaves its cgroup, which is not what is tested here.
        let _ = fs::remove_dir(Path::new("/sys/fs/cgroup").join(&id));
        finished
    }
}

fn programs() -> &'static Programs {
    static PROGRAMS: OnceLock<(tempfile::TempDir, Programs)> = OnceLock::new();
    let (_, programs) = PROGRAMS.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a directory for programs");
        let programs =
            Programs::copied(&["crun", "runc"], dir.path().join("programs")).expect("crun and runc");
        (dir, programs)
    });
    programs
}
