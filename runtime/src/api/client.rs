//! The command's and the proxies' connection to a server: the Task API and the sandbox API on one stream.

use std::{io, time::Duration};

use bulkhead_protocol::{
    limits,
    sandbox::{SandboxClient, WaitProcessResponse},
};
use containerd_shim_protos::shim_async::TaskClient;
use tokio::net::UnixStream;
use ttrpc::{
    Code,
    asynchronous::{Client, transport::Socket},
    context::{self, Context},
};

use super::status::hint_of;
use crate::store::{SandboxDir, names};

/// A call that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The server's answer; its text is for the user.
    #[error("{message}")]
    Refused { code: Code, message: String, hint: Option<String> },
    /// No answer, and none will come.
    #[error("the sandbox server is gone: {reason}")]
    Gone { reason: String },
}

impl CallError {
    /// What the reader can do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Refused { hint, .. } => hint.as_deref(),
            Self::Gone { .. } => None,
        }
    }
}

impl From<ttrpc::Error> for CallError {
    fn from(error: ttrpc::Error) -> Self {
        match error {
            ttrpc::Error::RpcStatus(status) => {
                let (code, hint) = (status.code.enum_value().unwrap_or(Code::UNKNOWN), hint_of(&status));
                Self::Refused { code, message: status.message, hint }
            }
            error => Self::Gone { reason: error.to_string() },
        }
    }
}

#[derive(Clone)]
pub struct Server {
    pub task: TaskClient,
    pub sandbox: SandboxClient,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Server")
    }
}

impl Server {
    /// On a stream that is connected to `server.sock`.
    ///
    /// # Errors
    /// When the stream cannot be registered with the reactor.
    pub fn on(stream: std::os::unix::net::UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let client = Client::new(Socket::from(UnixStream::from_std(stream)?));
        Ok(Self { task: TaskClient::new(client.clone()), sandbox: SandboxClient::new(client) })
    }
}

/// One call to the server of a sandbox, from a process without a runtime of its own.
///
/// # Errors
/// `Gone` when there is no server any more, or no directory of the sandbox (`None`).
pub fn call<T>(
    sandbox: Option<&SandboxDir>,
    call: impl AsyncFnOnce(Server) -> Result<T, ttrpc::Error>,
) -> Result<T, CallError> {
    let gone = |e: io::Error| CallError::Gone { reason: e.to_string() };
    let sandbox = sandbox.ok_or_else(|| gone(io::ErrorKind::NotFound.into()))?;
    let stream = sandbox.connect(names::SERVER_SOCKET).map_err(gone)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(gone)?;
    runtime.block_on(async { Ok(call(Server::on(stream).map_err(gone)?).await?) })
}

/// For a call that may have to wait for the boot.
pub fn until_booted() -> Context {
    context::with_duration(limits::BOOT + limits::CONTROL)
}

/// For a call that does bounded work in the guest; longer than the server's own deadline, whose error says more.
pub fn bounded() -> Context {
    context::with_duration(limits::RPC + Duration::from_secs(5))
}

/// For a call that ends with a process.
pub fn unbounded() -> Context {
    Context::default()
}

/// As a shell reports death by SIGKILL.
pub const KILLED: u8 = 137;

/// How a process ended, in one number as a shell has it: its code, or 128 and the signal.
pub fn exit_code(exit: &WaitProcessResponse) -> u8 {
    let code = if exit.signal == 0 { exit.code } else { 128 + exit.signal };
    u8::try_from(code).unwrap_or(u8::MAX)
}
