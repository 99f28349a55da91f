use super::*;

#[tokio::test]
async fn a_device_that_is_not_there_is_named_by_its_address() {
    let interface = Interface {
        mac: Mac([2, 0xbb, 0, 0, 0, 0x7f]),
        name: "eth0".into(),
        mtu: None,
        addresses: Vec::new(),
    };
    let plan = Plan { interfaces: vec![interface], ..Plan::default() };
    let error = update(plan).await.unwrap_err();
    assert_eq!(error.to_string(), "no network device has the address 02:bb:00:00:00:7f");
}

#[tokio::test]
async fn an_empty_update_changes_nothing() {
    update(Plan::default()).await.unwrap();
}
