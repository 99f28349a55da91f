use super::*;

const LINE: &str = "inotify wd:1 ino:2 sdev:2d mask:3ca ignored_mask:0 fhandle-bytes:c fhandle-type:81 \
                    f_handle:000000000a00000007000000 ";

#[test]
fn a_watch_of_fuse_has_device_node_and_events() {
    let line = Line::parse(LINE).unwrap();
    assert_eq!(line.device, Device { major: 0, minor: 0x2d });
    assert_eq!(line.events, 0x3ca);
    assert_eq!(line.handle.node(), [0, 0, 0, 0, 0xa, 0, 0, 0]);
}

#[test]
fn a_device_number_is_the_kernels() {
    let line = Line::parse(&LINE.replace("sdev:2d", "sdev:800123")).unwrap();
    assert_eq!(line.device, Device { major: 8, minor: 0x123 });
}

#[test]
fn events_that_no_host_sees_are_left_out() {
    let line = Line::parse(&LINE.replace("mask:3ca", "mask:a0000fff")).unwrap();
    assert_eq!(line.events, 0xfff & watch::EVENTS);
    assert_eq!(Line::parse(&LINE.replace("mask:3ca", "mask:31")).unwrap().events, 0);
}

#[test]
fn other_lines_are_passed_over() {
    for (from, to) in [
        ("inotify", "fanotify"),
        ("inotify wd", "pos"),
        ("fhandle-type:81", "fhandle-type:1"),
        ("fhandle-type:81", "fhandle-type:ffffffffff"),
        ("sdev:2d ", ""),
        ("sdev:2d", "sdev:-1"),
        ("mask:3ca", "mask:+"),
        ("f_handle:00", "f_handle:0"),
        ("f_handle:00", "f_handle:zz"),
        ("f_handle:00", "f_handle:é"),
        ("07000000 ", ""),
    ] {
        assert_eq!(Line::parse(&LINE.replace(from, to)), None, "{to}");
    }
    for line in ["", " ", "inotify", "pos:\t0", "flags:\t04000", ":", "inotify :::: sdev"] {
        assert_eq!(Line::parse(line), None);
    }
}
