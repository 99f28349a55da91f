//! What is in a network namespace: the interfaces a VM is to have, and what the agent sets on them.
//!
//!   netlink dumps ─▶ `Dump` ─read, pure─▶ `Scan`
//!
//! A VM gets the interfaces that are Ethernet and are up or have an address, with their addresses, their routes of the main
//! table and their permanent neighbours. Whatever of this cannot be set in a guest is an error and is not left out: a
//! container without one of its routes would fail in ways that are hard to understand.

use std::net::{IpAddr, Ipv6Addr};

use bulkhead_protocol::agent;
use futures::TryStreamExt as _;
use rtnetlink::{
    Handle, RouteMessageBuilder,
    packet_route::{
        address::{AddressAttribute, AddressMessage},
        link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage},
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
        route::{
            RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteType,
        },
    },
};

use super::{NetworkError, TAP_PREFIX};

/// An interface that gets a device in the VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    pub index: u32,
    pub name: String,
    pub mac: [u8; 6],
    pub mtu: u16,
}

/// Everything that a VM is given of a namespace.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scan {
    /// By index.
    pub interfaces: Vec<Interface>,
    /// For the agent; the container is not filled in.
    pub request: agent::UpdateNetworkRequest,
}

/// As the kernel says it.
#[derive(Debug, Default)]
pub(super) struct Dump {
    pub(super) links: Vec<LinkMessage>,
    pub(super) addresses: Vec<AddressMessage>,
    pub(super) routes: Vec<RouteMessage>,
    pub(super) neighbors: Vec<NeighbourMessage>,
}

impl Scan {
    /// # Errors
    /// When the kernel does not answer, or something is there that a guest cannot be given.
    pub async fn of(handle: &Handle) -> Result<Self, NetworkError> {
        Self::read(&dump(handle).await?)
    }

    pub(super) fn read(dump: &Dump) -> Result<Self, NetworkError> {
        let mut scan = Self::default();
        for link in &dump.links {
            let addresses = addresses(dump, link)?;
            if let Some(interface) = interface(link, &addresses)? {
                scan.request.interfaces.push(agent::Interface {
                    mac: mac_text(&interface.mac),
                    name: interface.name.clone(),
                    mtu: interface.mtu.into(),
                    addresses,
                    ..agent::Interface::new()
                });
                scan.interfaces.push(interface);
            }
        }
        for route in &dump.routes {
            scan.request.routes.extend(scan.route(route)?);
        }
        for neighbor in &dump.neighbors {
            scan.request.neighbors.extend(scan.neighbor(neighbor));
        }
        Ok(scan)
    }

    fn name(&self, index: u32) -> Option<&str> {
        self.interfaces.iter().find(|interface| interface.index == index).map(|found| found.name.as_str())
    }

    /// `None` for a route that the guest makes itself or has no use for.
    fn route(&self, message: &RouteMessage) -> Result<Option<agent::Route>, NetworkError> {
        let mut route = agent::Route::new();
        let mut index = None;
        let mut table = u32::from(message.header.table);
        let mut refused = None;
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(address) => {
                    let prefix = message.header.destination_prefix_length;
                    route.destination =
                        address_text(address).map(|text| format!("{text}/{prefix}")).unwrap_or_default();
                }
                RouteAttribute::Gateway(address) => route.gateway = address_text(address).unwrap_or_default(),
                RouteAttribute::PrefSource(address) => {
                    route.source = address_text(address).unwrap_or_default();
                }
                RouteAttribute::Priority(metric) => route.metric = *metric,
                RouteAttribute::Oif(oif) => index = Some(*oif),
                RouteAttribute::Table(number) => table = *number,
                RouteAttribute::MultiPath(_) => refused = Some("the route has several next hops"),
                RouteAttribute::Via(_) => refused = Some("the gateway belongs to another address family"),
                RouteAttribute::Encap(_) | RouteAttribute::EncapType(_) => {
                    refused = Some("the route encapsulates packets");
                }
                RouteAttribute::Metrics(metrics) if !metrics.is_empty() => {
                    refused = Some("the route has metrics, such as an MTU");
                }
                _ => {}
            }
        }
        if route.destination.is_empty() && message.header.destination_prefix_length == 0 {
            let any = if message.header.address_family == rtnetlink::packet_route::AddressFamily::Inet6 {
                "::/0"
            } else {
                "0.0.0.0/0"
            };
            any.clone_into(&mut route.destination);
        }
        if table != u32::from(RouteHeader::RT_TABLE_MAIN) || !is_for_guest(message, &route) {
            return Ok(None);
        }
        if message.header.kind != RouteType::Unicast {
            refused = Some("the route is not unicast");
        }
        let unsupported = |reason| {
            let object = format!("route {}", route.destination);
            Err(NetworkError::Unsupported { object, reason })
        };
        if let Some(reason) = refused {
            return unsupported(reason);
        }
        let Some(name) = index.and_then(|index| self.name(index)) else {
            // By a device that is down there, or is `lo`: not in use.
            return Ok(None);
        };
        name.clone_into(&mut route.interface);
        route.scope = u8::from(message.header.scope).into();
        route.onlink = message.header.flags.contains(RouteFlags::Onlink);
        Ok(Some(route))
    }

    fn neighbor(&self, message: &NeighbourMessage) -> Option<agent::Neighbor> {
        if message.header.state != NeighbourState::Permanent {
            return None;
        }
        let mut neighbor = agent::Neighbor::new();
        self.name(message.header.ifindex)?.clone_into(&mut neighbor.interface);
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => {
                    neighbor.address = address.to_string();
                }
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => {
                    neighbor.address = address.to_string();
                }
                NeighbourAttribute::LinkLayerAddress(mac) => {
                    neighbor.mac = mac_text(mac.as_slice().try_into().ok()?);
                }
                _ => {}
            }
        }
        (!neighbor.address.is_empty() && !neighbor.mac.is_empty()).then_some(neighbor)
    }
}

async fn dump(handle: &Handle) -> Result<Dump, NetworkError> {
    let failed = |what| move |source| NetworkError::List { what, source };
    let links = handle.link().get().execute().try_collect().await.map_err(failed("interfaces"))?;
    let addresses = handle.address().get().execute().try_collect().await.map_err(failed("addresses"))?;
    let mut routes = Vec::new();
    for family in [
        RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
        RouteMessageBuilder::<Ipv6Addr>::new().build(),
    ] {
        let found: Vec<_> =
            handle.route().get(family).execute().try_collect().await.map_err(failed("routes"))?;
        routes.extend(found);
    }
    let neighbors = handle.neighbours().get().execute().try_collect().await.map_err(failed("neighbours"))?;
    Ok(Dump { links, addresses, routes, neighbors })
}

/// `None` when the VM gets no device for it.
fn interface(link: &LinkMessage, addresses: &[String]) -> Result<Option<Interface>, NetworkError> {
    let (mut name, mut mac, mut mtu, mut port) = ("", None, 0, false);
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(given) => name = given,
            LinkAttribute::Address(address) => mac = <[u8; 6]>::try_from(address.as_slice()).ok(),
            LinkAttribute::Mtu(given) => mtu = *given,
            LinkAttribute::Controller(_) => port = true,
            _ => {}
        }
    }
    let up = link.header.flags.contains(LinkFlags::Up);
    // The port of a bridge or bond speaks through that.
    if port || name.starts_with(TAP_PREFIX) || (!up && addresses.is_empty()) {
        return Ok(None);
    }
    let unsupported = |reason| Err(NetworkError::Unsupported { object: format!("interface {name}"), reason });
    match (link.header.link_layer_type, mac) {
        (LinkLayerType::Loopback, _) if addresses.is_empty() => Ok(None),
        (LinkLayerType::Loopback, _) => unsupported("lo has addresses beside 127.0.0.1/8 and ::1/128"),
        (LinkLayerType::Ether, Some(mac)) => {
            let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
            Ok(Some(Interface { index: link.header.index, name: name.to_owned(), mac, mtu }))
        }
        _ => unsupported("the interface is not Ethernet"),
    }
}

/// IFA_ADDRESS and IFA_LOCAL of rtnetlink(7): the first is the peer's where there is one, the second the own one of IPv4.
pub(super) fn address_and_local(message: &AddressMessage) -> (Option<IpAddr>, Option<IpAddr>) {
    let (mut address, mut local) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(given) => address = Some(*given),
            AddressAttribute::Local(given) => local = Some(*given),
            _ => {}
        }
    }
    (address, local)
}

/// The addresses of one interface, without those that the guest makes itself: the loopback addresses, and the link-local
/// address of the MAC.
fn addresses(dump: &Dump, link: &LinkMessage) -> Result<Vec<String>, NetworkError> {
    let mut found = Vec::new();
    for message in dump.addresses.iter().filter(|message| message.header.index == link.header.index) {
        let (address, local) = address_and_local(message);
        let prefix = message.header.prefix_len;
        match (address, local) {
            (Some(IpAddr::V6(own)), _) if own == Ipv6Addr::LOCALHOST || Some(own) == link_local(link) => {}
            (Some(IpAddr::V4(own)), _) if own.is_loopback() && prefix == 8 => {}
            (Some(peer), Some(own)) if peer != own => {
                let object = format!("address {own} peer {peer}");
                let reason = "an Ethernet interface of a guest cannot have a point-to-point address";
                return Err(NetworkError::Unsupported { object, reason });
            }
            (Some(own), _) | (None, Some(own)) => found.push(format!("{own}/{prefix}")),
            (None, None) => {}
        }
    }
    Ok(found)
}

/// The address that a kernel makes of an Ethernet address (RFC 4291, appendix A).
fn link_local(link: &LinkMessage) -> Option<Ipv6Addr> {
    let mac = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(mac) => <[u8; 6]>::try_from(mac.as_slice()).ok(),
        _ => None,
    })?;
    let [a, b, c, d, e, f] = mac;
    Some(Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f]))
}

/// False for routes that the guest makes itself: link-local and multicast routes, and those that routers advertise.
fn is_for_guest(message: &RouteMessage, route: &agent::Route) -> bool {
    let own = ["fe80::/", "ff00::/"].iter().any(|prefix| route.destination.starts_with(prefix));
    let passing = matches!(message.header.protocol, RouteProtocol::Ra | RouteProtocol::IcmpRedirect);
    let cloned = message.header.flags.contains(RouteFlags::Cloned);
    !own && !passing && !cloned
}

fn address_text(address: &RouteAddress) -> Option<String> {
    match address {
        RouteAddress::Inet(address) => Some(address.to_string()),
        RouteAddress::Inet6(address) => Some(address.to_string()),
        _ => None,
    }
}

fn mac_text(mac: &[u8; 6]) -> String {
    let [a, b, c, d, e, f] = mac;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}
