//! Debian packages of another release than the machine's, fetched by an apt that leaves the machine's own as it is.
//!
//! Its lists, its sources and its (empty) record of what is installed are in a directory of the caller's, so what it
//! plans is complete by itself. The mirror and its keys are the machine's.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Error;
use super::tools::run;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// An apt with a directory of its own.
#[derive(Debug)]
pub struct Apt {
    dir: PathBuf,
}

impl Apt {
    /// Makes the directory and fetches the lists of `suites`, component main.
    ///
    /// # Errors
    /// No mirror is known, or it does not carry a suite.
    pub fn of(dir: PathBuf, suites: &[&str]) -> Result<Self, Error> {
        let mirror = mirror()?;
        for sub in ["lists/partial", "cache/archives/partial"] {
            let sub = dir.join(sub);
            fs::create_dir_all(&sub).map_err(Error::file("create", &sub))?;
        }
        let keys =
            if Path::new(KEYRING).exists() { format!("[signed-by={KEYRING}] ") } else { String::new() };
        let sources: String =
            suites.iter().map(|suite| format!("deb {keys}{mirror} {suite} main\n")).collect();
        for (name, text) in [("sources.list", sources.as_str()), ("status", "")] {
            let path = dir.join(name);
            fs::write(&path, text).map_err(Error::file("write", &path))?;
        }
        let apt = Self { dir };
        // Else a mirror that cannot be reached is a warning, and then packages are unknown.
        run(apt.get().args(["-q", "-o", "APT::Update::Error-Mode=any", "update"]))?;
        Ok(apt)
    }

    /// Unpacks `package` of `suite` and everything that it depends on, without running any script, into `to`.
    ///
    /// # Errors
    /// The package cannot be had, or not be unpacked.
    pub fn unpack(&self, package: &str, suite: &str, to: &Path) -> Result<(), Error> {
        let plan = self.plan(&[package], suite)?;
        self.unpack_alone(&plan.iter().map(String::as_str).collect::<Vec<_>>(), suite, to)
    }

    /// The names of `packages` of `suite` and of everything that they depend on.
    ///
    /// # Errors
    /// A package cannot be had.
    pub fn plan(&self, packages: &[&str], suite: &str) -> Result<Vec<String>, Error> {
        let mut plan = self.get();
        plan.args(["install", "--simulate", "--no-install-recommends", "-t", suite]).args(packages);
        Ok(planned(&run(&mut plan)?).into_iter().map(str::to_owned).collect())
    }

    /// Unpacks `packages` of `suite`, and nothing of what they depend on, without running any script, into `to`.
    ///
    /// # Errors
    /// A package cannot be had, or not be unpacked.
    pub fn unpack_alone(&self, packages: &[&str], suite: &str, to: &Path) -> Result<(), Error> {
        let debs = self.dir.join("debs");
        for dir in [&debs, to] {
            fs::create_dir_all(dir).map_err(Error::file("create", dir))?;
        }
        run(self
            .get()
            .args(["-q", "download", "-t", suite])
            .args(packages)
            // apt downloads into the working directory.
            .current_dir(&debs))?;
        for entry in fs::read_dir(&debs).map_err(Error::file("read", &debs))? {
            let deb = entry.map_err(Error::file("read", &debs))?.path();
            run(Command::new("dpkg-deb").arg("-x").arg(deb).arg(to))?;
        }
        Ok(())
    }

    fn get(&self) -> Command {
        let mut command = Command::new("apt-get");
        let places = [
            ("Dir::Etc::sourcelist", self.dir.join("sources.list")),
            ("Dir::Etc::sourceparts", "/dev/null".into()),
            ("Dir::State::lists", self.dir.join("lists")),
            ("Dir::State::status", self.dir.join("status")),
            ("Dir::Cache", self.dir.join("cache")),
        ];
        for (name, path) in places {
            let mut option = OsString::from(format!("{name}="));
            option.push(path);
            command.arg("-o").arg(option);
        }
        // Root downloads as root: the sandbox user of apt cannot write to the cache and apt would warn.
        command.args(["-o", "APT::Sandbox::User=root", "-o", "Acquire::Languages=none"]);
        command
    }
}

/// The packages of a simulated installation: "Inst NAME (VERSION ...)".
fn planned(plan: &str) -> Vec<&str> {
    plan.lines().filter_map(|line| line.strip_prefix("Inst ")?.split(' ').next()).collect()
}

/// The mirror that this machine uses for its own release, without a slash at its end.
///
/// # Errors
/// apt's sources name none.
pub fn mirror() -> Result<String, Error> {
    let format = "$(RELEASE) $(COMPONENT) $(REPO_URI)";
    let targets = run(Command::new("apt-get").args(["indextargets", "--format", format]))?;
    let os = Path::new("/etc/os-release");
    let os = fs::read_to_string(os).map_err(Error::file("read", os))?;
    let found = mirror_among(&targets, &os).ok_or_else(|| Error::Missing {
        what: "a mirror of Debian in apt's sources".to_owned(),
        hint: "add one to /etc/apt/sources.list.d",
    })?;
    Ok(found.trim_end_matches('/').to_owned())
}

/// Where a machine gets the main component of its own release from: "bookworm main http://...".
fn mirror_among<'a>(targets: &'a str, os_release: &str) -> Option<&'a str> {
    let codename = os_release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    targets.lines().find_map(|line| line.strip_prefix(codename)?.strip_prefix(" main "))
}

#[cfg(test)]
#[path = "apt_tests.rs"]
mod tests;
