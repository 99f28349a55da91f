//! Whatever a driver writes into its rings, a walk ends, stays in guest memory and is told of at most one chain for each
//! entry that the driver offered.

use proptest::prelude::*;
use vm_memory::{Bytes as _, GuestAddress};
use vmm_sys_util::eventfd::EFD_NONBLOCK;

use super::*;
use crate::memory::{HUGE_PAGE, Memory};

const SIZE: u16 = 8;
const DESCRIPTORS: u64 = 0x1000;
const AVAIL: u64 = 0x2000;
const USED: u64 = 0x3000;

/// An address, length, flags and successor as a driver would have them, or any.
fn descriptor() -> impl Strategy<Value = (u64, u32, u16, u16)> {
    let address =
        prop_oneof![0x1_0000..0x2_0000_u64, any::<u64>(), Just(DESCRIPTORS), Just(HUGE_PAGE as u64 - 1)];
    let length = prop_oneof![0..0x1000_u32, any::<u32>()];
    (address, length, 0..8_u16, 0..2 * SIZE)
}

fn activate(memory: &Memory, event_idx: bool) -> ActiveQueue {
    let setup =
        QueueSetup { size: SIZE.into(), ready: true, descriptors: DESCRIPTORS, avail: AVAIL, used: USED };
    let kick = Arc::new(EventFd::new(EFD_NONBLOCK).unwrap());
    setup.activate(0, SIZE, event_idx, kick, &**memory).unwrap()
}

proptest! {
    #[test]
    fn a_walk_through_any_rings_ends(
        descriptors in prop::collection::vec(descriptor(), usize::from(SIZE)),
        heads in prop::collection::vec(0..2 * SIZE, usize::from(SIZE)),
        offered in prop_oneof![0..=SIZE, any::<u16>()],
        event_idx in any::<bool>(),
    ) {
        let memory = Memory::anonymous(HUGE_PAGE).unwrap();
        for (number, (address, length, flags, next)) in descriptors.iter().enumerate() {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&address.to_le_bytes());
            bytes[8..12].copy_from_slice(&length.to_le_bytes());
            bytes[12..14].copy_from_slice(&flags.to_le_bytes());
            bytes[14..].copy_from_slice(&next.to_le_bytes());
            memory.write_slice(&bytes, GuestAddress(DESCRIPTORS + 16 * number as u64)).unwrap();
        }
        memory.write_slice(&offered.to_le_bytes(), GuestAddress(AVAIL + 2)).unwrap();
        for (number, head) in heads.iter().enumerate() {
            memory.write_slice(&head.to_le_bytes(), GuestAddress(AVAIL + 4 + 2 * number as u64)).unwrap();
        }
        let mut queue = activate(&memory, event_idx);
        let mut popped = 0;
        while let Ok(Some(chain)) = queue.pop(&*memory) {
            popped += 1;
            prop_assert!(popped <= u32::from(offered));
            let head = chain.head_index();
            // One indirect table at most, with as many entries as an index reaches.
            prop_assert!(chain.count() <= usize::from(SIZE) + 0x1_0000);
            // A head that is out of range is an error, never a write beside the ring.
            let _ = queue.push(&*memory, head, 0);
        }
        prop_assert_eq!(memory.read_obj::<u64>(GuestAddress(USED + 6 + 8 * u64::from(SIZE))).unwrap(), 0);
    }
}
