use super::*;

#[test]
fn mounts_of_virtio_fs_are_found_by_their_type_alone() {
    let line = b"61 40 0:45 /sub /data\\040and\\134more rw,nosuid shared:1 master:2 - virtiofs none rw";
    let expected = Mounted {
        device: Device { major: 0, minor: 45 },
        root: b"/sub".to_vec(),
        path: "/data and\\more".into(),
    };
    assert_eq!(Mounted::parse(line), Some(expected));
    let bare = Mounted::parse(b"61 40 0:45 / / rw - virtiofs none rw").unwrap();
    assert_eq!(bare.path, PathBuf::from("/"));
    for other in [
        &b""[..],
        b"61 40 0:45 / /virtiofs rw - tmpfs virtiofs rw",
        b"61 40 0:45 / / rw virtiofs none rw",
        b"61 40 045 / / rw - virtiofs none rw",
        b"61 40 0:\xff / / rw - virtiofs none rw",
        b"61 40 0:45",
        b"61 40 0:45 / / rw -",
    ] {
        assert_eq!(Mounted::parse(other), None, "{}", String::from_utf8_lossy(other));
    }
}

#[test]
fn what_is_no_escape_stays() {
    for (text, plain) in
        [("\\", "\\"), ("\\04", "\\04"), ("\\089", "\\089"), ("a\\011b", "a\tb"), ("\\\\040", "\\ ")]
    {
        assert_eq!(unescaped(text.as_bytes()), plain.as_bytes(), "{text}");
    }
}
