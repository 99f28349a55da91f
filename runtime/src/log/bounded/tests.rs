use std::{
    fs,
    io::{Read as _, Seek as _},
};

use super::*;

fn text(file: &mut File) -> Vec<u8> {
    let mut text = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut text).unwrap();
    text
}

#[test]
fn what_is_short_is_kept_as_it_is() {
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, b"before\n").unwrap();
    let mut log = Bounded::new(file.try_clone().unwrap()).unwrap();
    log.write(b"one\n").unwrap();
    log.write(b"two\n").unwrap();
    assert_eq!(text(&mut file), b"before\none\ntwo\n");
}

#[test]
fn a_flood_leaves_its_beginning_and_its_end() {
    let mut file = tempfile::tempfile().unwrap();
    let mut log = Bounded::new(file.try_clone().unwrap()).unwrap();
    log.write(b"first\n").unwrap();
    for _ in 0..1000 {
        log.write(&[b'x'; 5000]).unwrap();
    }
    log.write(&[b'y'; 200_000]).unwrap();
    log.write(b"\nlast\n").unwrap();
    let text = text(&mut file);
    assert!(text.len() < HEAD + TAIL + 64, "{}", text.len());
    assert!(text.starts_with(b"first\nxxx") && text.ends_with(b"yyy\nlast\n"));
    let said = 6 + 5_000_000 + 200_000 + 6;
    let note = format!("\n[{} bytes left out]\n", said - HEAD - TAIL);
    assert!(
        text[HEAD..].starts_with(note.as_bytes()),
        "{:?}",
        String::from_utf8_lossy(&text[HEAD..HEAD + 40])
    );
}

#[test]
fn a_file_that_is_too_large_already_grows_by_its_end_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    fs::write(&path, vec![b'x'; 2 * HEAD]).unwrap();
    let mut log = Bounded::new(File::options().write(true).open(&path).unwrap()).unwrap();
    for _ in 0..100 {
        log.write(&[b'y'; 1000]).unwrap();
    }
    assert!(fs::metadata(&path).unwrap().len() < (2 * HEAD + TAIL + 64) as u64);
}
