use super::*;

fn list(entries: &[&str]) -> Result<AllowedSysctls, String> {
    entries.iter().map(|entry| (*entry).to_owned()).collect::<Vec<_>>().try_into()
}

#[test]
fn a_name_allows_itself_and_a_prefix_what_is_below_it() {
    let allowed = list(&["vm.overcommit_memory", "kernel.sched.*"]).unwrap();
    for name in ["vm.overcommit_memory", "kernel.sched.x", "kernel.sched.x.y"] {
        assert!(allowed.allow(name), "{name}");
    }
    for name in ["vm.overcommit_memory2", "vm.overcommit", "kernel.sched", "kernel.schedx", "kernel.panic"] {
        assert!(!allowed.allow(name), "{name}");
    }
    assert!(!AllowedSysctls::default().allow("vm.overcommit_memory"));
}

#[test]
fn what_is_neither_a_name_nor_a_prefix_is_refused() {
    for entry in ["", "*", ".*", "vm.", "vm*", "vm.*.x", "vm/swappiness", "vm..x", "vm.a b"] {
        assert!(list(&["vm.*", entry]).unwrap_err().starts_with(&format!("{entry:?} is neither")), "{entry}");
    }
}

fn allowed(pattern: &str, path: &str) -> bool {
    AllowedSockets::try_from(vec![pattern.to_owned()]).unwrap().allow(Path::new(path))
}

#[test]
fn a_star_stands_for_letters_of_one_name() {
    for (pattern, path) in [
        ("/run/docker.sock", "/run/docker.sock"),
        ("/run/*/agent.sock", "/run/spire/agent.sock"),
        ("/run/spire/*.sock", "/run/spire/.sock"),
        ("/run/*", "/run/x"),
        ("/run/a*b*c", "/run/aXbbYc"),
        ("/run/*a*a*", "/run/aa"),
        ("/run/ab*ba", "/run/abba"),
    ] {
        assert!(allowed(pattern, path), "{pattern} {path}");
    }
    for (pattern, path) in [
        ("/run/docker.sock", "/run/docker.sock.old"),
        ("/run/docker.sock", "/run/x/docker.sock"),
        ("/run/*.sock", "/run/a/b.sock"),
        ("/run/*", "/run"),
        ("/run/*", "/run/a/b"),
        ("/run/ab*ba", "/run/aba"),
        ("/run/a*b*c", "/run/acb"),
        ("/run/*a*a*", "/run/a"),
        ("/run/?.sock", "/run/a.sock"),
        ("/run/x", "run/x"),
        ("/run/x", ""),
    ] {
        assert!(!allowed(pattern, path), "{pattern} {path}");
    }
    assert!(!AllowedSockets::default().allow(Path::new("/run/docker.sock")));
}

#[test]
fn a_pattern_is_an_absolute_path_of_plain_names() {
    for wrong in ["", "/", "run/x", "/run/../x", "/run/./x", "/run//x", "/run/", "/run/**", "*", "/run/\0"] {
        let refused = AllowedSockets::try_from(vec![wrong.to_owned()]).unwrap_err();
        assert!(refused.contains("is no absolute path"), "{wrong:?}: {refused}");
    }
    assert!(AllowedSockets::try_from(vec!["/run/x".to_owned(); 257]).is_err());
}
