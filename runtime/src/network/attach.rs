//! The way between an interface and a VM: a tap in the same namespace, and a redirect in each direction.
//!
//!   peer ─▶ interface ─ingress qdisc, u32 match all, mirred redirect─▶ tap ─▶ VMM        and back the same way
//!
//! The tap and its qdisc live as long as a descriptor of the tap. The interface belongs to others: its new qdisc has a line
//! in the journal before it is made.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use rtnetlink::{
    Handle, LinkMessageBuilder, LinkUnspec,
    packet_route::link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute},
};
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};

use super::{Interface, NetworkError, TAP_PREFIX, errno, undo::remove_qdisc};

const TUN: &str = "/dev/net/tun";
/// The device by which the host kernel moves frames between a tap and a VM.
pub const VHOST: &str = "/dev/vhost-net";
/// The handle of an ingress qdisc, `ffff:`.
const INGRESS: u32 = 0xffff_0000;
/// ETH_P_ALL as netlink has it: in network byte order.
const ALL_PROTOCOLS: u16 = (libc::ETH_P_ALL as u16).to_be();

/// Makes a tap and both redirects; `before` is called with the tap's index before the interface itself is changed. The tap
/// goes with the descriptor; what is on the interface then takes `undo`.
///
/// # Errors
/// The step that failed. Nothing is left then.
pub async fn attach(
    handle: &Handle,
    interface: &Interface,
    before: impl FnOnce(u32) -> Result<(), NetworkError>,
) -> Result<OwnedFd, NetworkError> {
    let failed = |step| {
        let interface = interface.name.clone();
        move |source| NetworkError::Step { step, interface, source }
    };
    let (tap, index) = make_tap().map_err(|(step, source)| NetworkError::Tap {
        step,
        interface: interface.name.clone(),
        source,
    })?;
    // The tap is a wire and no host: it must not speak for itself. A host without IPv6 refuses, and need not.
    let silent = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
    let silent = LinkMessageBuilder::<LinkUnspec>::default()
        .index(index)
        .append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![silent]))
        .build();
    let _ = handle.link().set(silent).execute().await;
    let up = LinkMessageBuilder::<LinkUnspec>::default().index(index).mtu(interface.mtu.into()).up().build();
    handle.link().set(up).execute().await.map_err(failed("bring up the tap"))?;
    add_qdisc(handle, index).await.map_err(failed("add a qdisc to the tap"))?;
    redirect(handle, index, interface.index).await.map_err(failed("redirect to the network"))?;
    before(index)?;
    match add_qdisc(handle, interface.index).await {
        Err(error) if errno(&error) == Some(Errno::EXIST) => {
            return Err(NetworkError::Busy { interface: interface.name.clone() });
        }
        added => added.map_err(failed("add a qdisc"))?,
    }
    if let Err(error) = redirect(handle, interface.index, index).await {
        // What is left of it is in the journal.
        let _ = remove_qdisc(handle, interface.index).await;
        return Err(failed("redirect to the guest")(error));
    }
    Ok(tap)
}

/// A vhost-net device for one tap. `None` when the host has none, or this process may not open it.
pub fn open_vhost() -> Option<OwnedFd> {
    rustix::fs::open(VHOST, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).ok()
}

/// In the namespace of the calling thread; also its index.
fn make_tap() -> Result<(OwnedFd, u32), (&'static str, io::Error)> {
    let tap = rustix::fs::open(TUN, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| ("open /dev/net/tun", errno.into()))?;
    // SAFETY: ifreq is plain data for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(TAP_PREFIX.bytes().chain(*b"%d")) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: the operation reads and writes one ifreq, which `request` is.
    if unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) } != 0 {
        return Err(("make a tap", io::Error::last_os_error()));
    }
    // SAFETY: the kernel has written the tap's name, NUL-terminated, and nobody changes it meanwhile.
    let index = unsafe { libc::if_nametoindex(request.ifr_name.as_ptr()) };
    if index == 0 { Err(("find the tap", io::Error::last_os_error())) } else { Ok((tap, index)) }
}

async fn add_qdisc(handle: &Handle, index: u32) -> Result<(), rtnetlink::Error> {
    handle.qdisc().add(index.cast_signed()).ingress().execute().await
}

async fn redirect(handle: &Handle, from: u32, to: u32) -> Result<(), rtnetlink::Error> {
    let filter = handle.traffic_filter(from.cast_signed()).add();
    filter.parent(INGRESS).priority(1).protocol(ALL_PROTOCOLS).redirect(to)?.execute().await
}
