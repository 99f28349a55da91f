//! `bulkhead spec`: writes a `config.json` to start from, which `bulkhead run` takes as it is.

use std::{fs::OpenOptions, io::ErrorKind, io::Write as _, path::PathBuf};

use super::Context;
use crate::{error::Error, spec::TEMPLATE};

/// Write a config.json to start from: a shell on a terminal over the directory `rootfs`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Directory to write it to
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
}

impl Args {
    pub(super) fn run(self, _context: &Context) -> Result<u8, Error> {
        let path = self.bundle.join("config.json");
        // `create_new`: somebody's spec is never overwritten, not even in a race.
        let mut file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(|source| {
            if source.kind() == ErrorKind::AlreadyExists {
                let message = format!("{} exists", path.display());
                Error::Usage {
                    message,
                    hint: Some("remove it first, or name another directory with --bundle"),
                }
            } else {
                Error::io(format!("create {}", path.display()), source)
            }
        })?;
        file.write_all(TEMPLATE.as_bytes())
            .map_err(|source| Error::io(format!("write {}", path.display()), source))?;
        Ok(0)
    }
}

#[cfg(test)]
mod tests;
