//! Reads archives back with a parser of its own, written from the format's description.

use super::*;

#[derive(Debug, PartialEq)]
struct Record {
    name: String,
    fields: [u32; 13],
    content: Vec<u8>,
}

/// Parses a whole archive; the trailer is the last record.
fn parse(mut bytes: &[u8]) -> Vec<Record> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        assert_eq!(&bytes[..6], b"070701");
        let mut fields = [0; 13];
        for (index, field) in fields.iter_mut().enumerate() {
            let text = std::str::from_utf8(&bytes[6 + index * 8..][..8]).unwrap();
            *field = u32::from_str_radix(text, 16).unwrap();
        }
        let (size, name_size) = (fields[6] as usize, fields[11] as usize);
        let name = std::str::from_utf8(&bytes[110..110 + name_size - 1]).unwrap().to_owned();
        assert_eq!(bytes[110 + name_size - 1], 0, "{name} ends with NUL");
        let start = (110 + name_size).next_multiple_of(4);
        records.push(Record { name, fields, content: bytes[start..start + size].to_vec() });
        bytes = &bytes[(start + size).next_multiple_of(4)..];
    }
    records
}

fn file(content: &[u8]) -> Entry {
    Entry::File { permissions: 0o644, content: content.to_vec() }
}

fn bytes_of(archive: &Archive) -> Vec<u8> {
    let mut bytes = Vec::new();
    archive.write_to(&mut bytes).unwrap();
    bytes
}

#[test]
fn what_is_written_reads_back_with_every_field_as_meant() {
    let mut archive = Archive::default();
    archive.add("/init", Entry::File { permissions: 0o755, content: b"abcde".to_vec() }).unwrap();
    archive.add("/dev/console", Entry::CharDevice { permissions: 0o600, major: 5, minor: 1 }).unwrap();
    archive.add("/tmp", Entry::Directory { permissions: 0o1777 }).unwrap();

    let records = parse(&bytes_of(&archive));

    let names: Vec<_> = records.iter().map(|record| record.name.as_str()).collect();
    assert_eq!(names, ["dev", "dev/console", "init", "tmp", "TRAILER!!!"]);
    assert_eq!(records[0].fields, [1, 0o040_755, 0, 0, 2, 0, 0, 0, 0, 0, 0, 4, 0]);
    assert_eq!(records[1].fields, [2, 0o020_600, 0, 0, 1, 0, 0, 0, 0, 5, 1, 12, 0]);
    assert_eq!(records[2].fields, [3, 0o100_755, 0, 0, 1, 0, 5, 0, 0, 0, 0, 5, 0]);
    assert_eq!(records[2].content, b"abcde");
    assert_eq!(records[3].fields[1], 0o041_777);
}

#[test]
fn contents_and_names_of_every_length_modulo_four_read_back() {
    let mut archive = Archive::default();
    for length in 0..9 {
        archive.add(&format!("/{}", "n".repeat(length + 1)), file(&vec![length as u8; length])).unwrap();
    }

    let bytes = bytes_of(&archive);

    assert_eq!(bytes.len() % 4, 0);
    let records = parse(&bytes);
    assert_eq!(records.len(), 10);
    for (length, record) in records[..9].iter().enumerate() {
        assert_eq!(record.content, vec![length as u8; length]);
    }
}

#[test]
fn the_order_of_adding_leaves_no_trace_in_the_bytes() {
    let mut forward = Archive::default();
    let mut backward = Archive::default();
    let paths = ["/a", "/b/c", "/b/d/e", "/b-side"];
    for path in paths {
        forward.add(path, file(path.as_bytes())).unwrap();
    }
    for path in paths.iter().rev() {
        backward.add(path, file(path.as_bytes())).unwrap();
    }
    assert_eq!(bytes_of(&forward), bytes_of(&backward));
}

#[test]
fn a_directory_comes_before_everything_in_it() {
    let mut archive = Archive::default();
    for path in ["/b/c", "/b-side", "/b.d/x", "/b/a/z"] {
        archive.add(path, file(b"")).unwrap();
    }
    let names: Vec<_> = parse(&bytes_of(&archive)).into_iter().map(|record| record.name).collect();
    for name in &names {
        if let Some((parent, _)) = name.rsplit_once('/') {
            let position = |wanted: &str| names.iter().position(|name| name == wanted).unwrap();
            assert!(position(parent) < position(name), "{parent} before {name}");
        }
    }
}

#[test]
fn a_path_that_is_relative_or_not_plain_is_refused() {
    let mut archive = Archive::default();
    let long = format!("/{}", "n".repeat(MAX_NAME));
    for path in ["", "/", "init", "/a//b", "/a/", "/./a", "/a/../b", "/..", "/a\0b", &long] {
        assert!(matches!(archive.add(path, file(b"")), Err(ArchiveError::BadPath { .. })), "{path:?}");
    }
}

#[test]
fn a_path_is_taken_only_once_and_a_file_holds_no_files() {
    let mut archive = Archive::default();
    archive.add("/a", file(b"first")).unwrap();
    assert!(matches!(archive.add("/a", file(b"second")), Err(ArchiveError::Taken { .. })));
    assert!(matches!(archive.add("/a/b", file(b"")), Err(ArchiveError::ParentNotDirectory { .. })));
    assert_eq!(parse(&bytes_of(&archive))[0].content, b"first");
}
