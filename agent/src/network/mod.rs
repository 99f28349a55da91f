//! A container's network, set to what the host says: names, MTU, addresses, routes, neighbours.
//!
//!   UpdateNetworkRequest ─settings─▶ checked requests ─rtnetlink─▶ kernel
//!
//! A device appears in the agent's own network namespace and is moved into the container's, where it stays; a thread
//! that enters that namespace sets it up there. When the namespace ends the kernel gives the device back.
//!
//! A device is found by its MAC, because its name depends on the slot it was plugged into. Everything replaces what
//! was there with the same key, so that the same request twice is fine; addresses not asked for are removed.

pub mod settings;

use std::{
    fs::{self, File},
    io,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    thread,
    time::Duration,
};

use bulkhead_sys::namespace;
use futures::TryStreamExt;
use rtnetlink::{
    Handle, LinkMessageBuilder, LinkUnspec, RouteMessageBuilder,
    packet_route::{
        address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope},
        link::{LinkAttribute, LinkMessage},
        route::{RouteFlags, RouteScope},
    },
};
use tokio::{sync::oneshot, time::timeout};

use settings::{Cidr, Interface, Mac, Neighbor, Route, Settings, SettingsError};

/// For one whole update; the kernel answers each request at once.
const UPDATE: Duration = Duration::from_secs(20);

#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error("open a netlink socket")]
    Socket(#[source] io::Error),
    #[error("enter the container's network namespace")]
    Enter(#[source] io::Error),
    #[error("set up the network: not done after {UPDATE:?}")]
    Late,
    #[error("list network devices or addresses")]
    List(#[source] rtnetlink::Error),
    #[error("no network device has the address {0}")]
    NoDevice(Mac),
    #[error("no network device is named {0:?}")]
    NoName(String),
    #[error("{step} {object}")]
    Step { step: &'static str, object: String, source: rtnetlink::Error },
    #[error("add route {0}: its addresses are of different families")]
    Family(String),
}

fn failed(step: &'static str, object: impl ToString) -> impl FnOnce(rtnetlink::Error) -> NetworkError {
    move |source| NetworkError::Step { step, object: object.to_string(), source }
}

/// A name that no device asks for; the kernel puts a number for `%d`.
const IN_TRANSIT: &str = "transit%d";

/// Carries the settings out, in the agent's own namespace or another; stops at the first failure.
pub async fn update(settings: Settings, namespace: Option<File>) -> Result<(), NetworkError> {
    let Some(namespace) = namespace else { return update_here(settings).await };
    let own = fs::metadata("/proc/thread-self/ns/net").map_err(NetworkError::Enter)?;
    if own.ino() == namespace.metadata().map_err(NetworkError::Enter)?.ino() {
        return update_here(settings).await;
    }
    with_netlink(async |handle| move_devices(handle, &settings, &namespace).await).await?;
    let (done, answer) = oneshot::channel();
    let inside = move || {
        // Nobody waits any more when the call has ended.
        let _ = done.send(update_inside(settings, &namespace));
    };
    thread::Builder::new().name("network".into()).spawn(inside).map_err(NetworkError::Enter)?;
    answer.await.unwrap_or(Err(NetworkError::Late))
}

fn update_inside(settings: Settings, own: &File) -> Result<(), NetworkError> {
    namespace::enter(own, namespace::Kind::Network).map_err(NetworkError::Enter)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(NetworkError::Enter)?.block_on(update_here(settings))
}

/// Under names that are free there, whatever they were called here.
async fn move_devices(handle: &Handle, settings: &Settings, namespace: &File) -> Result<(), NetworkError> {
    for link in links(handle).await? {
        let wanted = settings.interfaces.iter().find(|wanted| link.mac.as_deref() == Some(&wanted.mac.0));
        if let Some(wanted) = wanted {
            let moved = LinkMessageBuilder::<LinkUnspec>::default()
                .index(link.index)
                .name(IN_TRANSIT)
                .setns_by_fd(namespace.as_raw_fd())
                .build();
            handle.link().set(moved).execute().await.map_err(failed("move device", wanted.mac))?;
        }
    }
    Ok(())
}

async fn update_here(settings: Settings) -> Result<(), NetworkError> {
    with_netlink(async |handle| {
        for interface in &settings.interfaces {
            set_interface(handle, interface).await?;
        }
        let links = links(handle).await?;
        for route in &settings.routes {
            set_route(handle, route, &links).await?;
        }
        for neighbor in &settings.neighbors {
            set_neighbor(handle, neighbor, &links).await?;
        }
        Ok(())
    })
    .await
}

async fn with_netlink(
    work: impl AsyncFnOnce(&Handle) -> Result<(), NetworkError>,
) -> Result<(), NetworkError> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(NetworkError::Socket)?;
    // Ends by itself when the handle is gone.
    let connection = tokio::spawn(connection);
    let done = timeout(UPDATE, work(&handle)).await.unwrap_or(Err(NetworkError::Late));
    connection.abort();
    done
}

#[derive(Debug)]
struct Link {
    index: u32,
    name: Option<String>,
    mac: Option<Vec<u8>>,
}

impl From<LinkMessage> for Link {
    fn from(message: LinkMessage) -> Self {
        let mut link = Self { index: message.header.index, name: None, mac: None };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = Some(name),
                LinkAttribute::Address(mac) => link.mac = Some(mac),
                _ => {}
            }
        }
        link
    }
}

async fn links(handle: &Handle) -> Result<Vec<Link>, NetworkError> {
    let messages: Vec<LinkMessage> =
        handle.link().get().execute().try_collect().await.map_err(NetworkError::List)?;
    Ok(messages.into_iter().map(Link::from).collect())
}

fn index_of(links: &[Link], name: &str) -> Result<u32, NetworkError> {
    let found = links.iter().find(|link| link.name.as_deref() == Some(name));
    found.map(|link| link.index).ok_or_else(|| NetworkError::NoName(name.to_owned()))
}

async fn set_interface(handle: &Handle, wanted: &Interface) -> Result<(), NetworkError> {
    let links = links(handle).await?;
    let link = links.iter().find(|link| link.mac.as_deref() == Some(&wanted.mac.0));
    let link = link.ok_or(NetworkError::NoDevice(wanted.mac))?;
    let change = || LinkMessageBuilder::<LinkUnspec>::default().index(link.index);
    if link.name.as_deref() != Some(&wanted.name) {
        // A device that is up keeps its name on older kernels; addresses of one that goes down would be lost, but a
        // device gets its name when it is new.
        let renamed = change().down().name(wanted.name.as_str()).build();
        handle.link().set(renamed).execute().await.map_err(failed("rename a device to", &wanted.name))?;
    }
    // The host's network has settled who owns which address; asking again takes a second. A kernel without IPv6 has
    // no such file.
    let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{}/accept_dad", wanted.name), "0");
    let up = match wanted.mtu {
        Some(mtu) => change().mtu(mtu),
        None => change(),
    };
    handle.link().set(up.up().build()).execute().await.map_err(failed("bring up", &wanted.name))?;
    // First: with a primary address the kernel removes all others of its subnet.
    drop_other_addresses(handle, link.index, wanted).await?;
    for address in &wanted.addresses {
        set_address(handle, link.index, address).await?;
    }
    Ok(())
}

/// A clone must not answer for the pod it was made of. Link-local addresses are the device's own.
async fn drop_other_addresses(handle: &Handle, index: u32, wanted: &Interface) -> Result<(), NetworkError> {
    let list = handle.address().get().set_link_index_filter(index).execute();
    let messages: Vec<AddressMessage> = list.try_collect().await.map_err(NetworkError::List)?;
    for message in messages {
        let Some(address) = address_of(&message) else { continue };
        let keep = wanted.addresses.contains(&address) || message.header.scope == AddressScope::Link;
        if !keep {
            handle.address().del(message).execute().await.map_err(failed("remove address", address))?;
        }
    }
    Ok(())
}

/// IPv4 has its own address in `Local`; IPv6 has only `Address`.
fn address_of(message: &AddressMessage) -> Option<Cidr> {
    let find = |local: bool| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(address) if local => Some(*address),
            AddressAttribute::Address(address) if !local => Some(*address),
            _ => None,
        })
    };
    let address = find(true).or_else(|| find(false))?;
    Some(Cidr { address, prefix: message.header.prefix_len })
}

async fn set_address(handle: &Handle, index: u32, address: &Cidr) -> Result<(), NetworkError> {
    let mut request = handle.address().add(index, address.address, address.prefix).replace();
    // The routes of the request are all there are to be.
    let mut flags = AddressFlags::Noprefixroute;
    if address.address.is_ipv6() {
        flags |= AddressFlags::Nodad;
    }
    request.message_mut().attributes.push(AddressAttribute::Flags(flags));
    request.execute().await.map_err(failed("add address", address))
}

async fn set_route(handle: &Handle, route: &Route, links: &[Link]) -> Result<(), NetworkError> {
    let family = |_| NetworkError::Family(route.to_string());
    let index = index_of(links, &route.interface)?;
    let mut message = RouteMessageBuilder::<std::net::IpAddr>::new()
        .destination_prefix(route.destination.address, route.destination.prefix)
        .map_err(family)?
        .output_interface(index)
        .scope(RouteScope::from(route.scope));
    if let Some(gateway) = route.gateway {
        message = message.gateway(gateway).map_err(family)?;
    }
    if let Some(source) = route.source {
        message = message.pref_source(source).map_err(family)?;
    }
    if let Some(metric) = route.metric {
        message = message.priority(metric);
    }
    let mut message = message.build();
    if route.onlink {
        message.header.flags |= RouteFlags::Onlink;
    }
    handle.route().add(message).replace().execute().await.map_err(failed("add route", route))
}

async fn set_neighbor(handle: &Handle, neighbor: &Neighbor, links: &[Link]) -> Result<(), NetworkError> {
    let index = index_of(links, &neighbor.interface)?;
    let request = handle.neighbours().add(index, neighbor.address).link_layer_address(&neighbor.mac.0);
    request.replace().execute().await.map_err(failed("add neighbour", neighbor.address))
}

#[cfg(test)]
mod tests;
