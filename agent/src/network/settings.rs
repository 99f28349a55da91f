//! What an `UpdateNetworkRequest` asks for, checked: every address, prefix, name and number parsed before the kernel
//! hears of any.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use bulkhead_protocol::agent;

/// Devices, routes and neighbours of one request.
const ENTRIES: usize = 1024;
/// IFNAMSIZ without its NUL.
const NAME: usize = 15;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    #[error("{what} {text:?} is not a {form}")]
    Form { what: &'static str, text: String, form: &'static str },
    #[error("{what} {value} is too large")]
    Range { what: &'static str, value: u32 },
    #[error("more than {ENTRIES} {what}")]
    TooMany { what: &'static str },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    pub address: IpAddr,
    pub prefix: u8,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    pub mac: Mac,
    pub name: String,
    /// `None` leaves the device's own.
    pub mtu: Option<u32>,
    pub addresses: Vec<Cidr>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub destination: Cidr,
    pub gateway: Option<IpAddr>,
    pub interface: String,
    pub source: Option<IpAddr>,
    /// RT_SCOPE_*.
    pub scope: u8,
    pub metric: Option<u32>,
    /// The gateway is taken to be on the link.
    pub onlink: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbor {
    pub address: IpAddr,
    pub mac: Mac,
    pub interface: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    pub interfaces: Vec<Interface>,
    /// Those without a gateway first: the others may need them to reach theirs.
    pub routes: Vec<Route>,
    pub neighbors: Vec<Neighbor>,
}

impl TryFrom<agent::UpdateNetworkRequest> for Settings {
    type Error = SettingsError;

    fn try_from(request: agent::UpdateNetworkRequest) -> Result<Self, SettingsError> {
        let interfaces = all("interfaces", request.interfaces, Interface::try_from)?;
        let mut routes = all("routes", request.routes, Route::try_from)?;
        let neighbors = all("neighbours", request.neighbors, Neighbor::try_from)?;
        routes.sort_by_key(|route| route.gateway.is_some());
        Ok(Self { interfaces, routes, neighbors })
    }
}

fn all<T, U>(
    what: &'static str,
    items: Vec<T>,
    check: impl Fn(T) -> Result<U, SettingsError>,
) -> Result<Vec<U>, SettingsError> {
    if items.len() > ENTRIES {
        return Err(SettingsError::TooMany { what });
    }
    items.into_iter().map(check).collect()
}

impl TryFrom<agent::Interface> for Interface {
    type Error = SettingsError;

    fn try_from(interface: agent::Interface) -> Result<Self, SettingsError> {
        Ok(Self {
            mac: parse("MAC", &interface.mac, "MAC address")?,
            name: name(&interface.name)?,
            mtu: (interface.mtu != 0).then_some(interface.mtu),
            addresses: all("addresses", interface.addresses, |cidr| parse("address", &cidr, "CIDR"))?,
        })
    }
}

impl TryFrom<agent::Route> for Route {
    type Error = SettingsError;

    fn try_from(route: agent::Route) -> Result<Self, SettingsError> {
        let gateway = optional("gateway", &route.gateway)?;
        let source = optional("source", &route.source)?;
        let destination = if route.destination.is_empty() {
            default_of(gateway.or(source))
        } else {
            parse("destination", &route.destination, "CIDR")?
        };
        let scope = u8::try_from(route.scope)
            .map_err(|_| SettingsError::Range { what: "scope", value: route.scope })?;
        Ok(Self {
            destination,
            gateway,
            interface: name(&route.interface)?,
            source,
            scope,
            metric: (route.metric != 0).then_some(route.metric),
            onlink: route.onlink,
        })
    }
}

impl TryFrom<agent::Neighbor> for Neighbor {
    type Error = SettingsError;

    fn try_from(neighbor: agent::Neighbor) -> Result<Self, SettingsError> {
        Ok(Self {
            address: parse("address", &neighbor.address, "IP address")?,
            mac: parse("MAC", &neighbor.mac, "MAC address")?,
            interface: name(&neighbor.interface)?,
        })
    }
}

/// The default route of the family that the other addresses of the route have.
fn default_of(other: Option<IpAddr>) -> Cidr {
    let address = match other {
        Some(IpAddr::V6(_)) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        Some(IpAddr::V4(_)) | None => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    };
    Cidr { address, prefix: 0 }
}

fn parse<T: FromStr>(what: &'static str, text: &str, form: &'static str) -> Result<T, SettingsError> {
    text.parse().map_err(|_| SettingsError::Form { what, text: text.to_owned(), form })
}

fn optional(what: &'static str, text: &str) -> Result<Option<IpAddr>, SettingsError> {
    if text.is_empty() { Ok(None) } else { parse(what, text, "IP address").map(Some) }
}

/// The kernel's rule for device names (net/core/dev.c: dev_valid_name).
fn name(name: &str) -> Result<String, SettingsError> {
    let legal = |byte: u8| byte.is_ascii_graphic() && byte != b'/' && byte != b':';
    if name.is_empty() || name.len() > NAME || name == "." || name == ".." || !name.bytes().all(legal) {
        return Err(SettingsError::Form { what: "interface", text: name.to_owned(), form: "device name" });
    }
    Ok(name.to_owned())
}

impl FromStr for Mac {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut mac = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut mac {
            // The number parser would take a sign.
            let digits = |part: &&str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
            let part = parts.next().filter(digits).ok_or(())?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| ())?;
        }
        if parts.next().is_some() { Err(()) } else { Ok(Self(mac)) }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Cidr {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, prefix) = text.split_once('/').ok_or(())?;
        let address: IpAddr = address.parse().map_err(|_| ())?;
        if !prefix.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(());
        }
        let prefix = prefix.parse().map_err(|_| ())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        if prefix > most { Err(()) } else { Ok(Self { address, prefix }) }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} dev {}", self.destination, self.interface)?;
        self.gateway.map_or(Ok(()), |gateway| write!(f, " via {gateway}"))
    }
}

#[cfg(test)]
mod tests;
