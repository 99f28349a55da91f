//! Signals to a proxy are meant for its process: all of them but those that tell about the proxy itself.

use std::io;

use nix::libc::{
    SIGABRT, SIGALRM, SIGCONT, SIGHUP, SIGINT, SIGIO, SIGPROF, SIGPWR, SIGQUIT, SIGTERM, SIGTRAP, SIGTSTP,
    SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2, SIGVTALRM, SIGWINCH, SIGXCPU, SIGXFSZ,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};

/// Not among them: KILL and STOP, which cannot be caught; SEGV, BUS, FPE, ILL and SYS, which are faults of our own;
/// CHLD, PIPE and URG, which are about our own children and descriptors.
pub const FORWARDED: [i32; 20] = [
    SIGHUP, SIGINT, SIGQUIT, SIGTRAP, SIGABRT, SIGUSR1, SIGUSR2, SIGALRM, SIGTERM, SIGCONT, SIGTSTP, SIGTTIN,
    SIGTTOU, SIGXCPU, SIGXFSZ, SIGVTALRM, SIGPROF, SIGWINCH, SIGIO, SIGPWR,
];

/// Signals that wait to be relayed; a signal is held once until it is.
#[derive(Debug)]
pub struct Relay {
    caught: mpsc::Receiver<i32>,
}

impl Relay {
    /// From here on the signals no longer do what they do by default.
    ///
    /// # Errors
    /// When a handler cannot be installed.
    pub fn install() -> io::Result<Self> {
        let (sender, caught) = mpsc::channel(FORWARDED.len());
        for number in FORWARDED {
            let stream = signal(SignalKind::from_raw(number))?;
            tokio::spawn(pass(number, stream, sender.clone()));
        }
        Ok(Self { caught })
    }

    pub(super) async fn next(&mut self) -> i32 {
        match self.caught.recv().await {
            Some(signal) => signal,
            // The senders live as long as the runtime.
            None => std::future::pending().await,
        }
    }
}

async fn pass(number: i32, mut stream: Signal, sender: mpsc::Sender<i32>) {
    while stream.recv().await.is_some() {
        if sender.send(number).await.is_err() {
            return;
        }
    }
}
