use super::*;

/// For tests: an inode that is none.
pub(in super::super) fn id(number: u8) -> FileId {
    FileId { filesystem: [1; 8], kind: 1, handle: vec![number; 8] }
}

fn info(kind: u8, id: &FileId, name: &[u8]) -> Vec<u8> {
    let mut body = id.filesystem.to_vec();
    body.extend((id.handle.len() as u32).to_ne_bytes());
    body.extend(id.kind.to_ne_bytes());
    body.extend(&id.handle);
    body.extend(name);
    body.resize(body.len().next_multiple_of(4), 0);
    let mut record = vec![kind, 0];
    record.extend((body.len() as u16 + 4).to_ne_bytes());
    record.extend(body);
    record
}

fn event(mask: u64, pid: i32, records: &[Vec<u8>]) -> Vec<u8> {
    let records = records.concat();
    let mut event = (records.len() as u32 + 24).to_ne_bytes().to_vec();
    event.extend([3, 0, 24, 0]);
    event.extend(mask.to_ne_bytes());
    event.extend((-1i32).to_ne_bytes());
    event.extend(pid.to_ne_bytes());
    event.extend(records);
    event
}

#[test]
fn an_event_names_a_directory_and_a_file_and_a_rename_two_directories() {
    let buffer = [
        event(libc::FAN_MODIFY, 7, &[info(INFO_NAME, &id(1), b"a\0"), info(INFO_FILE, &id(2), b"")]),
        event(RENAME, 8, &[info(INFO_OLD_NAME, &id(1), b"a\0"), info(INFO_NEW_NAME, &id(3), b"b\0")]),
        event(OVERFLOW, 0, &[]),
        event(libc::FAN_ATTRIB, 9, &[info(INFO_NAME, &id(1), b".\0")]),
    ];
    let places = [
        vec![Place::Named { directory: id(1), name: b"a".to_vec() }, Place::Itself(id(2))],
        vec![
            Place::From { directory: id(1), name: b"a".to_vec() },
            Place::To { directory: id(3), name: b"b".to_vec() },
        ],
        vec![],
        vec![Place::Itself(id(1))],
    ];
    let events = parse(&buffer.concat());
    assert_eq!(events.iter().map(|event| event.places.clone()).collect::<Vec<_>>(), places);
    let heads: Vec<_> = events.iter().map(|event| (event.mask, event.pid)).collect();
    assert_eq!(heads, [(libc::FAN_MODIFY, 7), (RENAME, 8), (OVERFLOW, 0), (libc::FAN_ATTRIB, 9)]);
}

#[test]
fn a_buffer_that_ends_early_or_lies_about_lengths_is_no_event() {
    let whole = event(2, 7, &[info(INFO_NAME, &id(1), b"a\0"), info(INFO_FILE, &id(2), b"")]);
    for len in 0..whole.len() {
        assert_eq!(parse(&whole[..len]), [], "{len}");
    }
    for at in 0..whole.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut bent = whole.clone();
            bent[at] = value;
            parse(&bent);
        }
    }
}
