//! `bulkhead kill`: a signal for the container's first process.

use super::{Context, with_container};
use crate::{api::container::RequestError, error::Error};

/// The first and last real-time signal of Linux.
const RTMIN: u32 = 34;
const RTMAX: u32 = 64;

/// Send a signal to a container
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// To all processes of the container
    #[arg(short, long, hide = true)]
    all: bool,
    /// Name of the container
    #[arg(value_name = "ID")]
    id: String,
    /// Number or name, with or without SIG
    #[arg(value_name = "SIGNAL", default_value = "TERM")]
    signal: String,
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Result<u8, Error> {
        with_container(context, &self.id, "kill", |container| {
            let unknown =
                || Error::Usage { message: format!("unknown signal {:?}", self.signal), hint: None };
            let signal = parse(&self.signal).ok_or_else(unknown)?;
            match container.kill(signal, self.all) {
                // containerd sends it to be sure, after the end as well.
                Err(RequestError::Status(_)) if self.all => Ok(0),
                other => Ok(other.map(|()| 0)?),
            }
        })
    }
}

/// `9`, `KILL`, `SIGKILL`, `kill`, `RTMIN+3`, `SIGRTMAX-1`.
pub(super) fn parse(text: &str) -> Option<u32> {
    if let Ok(number) = text.parse::<u32>() {
        return (1..=RTMAX).contains(&number).then_some(number);
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let realtime = |base: u32, offset: &str| -> Option<u32> {
        let offset: i64 = if offset.is_empty() { 0 } else { offset.parse().ok()? };
        let number = u32::try_from(i64::from(base) + offset).ok()?;
        (RTMIN..=RTMAX).contains(&number).then_some(number)
    };
    match name {
        "IOT" => return Some(libc::SIGABRT.unsigned_abs()),
        "POLL" => return Some(libc::SIGIO.unsigned_abs()),
        _ => {}
    }
    if let Some(offset) = name.strip_prefix("RTMIN") {
        return realtime(RTMIN, offset);
    }
    if let Some(offset) = name.strip_prefix("RTMAX") {
        return realtime(RTMAX, offset);
    }
    let signal: nix::sys::signal::Signal = format!("SIG{name}").parse().ok()?;
    Some((signal as i32).unsigned_abs())
}

#[cfg(test)]
mod tests;
