use super::*;

fn parse(options: &[&str]) -> Options {
    let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
    Options::parse(&options)
}

#[test]
fn the_table_is_sorted_but_for_the_empty_option() {
    let names: Vec<&str> = TABLE.iter().map(|(name, _)| *name).filter(|name| !name.is_empty()).collect();
    assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
}

#[test]
fn every_flag_that_the_spec_demands_is_known() {
    let must = "async atime bind defaults dev diratime dirsync exec iversion lazytime loud noatime nodev nodiratime \
                noexec noiversion nolazytime norelatime nostrictatime nosuid private ratime rbind rdev rdiratime relatime remount \
                rexec rnoatime rnodev rnodiratime rnoexec rnorelatime rnostrictatime rnosuid rnosymfollow ro rprivate \
                rrelatime rro rrw rshared rslave rstrictatime rsuid rsymfollow runbindable rw shared silent slave \
                strictatime suid sync unbindable mand nomand symfollow nosymfollow idmap ridmap tmpcopyup";
    for name in must.split_whitespace() {
        assert!(names().any(|known| known == name), "{name}");
    }
}

#[test]
fn attributes_become_the_kernels_bits() {
    let options = parse(&["ro", "nosuid", "nodev", "noexec", "nodiratime", "nosymfollow"]);
    assert_eq!(options.set, 0x1 | 0x2 | 0x4 | 0x8 | 0x80 | 0x20_0000);
    assert_eq!(options.clear, 0);
}

#[test]
fn the_later_of_two_opposites_wins() {
    let options = parse(&["ro", "rw", "suid", "nosuid"]);
    assert_eq!((options.set, options.clear), (NOSUID, RDONLY));
    assert!(!options.read_only());
}

#[test]
fn access_time_is_one_field_that_is_cleared_before_it_is_set() {
    assert_eq!((parse(&["noatime"]).set, parse(&["noatime"]).clear), (NOATIME, ATIME));
    assert_eq!(parse(&["noatime", "strictatime"]).set, STRICTATIME);
    assert_eq!((parse(&["strictatime", "relatime"]).set, parse(&["relatime"]).clear), (0, ATIME));
    let recursive = parse(&["rnoatime", "rstrictatime"]);
    assert_eq!((recursive.recursive_set, recursive.recursive_clear), (STRICTATIME, ATIME));
    assert_eq!((recursive.set, recursive.clear), (0, 0));
}

#[test]
fn recursive_attributes_are_kept_apart() {
    let options = parse(&["rro", "rnosuid", "rdev"]);
    assert_eq!((options.set, options.clear), (0, 0));
    assert_eq!((options.recursive_set, options.recursive_clear), (RDONLY | NOSUID, NODEV));
    assert!(options.read_only() && options.read_only_recursive());
    assert!(!parse(&["ro"]).read_only_recursive());
}

#[test]
fn flags_of_the_superblock_are_given_by_name_and_taken_back_by_their_opposite() {
    assert_eq!(
        parse(&["sync", "lazytime", "dirsync", "nolazytime"]).super_flags,
        ["sync", "dirsync", "nolazytime"]
    );
    assert_eq!(parse(&["sync", "sync"]).super_flags, ["sync"]);
}

#[test]
fn the_last_propagation_counts() {
    let propagation = parse(&["rslave", "private"]).propagation;
    assert_eq!(propagation, Some(Propagation { mode: Private, recursive: false }));
    let propagation = parse(&["runbindable"]).propagation;
    assert_eq!(propagation, Some(Propagation { mode: Unbindable, recursive: true }));
}

#[test]
fn rbind_is_not_undone_by_bind() {
    assert_eq!(parse(&["bind"]).bind, Some(false));
    assert_eq!(parse(&["rbind", "bind"]).bind, Some(true));
    assert_eq!(parse(&["ro"]).bind, None);
}

#[test]
fn defaults_and_flags_without_effect_change_nothing() {
    let nothing = ["defaults", "silent", "loud", "iversion", "noiversion", ""];
    assert_eq!(parse(&nothing), Options::default());
}

#[test]
fn other_options_are_the_filesystems_in_order() {
    assert_eq!(
        parse(&["size=64k", "nosuid", "mode=755", "newinstance"]).data,
        ["size=64k", "mode=755", "newinstance"]
    );
}

#[test]
fn the_options_of_runtimes_are_told_apart_from_flags() {
    let options = parse(&["tmpcopyup", "remount", "idmap"]);
    assert!(options.copy_up && options.remount && options.data.is_empty());
    assert_eq!((options.id_map, parse(&["ridmap", "idmap"]).id_map), (Some(false), Some(true)));
}
