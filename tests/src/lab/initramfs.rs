//! The lab's initramfs: busybox, a handful of modules, this binary and its configuration.
//!
//! Made anew for each start (3 MB, well under a second), because it carries this very binary: a lab that runs goes on
//! with the code it was started with while the checkout is rebuilt.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::assets::{Assets, Kernel};
use super::guest::GuestConfig;
use super::{Error, places};

/// What must be loaded before the root is mounted; everything else comes by modprobe from the mounted root.
const EARLY_MODULES: [&str; 3] = ["virtio_pci", "virtiofs", "overlay"];

/// Writes the initramfs of a lab to `to`.
///
/// # Errors
/// A file that cannot be read or written, or a kernel without one of the early modules.
pub fn build(assets: &Assets, guest: &GuestConfig, to: &Path) -> Result<(), Error> {
    let parent = to.parent().unwrap_or(Path::new("/"));
    let tree = tempfile::tempdir_in(parent).map_err(Error::file("create a directory in", parent))?;
    let root = tree.path();
    for dir in ["bin", "modules", "proc", "sys", "dev", "host", "engines", "writes", "new"] {
        let dir = root.join(dir);
        fs::create_dir(&dir).map_err(Error::file("create", &dir))?;
    }
    copy(&assets.busybox, &root.join("bin/busybox"))?;
    // By this link and not by path: the file at the path may be a newer build, or gone.
    copy(Path::new("/proc/self/exe"), &root.join("bulkhead-lab"))?;
    let init = root.join("init");
    fs::write(&init, include_str!("init.sh")).map_err(Error::file("write", &init))?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).map_err(Error::file("chmod", &init))?;
    let config = serde_json::to_vec(guest).map_err(Error::system("encode the guest's configuration"))?;
    let guest_json = root.join("guest.json");
    fs::write(&guest_json, config).map_err(Error::file("write", &guest_json))?;

    let mut order = String::new();
    for module in load_order(&assets.kernel)? {
        let source = assets.kernel.modules.join(&assets.kernel.release).join(&module);
        let name = source.file_name().unwrap_or_default().to_owned();
        copy(&source, &root.join("modules").join(&name))?;
        order.push_str(&name.to_string_lossy());
        order.push('\n');
    }
    let list = root.join("modules/order");
    fs::write(&list, order).map_err(Error::file("write", &list))?;
    pack(&assets.busybox, root, to)
}

/// Paths of the early modules and what they need, each after its dependencies.
fn load_order(kernel: &Kernel) -> Result<Vec<String>, Error> {
    let path = kernel.modules.join(&kernel.release).join("modules.dep");
    let table = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
    let mut seen = HashSet::new();
    let mut order = Vec::new();
    for module in EARLY_MODULES {
        let suffix = format!("/{module}.ko");
        let (file, needs) = table
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(file, _)| file.ends_with(&suffix))
            .ok_or_else(|| Error::Missing {
                what: format!("module {module}"),
                hint: "use Debian's kernel",
            })?;
        // depmod lists the deepest dependency last.
        for file in needs.split_whitespace().rev().chain([file]) {
            if seen.insert(file.to_owned()) {
                order.push(file.to_owned());
            }
        }
    }
    Ok(order)
}

fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    fs::copy(from, to).map(drop).map_err(Error::file("copy", from))
}

/// By busybox, which is there anyway: what the lab boots from need not be reproducible.
fn pack(busybox: &Path, root: &Path, to: &Path) -> Result<(), Error> {
    let image = fs::File::create(to).map_err(Error::file("create", to))?;
    let status = Command::new(busybox)
        .args(["sh", "-c", r#""$0" find . | "$0" cpio -o -H newc 2>/dev/null"#])
        .arg(busybox)
        .current_dir(root)
        .stdin(Stdio::null())
        .stdout(image)
        .status()
        .map_err(|source| Error::Spawn { program: "busybox".to_owned(), source })?;
    if status.success() {
        return Ok(());
    }
    Err(Error::Tool { command: "busybox cpio".to_owned(), status: status.to_string(), output: String::new() })
}

/// Host directories that the lab must see as they are now, not as an overlay remembers them: an overlay keeps
/// looked-up names, so a file that is rebuilt on the host would be stale in a lab that lives on.
#[must_use]
pub fn live_directories() -> Vec<std::path::PathBuf> {
    let mut live = vec![places::checkout(), places::target(), places::stage(), places::bulkhead_cache()];
    live.extend(std::env::var_os("BULKHEAD_LAB_LIVE").iter().flat_map(std::env::split_paths));
    live.retain(|path| path.is_absolute() && path.is_dir());
    live.sort();
    // Sorted, a directory comes before what it contains; one mount shows both.
    live.dedup_by(|inner, outer| inner.starts_with(&*outer));
    live
}
