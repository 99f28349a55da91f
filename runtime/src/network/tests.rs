use super::*;

#[test]
fn a_path_that_is_no_network_namespace_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let text = |path: &Path| Namespace::open(path).unwrap_err().to_string();
    assert_eq!(text(&file), format!("{} is not a network namespace", file.display()));
    assert_eq!(text(Path::new("/proc/self/ns/pid")), "/proc/self/ns/pid is not a network namespace");
    assert!(text(&dir.path().join("missing")).starts_with("open network namespace"));
}

#[test]
fn the_hosts_own_namespace_is_refused() {
    let text = Namespace::open(Path::new("/proc/self/ns/net")).unwrap_err().to_string();
    assert_eq!(text, "/proc/self/ns/net is the host's own network namespace");
}

#[test]
fn undoing_in_a_namespace_that_is_gone_is_done() {
    let id = NamespaceId::example();
    undo(Path::new("/run/netns/never-was"), id, 7, 8).unwrap();
}

mod reading {
    use rtnetlink::{
        RouteMessageBuilder,
        packet_route::{
            address::{AddressAttribute, AddressMessage},
            link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage},
            neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
            route::{RouteMessage, RouteScope, RouteType},
        },
    };

    use super::super::scan::{Dump, Scan};

    fn link(index: u32, name: &str, kind: LinkLayerType) -> LinkMessage {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.link_layer_type = kind;
        link.header.flags = LinkFlags::Up;
        link.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Address(vec![2, 0, 0, 0, 0, index as u8]),
            LinkAttribute::Mtu(1400),
        ];
        link
    }

    fn address(index: u32, text: &str, prefix: u8) -> AddressMessage {
        let mut address = AddressMessage::default();
        address.header.index = index;
        address.header.prefix_len = prefix;
        address.attributes = vec![AddressAttribute::Address(text.parse().unwrap())];
        address
    }

    fn route(destination: &str, prefix: u8, index: u32) -> RouteMessage {
        RouteMessageBuilder::<std::net::IpAddr>::new()
            .destination_prefix(destination.parse().unwrap(), prefix)
            .unwrap()
            .output_interface(index)
            .build()
    }

    fn dump() -> Dump {
        Dump {
            links: vec![link(1, "lo", LinkLayerType::Loopback), link(7, "eth0", LinkLayerType::Ether)],
            ..Dump::default()
        }
    }

    fn refusal(dump: &Dump) -> String {
        Scan::read(dump).unwrap_err().to_string()
    }

    #[test]
    fn an_ethernet_interface_comes_with_its_addresses_routes_and_neighbours() {
        let mut dump = dump();
        dump.addresses = vec![
            address(1, "127.0.0.1", 8),
            address(1, "::1", 128),
            address(7, "10.9.0.2", 24),
            address(7, "fd09::2", 64),
            address(7, "fe80::ff:fe00:7", 64),
            address(7, "fe80::1", 64),
        ];
        let mut default = RouteMessageBuilder::<std::net::Ipv4Addr>::new()
            .gateway("10.9.0.1".parse().unwrap())
            .output_interface(7)
            .priority(100)
            .build();
        default.header.scope = RouteScope::Universe;
        dump.routes = vec![route("10.9.0.0", 24, 7), default, route("fd09::", 64, 7), route("fe80::", 64, 7)];
        let mut neighbor = NeighbourMessage::default();
        neighbor.header.ifindex = 7;
        neighbor.header.state = NeighbourState::Permanent;
        neighbor.attributes = vec![
            NeighbourAttribute::Destination(NeighbourAddress::Inet("10.9.0.1".parse().unwrap())),
            NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, 9]),
        ];
        let mut passing = neighbor.clone();
        passing.header.state = NeighbourState::Reachable;
        dump.neighbors = vec![neighbor, passing];

        let scan = Scan::read(&dump).unwrap();
        assert_eq!(scan.interfaces.len(), 1);
        let (found, asked) = (&scan.interfaces[0], &scan.request.interfaces[0]);
        assert_eq!((found.index, found.name.as_str(), found.mtu), (7, "eth0", 1400));
        assert_eq!((asked.mac.as_str(), asked.mtu), ("02:00:00:00:00:07", 1400));
        assert_eq!(asked.addresses, ["10.9.0.2/24", "fd09::2/64", "fe80::1/64"]);
        let routes: Vec<_> = scan.request.routes.iter().map(|route| route.destination.as_str()).collect();
        assert_eq!(routes, ["10.9.0.0/24", "0.0.0.0/0", "fd09::/64"]);
        assert_eq!(
            (scan.request.routes[1].gateway.as_str(), scan.request.routes[1].metric),
            ("10.9.0.1", 100)
        );
        assert_eq!(scan.request.neighbors.len(), 1);
        assert_eq!(scan.request.neighbors[0].mac, "02:00:00:00:00:09");
    }

    #[test]
    fn loopback_our_own_taps_ports_and_what_is_down_are_left_alone() {
        let mut dump = dump();
        let mut down = link(8, "eth1", LinkLayerType::Ether);
        down.header.flags = LinkFlags::empty();
        let mut port = link(9, "eth2", LinkLayerType::Ether);
        port.attributes.push(LinkAttribute::Controller(7));
        dump.links.extend([down, port, link(10, "bhtap0", LinkLayerType::Ether)]);
        let names: Vec<_> =
            Scan::read(&dump).unwrap().interfaces.into_iter().map(|found| found.name).collect();
        assert_eq!(names, ["eth0"]);
    }

    #[test]
    fn what_a_guest_cannot_be_given_is_refused_by_name() {
        let mut other = dump();
        other.links.push(link(8, "wg0", LinkLayerType::None));
        assert_eq!(
            refusal(&other),
            "interface wg0 of the network namespace is not supported: the interface is not Ethernet"
        );
        let mut extra = dump();
        extra.addresses = vec![address(1, "10.1.1.1", 32)];
        assert!(
            refusal(&extra).starts_with("interface lo of the network namespace is not supported: lo has")
        );
        let mut blackhole = dump();
        let mut hole = route("10.0.0.0", 8, 7);
        hole.header.kind = RouteType::BlackHole;
        blackhole.routes = vec![hole];
        assert!(
            refusal(&blackhole).starts_with("route 10.0.0.0/8 of the network namespace is not supported")
        );
    }
}

mod leftovers {
    use rtnetlink::packet_route::tc::{
        TcAction, TcActionAttribute, TcActionMirrorOption, TcActionOption, TcAttribute, TcFilterU32Option,
        TcMessage, TcMirror, TcOption,
    };

    use super::super::undo::is_ours;

    fn redirect(to: u32) -> TcMessage {
        let mut parameters = TcMirror::default();
        parameters.ifindex = to;
        let mut action = TcAction::default();
        action.attributes = vec![
            TcActionAttribute::Kind("mirred".to_owned()),
            TcActionAttribute::Options(vec![TcActionOption::Mirror(TcActionMirrorOption::Parms(parameters))]),
        ];
        let option = TcOption::U32(TcFilterU32Option::Action(vec![action]));
        filter("u32", vec![option])
    }

    fn filter(kind: &str, options: Vec<TcOption>) -> TcMessage {
        let mut filter = TcMessage::default();
        filter.attributes = vec![TcAttribute::Kind(kind.to_owned()), TcAttribute::Options(options)];
        filter
    }

    #[test]
    fn a_redirect_is_ours_when_it_leads_to_our_tap_or_to_nothing() {
        let other = |option| filter("u32", vec![option]);
        assert!(is_ours(&redirect(0), 8));
        assert!(is_ours(&redirect(8), 8), "the kernel still has the tap of a VMM that is dead");
        assert!(is_ours(&other(TcOption::U32(TcFilterU32Option::Divisor(1))), 8));
        assert!(!is_ours(&redirect(7), 8));
        assert!(!is_ours(&filter("bpf", Vec::new()), 8));
        assert!(!is_ours(&other(TcOption::U32(TcFilterU32Option::Police(Vec::new()))), 8));
    }
}
