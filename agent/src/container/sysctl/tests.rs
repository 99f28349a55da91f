use super::*;

#[test]
fn dots_and_slashes_name_the_same_file() {
    assert_eq!(file_of("net.ipv4.ip_forward").unwrap(), "net/ipv4/ip_forward");
    assert_eq!(file_of("net/ipv4/ip_forward").unwrap(), "net/ipv4/ip_forward");
    assert_eq!(file_of("net.ipv4.conf.eth0/1.forwarding").unwrap(), "net/ipv4/conf/eth0.1/forwarding");
}

#[test]
fn a_parameter_of_the_whole_guest_is_not_the_containers_own() {
    let error = own_file_of("kernel.core_pattern").unwrap_err();
    assert_eq!(file_of("kernel.core_pattern").unwrap(), "kernel/core_pattern");
    assert_eq!(error.chain(), r#"sysctl "kernel.core_pattern" is not in a separate kernel namespace"#);
}

#[test]
fn a_key_cannot_climb() {
    for key in ["net/../kernel/core_pattern", "net..x", "", "/net/x", "net/./x"] {
        assert!(file_of(key).is_err(), "{key}");
    }
}
