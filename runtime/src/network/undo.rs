//! Takes the redirect off an interface, by what the journal says of it.
//!
//! The journal says that an interface was about to be changed, and not that it was: the interface may have had a redirect of
//! another VM. A redirect to the tap of the journal is the one to remove. The VMM is dead when this is called, and its tap is
//! gone or about to go: the kernel closes the last descriptors after the process has ended, in a work queue, above all with
//! vhost-net.

use std::path::Path;

use futures::TryStreamExt as _;
use rtnetlink::{
    Handle,
    packet_route::tc::{
        TcAction, TcActionAttribute, TcActionMirrorOption, TcActionOption, TcAttribute, TcFilterU32Option,
        TcHandle, TcMessage, TcOption,
    },
};
use rustix::io::Errno;

use super::{Interface, Namespace, NetworkError, errno};
use crate::store::NamespaceId;

/// Removes what `attach` left on interface `index` of the namespace that was at `path`: a redirect to the tap with the
/// index `tap`. If namespace or interface is gone, so is all that was made in it.
///
/// # Errors
/// When it is there and cannot be removed.
pub fn undo(path: &Path, id: NamespaceId, index: u32, tap: u32) -> Result<(), NetworkError> {
    match Namespace::open(path) {
        Ok(namespace) if namespace.id().is_ok_and(|now| now == id) => namespace.visit(async |handle| {
            let failed = |step| {
                move |source| NetworkError::Step { step, interface: format!("number {index}"), source }
            };
            let filters = handle.traffic_filter(index.cast_signed()).get().ingress().execute();
            let filters: Vec<TcMessage> = match filters.try_collect().await {
                Err(error) if is_gone(&error) => return Ok(()),
                filters => filters.map_err(failed("list the filters"))?,
            };
            if filters.iter().all(|filter| is_ours(filter, tap)) {
                remove_qdisc(handle, index).await.map_err(failed("remove the qdisc"))?;
            }
            Ok(())
        }),
        // Another namespace by now, or none.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Takes back what `attach` has done to interfaces, as far as it goes: what is left is in the journal.
pub async fn detach<'a>(handle: &Handle, interfaces: impl Iterator<Item = &'a Interface>) {
    for interface in interfaces {
        let _ = remove_qdisc(handle, interface.index).await;
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
        Err(error) if is_gone(&error) => Ok(()),
        removed => removed,
    }
}

fn is_gone(error: &rtnetlink::Error) -> bool {
    matches!(errno(error), Some(Errno::NOENT | Errno::NODEV | Errno::INVAL))
}

/// Whether a filter does nothing but redirect to this tap, or to a device that is no more. A u32 filter comes with messages
/// about its hash tables, which have no action.
pub(super) fn is_ours(filter: &TcMessage, tap: u32) -> bool {
    filter.attributes.iter().all(|attribute| match attribute {
        TcAttribute::Kind(kind) => kind == "u32",
        TcAttribute::Options(options) => options.iter().all(|option| match option {
            TcOption::U32(TcFilterU32Option::Action(actions)) => {
                actions.iter().all(|action| redirects_to(action, tap))
            }
            TcOption::U32(TcFilterU32Option::Police(_)) => false,
            _ => true,
        }),
        _ => true,
    })
}

fn redirects_to(action: &TcAction, tap: u32) -> bool {
    action.attributes.iter().all(|attribute| match attribute {
        TcActionAttribute::Kind(kind) => kind == "mirred",
        TcActionAttribute::Options(options) => options.iter().all(|option| match option {
            TcActionOption::Mirror(TcActionMirrorOption::Parms(redirect)) => {
                // 0: the device is gone.
                redirect.ifindex == 0 || redirect.ifindex == tap
            }
            _ => true,
        }),
        _ => true,
    })
}
