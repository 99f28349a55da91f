//! The stdio strings of the Task API, read once.
//!
//! `""` is no stream; `vsock:<token>` is a stream that the caller has opened itself, through the VMM's socket, under
//! that token. All streams of a process share one token. Other forms (fifos, `binary://`) are refused.

use bulkhead_protocol::{agent, id::StreamToken};

const SCHEME: &str = "vsock:";

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StdioError {
    #[error("stdio {0:?} is not supported yet: the caller opens streams itself, as vsock:TOKEN")]
    Unsupported(String),
    #[error("the stdio streams of one process have one token")]
    Tokens,
    #[error("a process with a terminal has no stderr stream")]
    Terminal,
}

/// Checked; the strings as given are kept for `State`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Stdio {
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) terminal: bool,
    token: Option<StreamToken>,
}

/// The string for a stream under `token`.
pub(crate) fn vsock(token: &StreamToken) -> String {
    format!("{SCHEME}{token}")
}

impl Stdio {
    pub(crate) fn parse(terminal: bool, stdin: &str, stdout: &str, stderr: &str) -> Result<Self, StdioError> {
        let mut token: Option<StreamToken> = None;
        for stream in [stdin, stdout, stderr].into_iter().filter(|stream| !stream.is_empty()) {
            let given = stream
                .strip_prefix(SCHEME)
                .and_then(|token| token.parse().ok())
                .ok_or_else(|| StdioError::Unsupported(stream.chars().take(256).collect()))?;
            if token.as_ref().is_some_and(|known| *known != given) {
                return Err(StdioError::Tokens);
            }
            token = Some(given);
        }
        if terminal && !stderr.is_empty() {
            return Err(StdioError::Terminal);
        }
        Ok(Self { stdin: stdin.into(), stdout: stdout.into(), stderr: stderr.into(), terminal, token })
    }

    /// What the agent has to know.
    pub(crate) fn for_agent(&self) -> agent::Stdio {
        let tty = self.terminal && !self.stdout.is_empty();
        agent::Stdio {
            token: self.token.as_ref().map(ToString::to_string).unwrap_or_default(),
            stdin: !self.terminal && !self.stdin.is_empty(),
            stdout: !self.terminal && !self.stdout.is_empty(),
            stderr: !self.terminal && !self.stderr.is_empty(),
            tty,
            ..Default::default()
        }
    }
}

#[cfg(test)]
mod tests;
