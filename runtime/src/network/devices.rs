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
        address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope},
        link::{LinkFlags, LinkLayerType, LinkMessage},
    },
};
use rustix::io::Errno;

use super::{Namespace, NetworkError, errno};
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
                .and_then(|link| ethernet(&link, device))
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
    let mut moved = Moved { own: Namespace::own()?, namespace: namespace.clone(), devices: Vec::new() };
    for device in devices {
        let was_up = moved.own.visit(async |handle| {
            let link = find(handle, &device.interface).await?;
            ethernet(&link, device)?;
            Ok(link.header.flags.contains(LinkFlags::Up))
        });
        let was_up = was_up.map_err(of(device))?;
        transfer(&moved.own, namespace, [&device.interface, &device.name], true).map_err(of(device))?;
        moved.devices.push((device.clone(), was_up));
    }
    Ok(moved)
}

/// Interfaces that go back when this is dropped.
#[derive(Debug)]
pub struct Moved {
    own: Namespace,
    namespace: Namespace,
    /// With whether each was up.
    devices: Vec<(NetDevice, bool)>,
}

impl Moved {
    /// The container has them for good.
    pub fn stay(mut self) {
        self.devices.clear();
    }
}

impl Drop for Moved {
    fn drop(&mut self) {
        for (device, up) in self.devices.drain(..).rev() {
            let names = [&*device.name, &*device.interface];
            if let Err(error) = transfer(&self.namespace, &self.own, names, up) {
                note(&format!("put interface {} back: {}", device.interface, chain(&error)));
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

fn transfer(from: &Namespace, to: &Namespace, [name, new]: [&str; 2], up: bool) -> Result<(), NetworkError> {
    // In older kernels the move succeeds and the new name then fails.
    to.visit(async |handle| match find(handle, new).await {
        Err(NetworkError::NoInterface { .. }) => Ok(()),
        Ok(_) => Err(NetworkError::NameTaken { name: new.to_owned() }),
        Err(error) => Err(error),
    })?;
    let failed = |step| {
        let interface = name.to_owned();
        move |source| NetworkError::Step { step, interface, source }
    };
    let target = to.as_fd().as_raw_fd();
    let addresses = from.visit(async |handle| {
        let link = find(handle, name).await?;
        let addresses = handle.address().get().set_link_index_filter(link.header.index).execute();
        let addresses: Vec<AddressMessage> =
            addresses.try_collect().await.map_err(failed("list the addresses"))?;
        let message = LinkMessageBuilder::<LinkUnspec>::default()
            .index(link.header.index)
            .name(new)
            .setns_by_fd(target);
        handle.link().set(message.build()).execute().await.map_err(failed("move into the namespace"))?;
        Ok(addresses.iter().filter_map(kept).collect::<Vec<_>>())
    })?;
    to.visit(async |handle| {
        let index = find(handle, new).await?.header.index;
        for (address, prefix) in addresses {
            match handle.address().add(index, address, prefix).execute().await {
                Err(error) if errno(&error) == Some(Errno::EXIST) => {}
                added => added.map_err(failed("keep an address"))?,
            }
        }
        if up {
            let message = LinkMessageBuilder::<LinkUnspec>::default().index(index).up().build();
            handle.link().set(message).execute().await.map_err(failed("set up"))?;
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

fn ethernet(link: &LinkMessage, device: &NetDevice) -> Result<(), NetworkError> {
    if link.header.link_layer_type == LinkLayerType::Ether {
        return Ok(());
    }
    let object = format!("interface {}", device.interface);
    Err(NetworkError::Unsupported { object, reason: "the interface is not Ethernet" })
}

/// The specification wants the permanent global addresses kept. A move removes all.
fn kept(message: &AddressMessage) -> Option<(IpAddr, u8)> {
    let permanent = message.header.flags.contains(AddressHeaderFlags::Permanent);
    if !permanent || message.header.scope != AddressScope::Universe {
        return None;
    }
    let (mut address, mut local) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(given) => address = Some(*given),
            AddressAttribute::Local(given) => local = Some(*given),
            _ => {}
        }
    }
    Some((local.or(address)?, message.header.prefix_len))
}
