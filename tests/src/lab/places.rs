//! Where the lab keeps things.
//!
//! Downloads live in the user's cache and are shared by all labs; a running lab has a state directory (lock, pid,
//! socket, logs) under the runtime directory, named after the lab.

use std::env;
use std::path::{Path, PathBuf};

/// Downloads and builds, kept between runs: `${XDG_CACHE_HOME:-$HOME/.cache}/bulkhead/lab`.
#[must_use]
pub fn cache() -> PathBuf {
    bulkhead_cache().join("lab")
}

/// The cache of everything called bulkhead, kernels included.
#[must_use]
pub fn bulkhead_cache() -> PathBuf {
    let base = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
    let base = base.unwrap_or_else(|| {
        PathBuf::from(env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache")
    });
    base.join("bulkhead")
}

/// State of all labs: `${XDG_RUNTIME_DIR:-/run}/bulkhead-lab`.
#[must_use]
pub fn state_root() -> PathBuf {
    let base = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|p| p.is_absolute());
    base.unwrap_or_else(|| "/run".into()).join("bulkhead-lab")
}

/// The state directory of one lab.
#[derive(Debug, Clone)]
pub struct StateDir(PathBuf);

impl StateDir {
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self(state_root().join(name))
    }

    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    #[must_use]
    pub fn name(&self) -> String {
        self.0.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Held (flock) by the supervisor for as long as it lives.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    #[must_use]
    pub fn pid(&self) -> PathBuf {
        self.0.join("pid")
    }

    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.0.join("lab.sock")
    }

    #[must_use]
    pub fn initramfs(&self) -> PathBuf {
        self.0.join("initramfs.img")
    }

    /// What the lab's kernel printed.
    #[must_use]
    pub fn console(&self) -> PathBuf {
        self.0.join("console.log")
    }

    /// What QEMU and the file servers printed.
    #[must_use]
    pub fn servers_log(&self) -> PathBuf {
        self.0.join("servers.log")
    }

    /// Mount point, in the supervisor's mount namespace only, of what the lab sees as its root.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.0.join("root")
    }

    /// Default directory behind `/lab/out`.
    #[must_use]
    pub fn out(&self) -> PathBuf {
        self.0.join("out")
    }
}

/// The top of the checkout this binary was built from.
#[must_use]
pub fn checkout() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_owned()
}

/// Cargo's target directory, as the environment sets it or at its default place.
#[must_use]
pub fn target() -> PathBuf {
    let set = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from).filter(|p| p.is_absolute());
    set.unwrap_or_else(|| checkout().join("target"))
}

/// The install prefix made by `make stage`.
#[must_use]
pub fn stage() -> PathBuf {
    env::var_os("BULKHEAD_STAGE").map_or_else(|| checkout().join("target/stage"), PathBuf::from)
}
