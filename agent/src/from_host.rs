//! vsock streams that the host opens. vsock is in no namespace, so a container may connect to a port of the agent as well: only the
//! host is heard.

use std::{io, os::fd::OwnedFd, time::Duration};

use tokio::time::sleep;
use tokio_vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockAddr, VsockListener};

use crate::say;

/// After an accept that failed for want of descriptors or memory: others may give some back meanwhile.
const PAUSE: Duration = Duration::from_secs(1);

/// A port of the agent.
#[derive(Debug)]
pub struct HostListener(VsockListener);

impl HostListener {
    /// # Errors
    /// Those of bind(2) and listen(2).
    pub fn bind(port: u32) -> io::Result<Self> {
        Ok(Self(VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, port))?))
    }

    /// The next stream of the host. A wait that is given up loses none.
    pub async fn accept(&mut self) -> OwnedFd {
        loop {
            match self.0.accept().await {
                Ok((stream, peer)) if peer.cid() == VMADDR_CID_HOST => return stream.into(),
                Ok((_, peer)) => say!("refused a stream from context {}", peer.cid()),
                Err(error) => {
                    say!("accept a stream: {error}");
                    sleep(PAUSE).await;
                }
            }
        }
    }
}
