use super::{mirror_among, planned};

#[test]
fn the_mirror_is_that_of_the_release_itself() {
    let targets = "bookworm-updates main http://updates.example/debian/\n\
        nodistro main http://other.example/\n\
        bookworm main http://mirror.example/debian/\n";
    let os = "ID=debian\nVERSION_CODENAME=bookworm\n";
    assert_eq!(mirror_among(targets, os), Some("http://mirror.example/debian/"));
    assert_eq!(mirror_among(targets, "VERSION_CODENAME=trixie\n"), None);
    assert_eq!(mirror_among(targets, "ID=debian\n"), None);
}

#[test]
fn all_that_an_installation_would_bring_is_fetched() {
    let plan = "Reading package lists...\n\
        Inst libc6 (2.41-12+deb13u5 Debian:13.3/stable [amd64])\n\
        Inst qemu-system-x86 (1:11.1.3+ds-1~bpo13+1 Debian Backports:stable-backports [amd64]) []\n\
        Conf libc6 (2.41-12+deb13u5 Debian:13.3/stable [amd64])\n";
    assert_eq!(planned(plan), ["libc6", "qemu-system-x86"]);
}
