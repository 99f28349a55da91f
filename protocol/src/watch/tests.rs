use super::*;

#[test]
fn a_path_of_the_guest_stays_in_the_share() {
    for good in ["a", "web/mounts/0/..data", "@1/a b/c\n", "..."] {
        assert_eq!(WatchPath::try_from(good.as_bytes().to_vec()).unwrap().as_bytes(), good.as_bytes());
    }
    let long = format!("a/{}", "b".repeat(256));
    let deep = "a/".repeat(2048) + "a";
    for bad in ["", "/", "/a", "a/", "a//b", "a/../b", ".", "..", "a/./b", "a\0b", &long, &deep] {
        assert!(WatchPath::try_from(bad.as_bytes().to_vec()).is_err(), "{bad:?}");
    }
}

#[test]
fn only_what_a_host_can_see_is_an_event() {
    let event = |mask, name: &[u8]| {
        let event = agent::FileEvent { path: b"a".to_vec(), name: name.to_vec(), mask, ..Default::default() };
        FileEvent::try_from(event)
    };
    assert!(event(CREATE | IS_DIRECTORY, b"x").is_ok());
    assert_eq!(event(DELETE_SELF, b"").unwrap().name, None);
    for mask in [0, IS_DIRECTORY, 0x20, CREATE | 0x20, 0x4000, 0x8000] {
        assert_eq!(event(mask, b"x"), Err(WatchError::Events(mask)));
    }
    for name in [&b"a/b"[..], b".", b"..", b"a\0", &[b'a'; 256]] {
        assert!(matches!(event(CREATE, name), Err(WatchError::Name(_))), "{name:?}");
    }
}

#[test]
fn what_the_guest_says_is_watched_is_checked_and_bounded() {
    let file = |path: &str, events| {
        let path = path.as_bytes().to_vec();
        agent::WatchedFile { path, inode: 1, events, ..Default::default() }
    };
    let watches =
        |watches| Answer::from(agent::WaitWatchesResponse { watches, ..Default::default() }).watches;
    let some = watches(vec![file("../etc", 2), file("a", 0x20), file("a", 0x22), file("/a", 2)]);
    assert_eq!(some, [Watched { path: WatchPath(b"a".to_vec()), inode: 1, events: 2 }]);
    assert_eq!(watches(vec![file("a", 2); limits::WATCHES + 1]).len(), limits::WATCHES);
    let long = ["b".repeat(255).as_str(); 15].join("/");
    let kept = watches(vec![file(&long, 2); limits::WATCHES]);
    assert!(kept.iter().map(|watched| watched.path.0.len()).sum::<usize>() <= limits::WATCH_BYTES);
}
