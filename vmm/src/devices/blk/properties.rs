//! Whatever chain a driver sends, its answer is one of three, the disk keeps its size, and one that is read-only its content.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};

use proptest::prelude::*;
use vm_memory::{Bytes as _, GuestAddress};

use super::{disk::Cache, *};
use crate::{
    devices::testing::{Buffer, Ring},
    memory::{HUGE_PAGE, Memory},
};

const HEADER_AT: u64 = 0x8000;
const STATUS_AT: u64 = 0x9000;
const SECTORS: u64 = 8;

/// A buffer as a driver would have it, or any.
fn buffer() -> impl Strategy<Value = Buffer> {
    let address = prop_oneof![
        Just(HEADER_AT),
        0x10_0000..0x10_2000_u64,
        Just(STATUS_AT),
        Just(2 * HUGE_PAGE as u64 - 16),
        any::<u64>()
    ];
    let len = prop_oneof![Just(16), Just(1), Just(512), Just(4096), 0..2048_u32, any::<u32>()];
    (address, len, any::<bool>()).prop_map(|(address, len, writable)| Buffer { address, len, writable })
}

fn chain() -> impl Strategy<Value = Vec<Buffer>> {
    let header = Buffer { address: HEADER_AT, len: 16, writable: false };
    let status = Buffer { address: STATUS_AT, len: 1, writable: true };
    let honest = prop::collection::vec(buffer(), 0..4)
        .prop_map(move |data| [header].into_iter().chain(data).chain([status]).collect());
    prop_oneof![honest, prop::collection::vec(buffer(), 1..6)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]
    #[test]
    fn any_chain_is_answered_within_the_disk(
        chain in chain(),
        kind in prop_oneof![0..16_u32, any::<u32>()],
        sector in prop_oneof![0..2 * SECTORS, any::<u64>()],
        range in (0..2 * SECTORS, 0..16_u32, 0..4_u32),
        read_only in any::<bool>(),
        through in any::<bool>(),
    ) {
        let mut file = tempfile::tempfile().unwrap();
        let before = [0x5a; SECTORS as usize * 512];
        file.write_all(&before).unwrap();
        let memory = Memory::anonymous(2 * HUGE_PAGE).unwrap();
        let mut ring = Ring::new(&memory, 0x1000, 16);
        let mut queue = ring.activate();
        ring.put(HEADER_AT, u64::from(kind));
        ring.put(HEADER_AT + 8, sector);
        ring.put(0x10_0000, range.0);
        ring.put(0x10_0008, range.1);
        ring.put(0x10_000c, range.2);
        ring.put(STATUS_AT, 0xee_u8);
        ring.offer(&chain);
        let disk = Disk {
            file: file.try_clone().unwrap(),
            sectors: SECTORS,
            read_only,
            serial: [0; SERIAL],
            metrics: Arc::default(),
        };
        let cache = if through { Cache::Through } else { Cache::Back };
        let taken = queue.pop(&*memory).unwrap().unwrap();
        let written = disk.serve(&memory, taken, cache);
        if let (1.., Some(last)) = (written, chain.iter().rfind(|buffer| buffer.writable && buffer.len > 0)) {
            let status = GuestAddress(last.address.wrapping_add(u64::from(last.len) - 1));
            prop_assert!(memory.read_obj::<u8>(status).unwrap() <= 2);
        }
        let mut after = Vec::new();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_end(&mut after).unwrap();
        prop_assert_eq!(after.len(), before.len());
        prop_assert!(!read_only || after == before);
    }
}
