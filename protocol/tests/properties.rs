//! What holds for whatever the other side of a border sends: nothing panics, what is accepted is what was meant.

// All of this is test code; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, os::fd::OwnedFd};

use bulkhead_protocol::{
    container::{FilterProgram, SharePath},
    cpu_list::CpuList,
    greeting::Greeting,
    id::{ContainerId, ID_MAX, StreamToken},
    limits,
    packet::{PacketError, PacketSocket},
    stdio::{Header, Stream},
    vmm::{Message, Request},
};
use proptest::prelude::*;
use rustix::net::{SendFlags, send};

/// Text of the kind that the parsers look for, and any other.
fn line() -> impl Strategy<Value = String> {
    prop_oneof![".{0,600}", "(bulkhead-agent|stdio|ok)( [ -~]{0,20}){0,5}\n?", "[0-9,\\- ]{0,40}"]
}

proptest! {
    #[test]
    fn lines_of_any_kind_are_parsed_or_refused(line in line()) {
        if let Ok(greeting) = line.parse::<Greeting>() {
            prop_assert_eq!(greeting.to_string().parse::<Greeting>().unwrap(), greeting);
        }
        if let Ok(header) = line.parse::<Header>() {
            prop_assert_eq!(header.to_string().parse::<Header>().unwrap(), header);
        }
    }

    #[test]
    fn a_header_is_read_as_it_was_written(token in "[A-Za-z0-9]{1,64}", stream in 0..4_usize) {
        let stream = [Stream::Stdin, Stream::Stdout, Stream::Stderr, Stream::Tty][stream];
        let header = Header { token: token.parse::<StreamToken>().unwrap(), stream };
        let line = header.to_string();
        prop_assert!(line.len() <= limits::LINE);
        prop_assert_eq!(line.parse::<Header>().unwrap(), header);
    }

    #[test]
    fn an_id_is_one_component_of_a_path(text in prop_oneof![".{0,200}", "[a-z./_+-]{0,200}"]) {
        if let Ok(id) = text.parse::<ContainerId>() {
            let id = id.as_str();
            prop_assert!(!id.is_empty() && id.len() <= ID_MAX && !id.contains(['/', '\0', '\n', ' ']));
            prop_assert!(id != "." && id != "..");
        }
    }

    #[test]
    fn a_path_of_the_share_stays_below_it(text in prop_oneof![".{0,80}", "[a./]{0,20}"]) {
        if let Ok(path) = SharePath::try_from(text) {
            let path = path.as_str();
            prop_assert!(!path.starts_with('/') && !path.contains('\0'));
            prop_assert!(path.split('/').all(|part| !matches!(part, "" | "." | "..")));
        }
    }

    #[test]
    fn a_list_of_cpus_counts_what_it_contains(numbers in prop::collection::vec((0..300_u32, 0..40_u32), 1..20)) {
        let ranges: Vec<String> = numbers.iter().map(|(first, more)| format!("{first}-{}", first + more)).collect();
        let list = CpuList::try_from(ranges.join(",")).unwrap();
        let all: BTreeSet<u32> = numbers.iter().flat_map(|&(first, more)| first..=first + more).collect();
        prop_assert_eq!(list.count() as usize, all.len());
        prop_assert!((0..400).all(|number| list.contains(number) == all.contains(&number)));
        prop_assert_eq!(CpuList::try_from(list.to_string()).unwrap(), list);
    }

    #[test]
    fn lists_of_cpus_of_any_kind_are_parsed_or_refused(text in line()) {
        if let Ok(list) = CpuList::try_from(text) {
            prop_assert!(list.count() >= 1 && list.first_beyond(&list).is_none());
        }
    }

    #[test]
    fn a_filter_is_whole_instructions(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let length = bytes.len();
        match FilterProgram::try_from(bytes) {
            Ok(program) => prop_assert_eq!(program.instructions().len() * 8, length),
            Err(_) => prop_assert!(length == 0 || !length.is_multiple_of(8)),
        }
    }

    #[test]
    fn a_packet_of_any_bytes_is_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 1..4096)) {
        let (ours, theirs) = PacketSocket::pair().unwrap();
        let theirs = OwnedFd::from(theirs);
        send(&theirs, &bytes, SendFlags::empty()).unwrap();
        let received = ours.receive::<Message>();
        prop_assert!(matches!(received, Ok(_) | Err(PacketError::Message { .. })), "{:?}", received);
        send(&theirs, &bytes, SendFlags::empty()).unwrap();
        let received = ours.receive::<Request>();
        prop_assert!(matches!(received, Ok(_) | Err(PacketError::Message { .. })), "{:?}", received);
    }
}

#[test]
fn a_packet_above_the_limit_is_told_apart_from_one_at_it() {
    let (ours, theirs) = PacketSocket::pair().unwrap();
    let theirs = OwnedFd::from(theirs);
    for (length, truncated) in
        [(limits::PACKET, false), (limits::PACKET + 1, true), (2 * limits::PACKET, true)]
    {
        send(&theirs, &vec![b' '; length], SendFlags::empty()).unwrap();
        let received = ours.receive::<Request>();
        assert_eq!(matches!(received, Err(PacketError::Truncated)), truncated, "{length}: {received:?}");
    }
}
