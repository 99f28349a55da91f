use super::missing;

#[test]
fn upgrades_of_what_is_there_are_not_fetched() {
    let plan = "Reading package lists...\n\
        Inst login [1:4.13-1] (1:4.13-2 Debian:12.15/oldstable [amd64])\n\
        Inst conmon (2.1.6+ds1-1 Debian:12.15/oldstable [amd64])\n\
        Conf conmon (2.1.6+ds1-1 Debian:12.15/oldstable [amd64])\n";
    assert_eq!(missing(plan), ["conmon"]);
    assert_eq!(missing("podman is already the newest version\n"), [""; 0]);
}
