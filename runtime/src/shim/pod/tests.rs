use std::{fs, path::Path};

use bulkhead_protocol::{
    container::Limit,
    pod::{DnsConfig, NamespaceMode, PodSandboxConfig},
};
use containerd_shim_protos::sandbox_api::CreateSandboxRequest;
use protobuf::{EnumOrUnknown, Message as _, well_known_types::any::Any};

use super::{Pod, cgroups_path, resolv_conf};
use crate::spec::PodLimits;

fn request(change: impl FnOnce(&mut PodSandboxConfig)) -> CreateSandboxRequest {
    let mut config = PodSandboxConfig { hostname: "web".into(), ..Default::default() };
    change(&mut config);
    let type_url = "runtime.v1.PodSandboxConfig".to_owned();
    let options = Any { type_url, value: config.write_to_bytes().unwrap(), ..Default::default() };
    let netns_path = "/run/netns/web".to_owned();
    CreateSandboxRequest { netns_path, options: Some(options).into(), ..Default::default() }
}

fn parse(request: &CreateSandboxRequest) -> Result<Pod, String> {
    Pod::parse("pod".parse().unwrap(), request).map_err(|error| error.to_string())
}

#[test]
fn a_bundle_says_what_cri_said() {
    let described = parse(&request(|config| {
        config.annotations.insert("org.bulkhead.vm.vcpus".into(), "2".into());
        let linux = config.linux.mut_or_insert_default();
        linux.cgroup_parent = "/kubepods/besteffort/pod1".into();
        linux.sysctls.insert("net.ipv4.ip_forward".into(), "1".into());
        linux.resources.mut_or_insert_default().memory_limit_in_bytes = 256 << 20;
        config.metadata.mut_or_insert_default().namespace = "default".into();
    }));
    let config = described.unwrap().config_json("web", Path::new("/dev/shm"));
    assert_eq!(config["hostname"], "web");
    assert_eq!(config["annotations"]["org.bulkhead.vm.vcpus"], "2");
    assert_eq!(config["annotations"]["io.kubernetes.cri.container-type"], "sandbox");
    assert_eq!(config["annotations"]["io.kubernetes.cri.sandbox-namespace"], "default");
    assert_eq!(config["linux"]["cgroupsPath"], "/kubepods/besteffort/pod1/pod");
    assert_eq!(config["linux"]["sysctl"]["net.ipv4.ip_forward"], "1");
    assert_eq!(config["linux"]["namespaces"][4]["path"], "/run/netns/web");
    // It is a bundle that can be run.
    let bundle = tempfile::tempdir().unwrap();
    fs::create_dir(bundle.path().join("rootfs")).unwrap();
    fs::write(bundle.path().join("config.json"), config.to_string()).unwrap();
    let bundle =
        crate::spec::load(bundle.path(), &"pod".parse().unwrap(), &crate::spec::Policy::default(), None);
    let limits = PodLimits { memory: Some(Limit::Value(256 << 20)), ..PodLimits::default() };
    assert_eq!(bundle.unwrap().host.pod, limits);
}

#[test]
fn what_a_microvm_cannot_have_is_refused() {
    let no_network = CreateSandboxRequest { netns_path: String::new(), ..request(|_| {}) };
    assert!(parse(&no_network).unwrap_err().contains("hostNetwork"));
    let node = request(|config| {
        let context = config.linux.mut_or_insert_default().security_context.mut_or_insert_default();
        context.namespace_options.mut_or_insert_default().network = EnumOrUnknown::new(NamespaceMode::NODE);
    });
    assert!(parse(&node).unwrap_err().contains("hostNetwork"));
    let users = request(|config| {
        let context = config.linux.mut_or_insert_default().security_context.mut_or_insert_default();
        context.namespace_options.mut_or_insert_default().userns_options.mut_or_insert_default();
    });
    assert!(parse(&users).unwrap_err().contains("user namespace"));
    let relative = CreateSandboxRequest { netns_path: "netns/web".into(), ..request(|_| {}) };
    assert!(parse(&relative).unwrap_err().contains("not absolute"));
}

#[test]
fn hostile_descriptions_are_errors() {
    let broken =
        Any { type_url: "runtime.v1.PodSandboxConfig".into(), value: vec![0xff; 9], ..Default::default() };
    let broken = CreateSandboxRequest { options: Some(broken).into(), ..request(|_| {}) };
    assert!(parse(&broken).unwrap_err().contains("read the options"));
    let other = CreateSandboxRequest { options: Some(Any::new()).into(), ..request(|_| {}) };
    assert!(parse(&other).unwrap_err().contains("PodSandboxConfig"));
    assert!(parse(&request(|config| config.hostname = "a\nb".into())).unwrap_err().contains("single line"));
    let dns = |server: &str| DnsConfig { servers: vec![server.into()], ..Default::default() };
    assert!(resolv_conf(&dns("10.0.0.10\noptions evil")).is_err());
    assert!(resolv_conf(&DnsConfig { servers: vec!["::1".into(); 65], ..Default::default() }).is_err());
}

#[test]
fn resolv_conf_is_that_of_the_pod_or_the_nodes() {
    let dns = DnsConfig {
        servers: vec!["10.0.0.10".into(), "fd00::a".into()],
        searches: vec!["default.svc".into(), "svc".into()],
        options: vec!["ndots:5".into()],
        ..Default::default()
    };
    let expected = "search default.svc svc\nnameserver 10.0.0.10\nnameserver fd00::a\noptions ndots:5\n";
    assert_eq!(resolv_conf(&dns).unwrap().as_deref(), Some(expected));
    assert_eq!(resolv_conf(&DnsConfig::new()).unwrap(), None);
}

#[test]
fn cgroups_are_named_as_containerd_names_them() {
    let id = "pod".parse().unwrap();
    let named = |parent: &str| cgroups_path(parent, &id);
    assert_eq!(named("/kubepods/pod1/").as_deref(), Some("/kubepods/pod1/pod"));
    let slice = "/kubepods.slice/kubepods-pod1.slice";
    assert_eq!(named(slice).as_deref(), Some("kubepods-pod1.slice:cri-containerd:pod"));
    assert_eq!(named(""), None);
}
