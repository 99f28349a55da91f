//! Takes the redirect off an interface, by what the journal says of it.

use std::path::Path;

use rtnetlink::Handle;
use rustix::io::Errno;

use super::{Namespace, NamespaceId, NetworkError, errno};
use rtnetlink::packet_route::tc::{TcAttribute, TcHandle};

/// Removes what `attach` left on interface `index` of the namespace that was at `path`. If either is gone, so is all
/// that was made in it.
///
/// # Errors
/// When it is there and cannot be removed.
pub fn undo(path: &Path, id: NamespaceId, index: u32) -> Result<(), NetworkError> {
    match Namespace::open(path) {
        Ok(namespace) if namespace.id().is_ok_and(|now| now == id) => namespace.visit(async |handle| {
            remove_qdisc(handle, index).await.map_err(|source| NetworkError::Step {
                step: "remove the qdisc",
                interface: format!("number {index}"),
                source,
            })
        }),
        // Another namespace by now, or none.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// One that is gone is no error.
pub(super) async fn remove_qdisc(handle: &Handle, index: u32) -> Result<(), rtnetlink::Error> {
    let mut request = handle.qdisc().del(index.cast_signed());
    let message = request.message_mut();
    message.header.parent = TcHandle::INGRESS;
    message.header.handle = TcHandle::from(0xffff_0000);
    message.attributes.push(TcAttribute::Kind("ingress".to_owned()));
    match request.execute().await {
        Err(error) if matches!(errno(&error), Some(Errno::NOENT | Errno::NODEV | Errno::INVAL)) => Ok(()),
        removed => removed,
    }
}
