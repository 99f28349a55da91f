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
