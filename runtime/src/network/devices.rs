//! Interfaces of the host that a container is given (`linux.netDevices`): they move into its network namespace, under the name
//! that they are to have there, with their permanent global addresses, and are up.
//!
//!   check: they are there, and Ethernet        move_in: own namespace ─▶ the container's        dropped before `stay`: back
//!
//! From then on they are like any other interface of the namespace: the next look gives them to the VM. When the namespace
//! ends, the kernel puts a physical interface back into the first namespace and removes a virtual one.

use std::{
    fs::File,
    net::IpAddr,
    os::fd::{AsFd as _, AsRawFd as _},
    sync::Arc,
};

use bulkhead_sys::chain;
use futures::TryStreamExt as _;
use rtnetlink::{
    Handle, LinkMessageBuilder, LinkUnspec,
    packet_route::{
        address::{AddressHeaderFlags, AddressMessage, AddressScope},
        link::{LinkFlags, LinkLayerType, LinkMessage},
    },
};
use rustix::io::Errno;

use super::{Namespace, NetworkError, errno, scan::address_and_local};
use crate::{log::note, spec::NetDevice};

/// Whether each is there and can be a VM's.
///
/// # Errors
/// The first that is not.
pub fn check(devices: &[NetDevice]) -> Result<(), NetworkError> {
    if devices.is_empty() {
        return Ok(());
    }
    Namespace::own()?.visit(async |handle| {
        for device in devices {
            find(handle, &device.interface)
                .await
                .and_then(|link| ethernet(&link, &device.interface))
                .map_err(of(device))?;
        }
        Ok(())
    })
}

/// Moves all, or none.
///
/// # Errors
/// The first that cannot be moved.
pub fn move_in(devices: &[NetDevice], namespace: &Namespace) -> Result<Moved, NetworkError> {
    let mut moved = Moved { own: Namespace::own()?, namespace: namespace.clone(), interfaces: Vec::new() };
    for device in devices {
        moved.one(device).map_err(of(device))?;
    }
    Ok(moved)
}

/// Interfaces that go back when this is dropped.
#[derive(Debug)]
pub struct Moved {
    own: Namespace,
    namespace: Namespace,
    interfaces: Vec<(NetDevice, Settings)>,
}

/// What a move takes from an interface.
#[derive(Debug)]
struct Settings {
    up: bool,
    /// With the lengths of their prefixes.
    addresses: Vec<(IpAddr, u8)>,
}

impl Moved {
    fn one(&mut self, device: &NetDevice) -> Result<(), NetworkError> {
        let NetDevice { interface, name, .. } = device;
        let settings = transfer(&self.own, &self.namespace, [interface, name])?;
        // From here on it must go back.
        self.interfaces.push((device.clone(), settings));
        let addresses = self.interfaces.last().map_or(&[][..], |(_, settings)| &settings.addresses);
        settle(&self.namespace, name, addresses, true)
    }

    /// The container has them for good.
    pub fn stay(mut self) {
        self.interfaces.clear();
    }
}

impl Drop for Moved {
    fn drop(&mut self) {
        for (NetDevice { interface, name, .. }, Settings { up, addresses }) in self.interfaces.drain(..).rev()
        {
            let back = transfer(&self.namespace, &self.own, [&name, &interface])
                .and_then(|_| settle(&self.own, &interface, &addresses, up));
            if let Err(error) = back {
                note(&format!("put interface {interface} back: {}", chain(&error)));
            }
        }
    }
}

fn of(device: &NetDevice) -> impl FnOnce(NetworkError) -> NetworkError {
    let field = device.field.clone();
    move |source| NetworkError::Device { field, source: Box::new(source) }
}

impl Namespace {
    /// That of this process, which `open` refuses.
    fn own() -> Result<Self, NetworkError> {
        let path = "/proc/self/ns/net";
        let file = File::open(path).map_err(|source| NetworkError::Open { path: path.into(), source })?;
        Ok(Self(Arc::new(file)))
    }
}

fn failed<'a>(step: &'static str, interface: &'a str) -> impl FnOnce(rtnetlink::Error) -> NetworkError + 'a {
    move |source| NetworkError::Step { step, interface: interface.to_owned(), source }
}

/// Moves an Ethernet interface to another namespace, under another name. It is down there, and has no addresses.
fn transfer(from: &Namespace, to: &Namespace, [name, new]: [&str; 2]) -> Result<Settings, NetworkError> {
    // In older kernels the move succeeds and the new name then fails.
    to.visit(async |handle| match find(handle, new).await {
        Err(NetworkError::NoInterface { .. }) => Ok(()),
        Ok(_) => Err(NetworkError::NameTaken { name: new.to_owned() }),
        Err(error) => Err(error),
    })?;
    let target = to.as_fd().as_raw_fd();
    from.visit(async |handle| {
        let link = find(handle, name).await?;
        ethernet(&link, name)?;
        let index = link.header.index;
        let addresses = handle.address().get().set_link_index_filter(index).execute();
        let addresses: Vec<AddressMessage> =
            addresses.try_collect().await.map_err(failed("list the addresses", name))?;
        let message = LinkMessageBuilder::<LinkUnspec>::default().index(index).name(new).setns_by_fd(target);
        handle
            .link()
            .set(message.build())
            .execute()
            .await
            .map_err(failed("move into the namespace", name))?;
        let up = link.header.flags.contains(LinkFlags::Up);
        Ok(Settings { up, addresses: addresses.iter().filter_map(kept).collect() })
    })
}

fn settle(
    namespace: &Namespace,
    name: &str,
    addresses: &[(IpAddr, u8)],
    up: bool,
) -> Result<(), NetworkError> {
    namespace.visit(async |handle| {
        let index = find(handle, name).await?.header.index;
        for &(address, prefix) in addresses {
            match handle.address().add(index, address, prefix).execute().await {
                Err(error) if errno(&error) == Some(Errno::EXIST) => {}
                added => added.map_err(failed("keep an address", name))?,
            }
        }
        if up {
            let message = LinkMessageBuilder::<LinkUnspec>::default().index(index).up().build();
            handle.link().set(message).execute().await.map_err(failed("set up", name))?;
        }
        Ok(())
    })
}

async fn find(handle: &Handle, name: &str) -> Result<LinkMessage, NetworkError> {
    let missing = || NetworkError::NoInterface { name: name.to_owned() };
    let found = handle.link().get().match_name(name).execute().try_collect::<Vec<_>>().await;
    match found {
        Ok(found) => found.into_iter().next().ok_or_else(missing),
        Err(error) if errno(&error) == Some(Errno::NODEV) => Err(missing()),
        Err(source) => Err(NetworkError::List { what: "interfaces", source }),
    }
}

fn ethernet(link: &LinkMessage, name: &str) -> Result<(), NetworkError> {
    if link.header.link_layer_type == LinkLayerType::Ether {
        return Ok(());
    }
    let object = format!("interface {name}");
    Err(NetworkError::Unsupported { object, reason: "the interface is not Ethernet" })
}

/// The specification wants the permanent global addresses kept. A move removes all.
fn kept(message: &AddressMessage) -> Option<(IpAddr, u8)> {
    let permanent = message.header.flags.contains(AddressHeaderFlags::Permanent);
    if !permanent || message.header.scope != AddressScope::Universe {
        return None;
    }
    let (address, local) = address_and_local(message);
    Some((local.or(address)?, message.header.prefix_len))
}
