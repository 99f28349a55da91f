use std::{future::Future, net::IpAddr, thread};

use rtnetlink::{LinkVeth, packet_route::neighbour::NeighbourAttribute};

use super::*;

const MAC: Mac = Mac([2, 0xbb, 0, 0, 0, 1]);

/// Runs in a network namespace of its own, on a thread that ends with it. Needs root: without it, says so.
fn alone<F: Future<Output = ()>>(test: impl FnOnce(Handle) -> F + Send + 'static) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: needs root");
        return;
    }
    let inside = move || {
        // SAFETY: unshare takes no pointers; only this thread, which the test owns, changes its namespace.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection().unwrap();
            tokio::spawn(connection);
            test(handle).await;
        });
    };
    thread::spawn(inside).join().unwrap();
}

async fn add_device(handle: &Handle) {
    let device = LinkVeth::new("slot7", "peer").address(MAC.0.to_vec()).build();
    handle.link().add(device).execute().await.unwrap();
}

fn settings() -> Settings {
    let cidr = |text: &str| text.parse().unwrap();
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let route = |destination: &str, gateway: Option<&str>| Route {
        destination: cidr(destination),
        gateway: gateway.map(ip),
        interface: "eth0".into(),
        source: None,
        scope: if gateway.is_some() { 0 } else { 253 },
        metric: None,
        onlink: false,
    };
    let interface = Interface {
        mac: MAC,
        name: "eth0".into(),
        mtu: Some(1400),
        addresses: vec![cidr("10.9.0.2/24"), cidr("fd09::2/64")],
    };
    Settings {
        interfaces: vec![interface],
        routes: vec![
            route("169.254.1.1/32", None),
            route("10.9.0.0/24", None),
            route("fd09::/64", None),
            route("0.0.0.0/0", Some("10.9.0.1")),
            route("::/0", Some("fd09::1")),
        ],
        neighbors: vec![Neighbor {
            address: ip("10.9.0.1"),
            mac: Mac([2, 0, 0, 0, 0, 9]),
            interface: "eth0".into(),
        }],
    }
}

async fn routes(handle: &Handle) -> usize {
    let mut count = 0;
    for family in [
        RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
        RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
    ] {
        let found: Vec<_> = handle.route().get(family).execute().try_collect().await.unwrap();
        count += found
            .iter()
            .filter(|route| route.header.destination_prefix_length == 0 && route.header.table == 254)
            .count();
    }
    count
}

async fn addresses(handle: &Handle, index: u32) -> Vec<String> {
    let found: Vec<_> =
        handle.address().get().set_link_index_filter(index).execute().try_collect().await.unwrap();
    let mut found: Vec<String> =
        found.iter().filter_map(|message| Some(address_of(message)?.to_string())).collect();
    found.retain(|address| !address.starts_with("fe80"));
    found.sort();
    found
}

#[test]
fn a_device_gets_its_name_mtu_addresses_routes_and_neighbours_and_twice_is_fine() {
    alone(async |handle| {
        add_device(&handle).await;
        for _ in 0..2 {
            update(settings(), None).await.unwrap();
        }
        let links = links(&handle).await.unwrap();
        let index = index_of(&links, "eth0").unwrap();
        assert_eq!(addresses(&handle, index).await, ["10.9.0.2/24", "fd09::2/64"]);
        assert_eq!(routes(&handle).await, 2);
        let neighbors: Vec<_> = handle.neighbours().get().execute().try_collect().await.unwrap();
        let mac = NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, 9]);
        assert!(neighbors.iter().any(|neighbor| neighbor.attributes.contains(&mac)));
        let mtu = std::process::Command::new("ip").args(["-o", "link", "show", "eth0"]).output();
        if let Ok(shown) = mtu {
            let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
            assert!(shown.contains("mtu 1400") && shown.contains("UP"), "{shown}");
        }
    });
}

#[test]
fn addresses_that_are_no_longer_asked_for_go() {
    alone(async |handle| {
        add_device(&handle).await;
        update(settings(), None).await.unwrap();
        let mut next = settings();
        next.interfaces[0].addresses = vec!["10.9.0.3/24".parse().unwrap()];
        next.routes.truncate(1);
        update(next, None).await.unwrap();
        let index = index_of(&links(&handle).await.unwrap(), "eth0").unwrap();
        assert_eq!(addresses(&handle, index).await, ["10.9.0.3/24"]);
    });
}

#[test]
fn loopback_comes_up() {
    alone(async |handle| {
        bulkhead_sys::loopback::bring_up().unwrap();
        assert_eq!(addresses(&handle, 1).await, ["127.0.0.1/8", "::1/128"]);
    });
}

#[tokio::test]
async fn a_device_that_is_not_there_is_named_by_its_address() {
    let interface = Interface {
        mac: Mac([2, 0xbb, 0, 0, 0, 0x7f]),
        name: "eth0".into(),
        mtu: None,
        addresses: Vec::new(),
    };
    let settings = Settings { interfaces: vec![interface], ..Settings::default() };
    let error = update(settings, None).await.unwrap_err();
    assert_eq!(error.to_string(), "no network device has the address 02:bb:00:00:00:7f");
}

#[tokio::test]
async fn an_empty_update_changes_nothing() {
    update(Settings::default(), None).await.unwrap();
}

#[test]
fn a_device_is_moved_into_the_namespace_that_it_is_for_and_found_there_again() {
    alone(async |handle| {
        add_device(&handle).await;
        let (opened, namespace) = std::sync::mpsc::sync_channel(1);
        let (end, ended) = std::sync::mpsc::sync_channel::<()>(1);
        let other = thread::spawn(move || {
            // SAFETY: unshare takes no pointers; only this thread, which the test owns, changes its namespace.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0);
            opened.send(File::open("/proc/thread-self/ns/net").unwrap()).unwrap();
            let _ = ended.recv();
        });
        let namespace = namespace.recv().unwrap();
        for _ in 0..2 {
            update(settings(), Some(namespace.try_clone().unwrap())).await.unwrap();
        }
        assert!(index_of(&links(&handle).await.unwrap(), "eth0").is_err(), "it is still here");
        let there = thread::spawn(move || {
            namespace::enter(namespace, namespace::Kind::Network).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(with_netlink(async |handle| {
                let index = index_of(&links(handle).await?, "eth0")?;
                assert_eq!(addresses(handle, index).await, ["10.9.0.2/24", "fd09::2/64"]);
                assert_eq!(routes(handle).await, 2);
                Ok(())
            }))
        });
        there.join().unwrap().unwrap();
        drop(end);
        other.join().unwrap();
    });
}
