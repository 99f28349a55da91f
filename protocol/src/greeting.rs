//! The first line on the agent's stream: who speaks, before any RPC.
//!
//! `bulkhead-agent <protocol> <agent version> <kernel release>\n`, at most `limits::LINE` bytes. The host checks
//! the protocol number and then speaks ttrpc as a client; there is no answer to the line.

use std::{fmt, str::FromStr};

/// Raised when a border changes so that an older peer would misunderstand it.
pub const PROTOCOL: u32 = 1;

const MAGIC: &str = "bulkhead-agent";

/// What the guest says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    pub protocol: u32,
    pub agent_version: String,
    pub kernel_release: String,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum GreetingError {
    #[error("the guest's first line is not a greeting")]
    NotAGreeting,
    #[error("guest speaks protocol {guest}, host speaks {host}", host = PROTOCOL)]
    Protocol { guest: u32 },
}

impl Greeting {
    /// This build's greeting; `kernel_release` is what uname says.
    pub fn new(kernel_release: &str) -> Self {
        Self {
            protocol: PROTOCOL,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            kernel_release: kernel_release.split_whitespace().collect::<Vec<_>>().join("_"),
        }
    }
}

impl fmt::Display for Greeting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{MAGIC} {} {} {}", self.protocol, self.agent_version, self.kernel_release)
    }
}

impl FromStr for Greeting {
    type Err = GreetingError;

    /// Takes the line with or without its newline.
    fn from_str(line: &str) -> Result<Self, GreetingError> {
        let line = line.strip_suffix('\n').unwrap_or(line);
        let mut words = line.split(' ');
        let (Some(MAGIC), Some(protocol)) = (words.next(), words.next()) else {
            return Err(GreetingError::NotAGreeting);
        };
        let guest = protocol.parse().map_err(|_| GreetingError::NotAGreeting)?;
        if guest != PROTOCOL {
            return Err(GreetingError::Protocol { guest });
        }
        let (Some(agent), Some(kernel), None) = (words.next(), words.next(), words.next()) else {
            return Err(GreetingError::NotAGreeting);
        };
        let printable = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_graphic());
        if !printable(agent) || !printable(kernel) {
            return Err(GreetingError::NotAGreeting);
        }
        Ok(Self { protocol: guest, agent_version: agent.to_owned(), kernel_release: kernel.to_owned() })
    }
}

#[cfg(test)]
mod tests;
