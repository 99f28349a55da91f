use super::*;

fn route(destination: &str, gateway: &str) -> agent::Route {
    agent::Route {
        destination: destination.into(),
        gateway: gateway.into(),
        interface: "eth0".into(),
        ..agent::Route::new()
    }
}

fn settings(routes: Vec<agent::Route>) -> Result<Settings, SettingsError> {
    Settings::try_from(agent::UpdateNetworkRequest { routes, ..agent::UpdateNetworkRequest::new() })
}

#[test]
fn an_empty_destination_is_the_default_of_the_gateways_family() {
    let settings = settings(vec![route("", "10.0.0.1"), route("", "fe80::1"), route("", "")]).unwrap();
    let destinations: Vec<String> =
        settings.routes.iter().map(|route| route.destination.to_string()).collect();
    assert_eq!(destinations, ["0.0.0.0/0", "0.0.0.0/0", "::/0"]);
}

#[test]
fn a_route_without_gateway_comes_before_those_that_may_need_it() {
    let settings = settings(vec![route("", "169.254.1.1"), route("169.254.1.1/32", "")]).unwrap();
    assert_eq!(settings.routes[0].gateway, None);
}

#[test]
fn an_interface_is_taken_as_given() {
    let interface = agent::Interface {
        mac: "02:00:00:00:0a:FF".into(),
        name: "eth0".into(),
        mtu: 1450,
        addresses: vec!["10.0.0.2/24".into(), "fd00::2/64".into()],
        ..agent::Interface::new()
    };
    let checked = Interface::try_from(interface).unwrap();
    assert_eq!(checked.mac, Mac([2, 0, 0, 0, 10, 255]));
    assert_eq!(checked.mac.to_string(), "02:00:00:00:0a:ff");
    assert_eq!(checked.mtu, Some(1450));
    assert_eq!(checked.addresses[1].to_string(), "fd00::2/64");
}

#[test]
fn bad_addresses_prefixes_and_names_are_refused_by_name() {
    for (cidr, good) in [("10.0.0.2/33", false), ("10.0.0.2", false), ("::/129", false), ("::/128", true)] {
        assert_eq!(cidr.parse::<Cidr>().is_ok(), good, "{cidr}");
    }
    for mac in
        ["02:00:00:00:00", "02:00:00:00:00:00:00", "2:0:0:0:0:0", "02:00:00:00:00:zz", "+2:00:00:00:00:00"]
    {
        assert!(mac.parse::<Mac>().is_err(), "{mac}");
    }
    for bad in ["", ".", "..", "a/b", "a b", "a:b", "sixteen-bytes-xx"] {
        assert!(name(bad).is_err(), "{bad}");
    }
    let error = settings(vec![route("here", "")]).unwrap_err();
    assert_eq!(error.to_string(), r#"destination "here" is not a CIDR"#);
}
