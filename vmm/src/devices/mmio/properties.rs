//! Whatever a driver has done with a slot, one that takes over its state goes on as the first would have.

use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use virtio_bindings::virtio_mmio::*;
use vm_memory::{Bytes as _, GuestAddress};

use super::*;
use crate::{
    devices::{
        device::{ActivateError, Activation},
        interrupt::InterruptState,
        queue::QueueSetup,
        testing::{Buffer, Ring},
    },
    memory::HUGE_PAGE,
};

const SLOT: Slot = Slot(17);
const VERSION_1: u64 = 1 << 32;
const EVENT_IDX: u64 = 1 << 29;
const OWN_FEATURE: u64 = 1 << 5;
/// Entries of each ring.
const SIZE: u16 = 8;
const RINGS: [u64; 2] = [0x1_0000, 0x2_0000];
const BUFFER: Buffer = Buffer { address: 0x10_0000, len: 64, writable: true };

/// What the test has of a device.
#[derive(Debug, Default)]
struct Work {
    activation: Mutex<Option<Activation>>,
    running: AtomicBool,
}

/// Serves its queues when the test tells it to, in order.
#[derive(Debug)]
struct Copier(Arc<Work>);

impl VirtioDevice for Copier {
    fn device_id(&self) -> u32 {
        4
    }
    fn features(&self) -> u64 {
        OWN_FEATURE
    }
    fn queue_sizes(&self) -> &[u16] {
        &[SIZE, SIZE]
    }
    fn read_config(&self, _offset: u64, _data: &mut [u8]) {}
    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        *self.0.activation.lock().unwrap() = Some(activation);
        self.0.running.store(true, Ordering::Relaxed);
        Ok(())
    }
    fn reset(&mut self) {
        *self.0.activation.lock().unwrap() = None;
        self.0.running.store(false, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct NoWires;

impl Wires for NoWires {
    fn connect(&self, _: Slot, _: &Interrupt, _: &[Arc<EventFd>]) -> io::Result<()> {
        Ok(())
    }
    fn disconnect(&self, _: Slot, _: &Interrupt, _: &[Arc<EventFd>]) {}
}

/// What a driver or the device does.
#[derive(Debug, Clone)]
enum Op {
    Write(u32, u32),
    /// All of a driver's way to a live device, with these features beside VERSION_1.
    Probe(u64),
    Offer(usize),
    /// The driver breaks the ring.
    Break(usize),
    /// The device serves a queue, and writes so many bytes to each chain.
    Serve(usize, u32),
    ConfigChanges,
}

fn op() -> impl Strategy<Value = Op> {
    let register = prop_oneof![
        Just(VIRTIO_MMIO_STATUS),
        Just(VIRTIO_MMIO_DRIVER_FEATURES),
        Just(VIRTIO_MMIO_DRIVER_FEATURES_SEL),
        Just(VIRTIO_MMIO_DEVICE_FEATURES_SEL),
        Just(VIRTIO_MMIO_QUEUE_SEL),
        Just(VIRTIO_MMIO_QUEUE_NUM),
        Just(VIRTIO_MMIO_QUEUE_READY),
        Just(VIRTIO_MMIO_QUEUE_DESC_LOW),
        Just(VIRTIO_MMIO_INTERRUPT_ACK),
    ];
    let status = prop_oneof![Just(0_u32), Just(1), Just(3), Just(0xb), Just(0xf), Just(0x8f)];
    let value = prop_oneof![0..4_u32, Just(8), Just(RINGS[0] as u32), any::<u32>()];
    let features =
        prop_oneof![Just(0), Just(EVENT_IDX), Just(OWN_FEATURE), Just(EVENT_IDX | OWN_FEATURE), Just(1)];
    prop_oneof![
        2 => (register, value).prop_map(|(register, value)| Op::Write(register, value)),
        1 => status.prop_map(|status| Op::Write(VIRTIO_MMIO_STATUS, status)),
        2 => features.prop_map(Op::Probe),
        4 => (0..2_usize).prop_map(Op::Offer),
        1 => (0..2_usize).prop_map(Op::Break),
        4 => (0..2_usize, 0..64_u32).prop_map(|(queue, len)| Op::Serve(queue, len)),
        1 => Just(Op::ConfigChanges),
    ]
}

/// A slot with its driver, whose rings are in guest memory.
struct Guest {
    memory: Memory,
    rings: [Ring; 2],
    slots: Slots,
    work: Arc<Work>,
}

fn plugged(memory: &Memory) -> (Slots, Arc<Work>) {
    let work = Arc::<Work>::default();
    let slots = Slots::new(Box::new(NoWires), memory.clone());
    slots.plug(SLOT, Box::new(Copier(Arc::clone(&work)))).unwrap();
    (slots, work)
}

impl Guest {
    fn new() -> Self {
        let memory = Memory::anonymous(HUGE_PAGE).unwrap();
        let rings = RINGS.map(|at| Ring::new(&memory, at, SIZE));
        let (slots, work) = plugged(&memory);
        Self { memory, rings, slots, work }
    }

    /// The slot's state goes through a file into the slot of another machine with the same memory.
    fn move_away(&mut self) {
        let file = serde_json::to_vec(&self.slots.state(SLOT).unwrap()).unwrap();
        let (slots, work) = plugged(&self.memory);
        let state: TransportState = serde_json::from_slice(&file).unwrap();
        slots.restore(SLOT, &state).unwrap();
        (self.slots, self.work) = (slots, work);
    }

    fn write(&self, register: u32, value: u32) {
        assert!(self.slots.write(address(SLOT) + u64::from(register), &value.to_le_bytes()));
    }

    /// What a guest can see: all registers, and both used rings.
    fn seen(&self) -> Vec<u64> {
        let registers = (0..VIRTIO_MMIO_CONFIG).step_by(4).map(|register| {
            let mut data = [0; 4];
            assert!(self.slots.read(address(SLOT) + u64::from(register), &mut data));
            u32::from_le_bytes(data).into()
        });
        let used = RINGS.iter().flat_map(|at| (0..10).map(move |word| at + 0x2000 + 8 * word));
        registers.chain(used.map(|at| self.memory.read_obj(GuestAddress(at)).unwrap())).collect()
    }

    fn probe(&mut self, features: u64) {
        for ring in &mut self.rings {
            *ring = Ring::new(&self.memory, ring.setup.descriptors, SIZE);
            self.memory.write_slice(&[0; 0x3000], GuestAddress(ring.setup.descriptors)).unwrap();
        }
        let features = VERSION_1 | features;
        for (register, value) in [
            (VIRTIO_MMIO_STATUS, 0),
            (VIRTIO_MMIO_STATUS, 1),
            (VIRTIO_MMIO_STATUS, 3),
            (VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0),
            (VIRTIO_MMIO_DRIVER_FEATURES, features as u32),
            (VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1),
            (VIRTIO_MMIO_DRIVER_FEATURES, (features >> 32) as u32),
            (VIRTIO_MMIO_STATUS, 0xb),
        ] {
            self.write(register, value);
        }
        for (queue, ring) in (0..).zip(&self.rings) {
            let QueueSetup { size, descriptors, avail, used, .. } = ring.setup;
            for (register, value) in [
                (VIRTIO_MMIO_QUEUE_SEL, queue),
                (VIRTIO_MMIO_QUEUE_NUM, size),
                (VIRTIO_MMIO_QUEUE_DESC_LOW, descriptors as u32),
                (VIRTIO_MMIO_QUEUE_AVAIL_LOW, avail as u32),
                (VIRTIO_MMIO_QUEUE_USED_LOW, used as u32),
                (VIRTIO_MMIO_QUEUE_READY, 1),
            ] {
                self.write(register, value);
            }
        }
        self.write(VIRTIO_MMIO_STATUS, 0xf);
    }

    fn run(&mut self, op: &Op) {
        match *op {
            Op::Write(register, value) => self.write(register, value),
            Op::Probe(features) => self.probe(features),
            Op::Offer(queue) => {
                let ring = &mut self.rings[queue];
                while ring.used().is_some() {}
                if ring.outstanding() < SIZE {
                    ring.offer(&[BUFFER]);
                }
            }
            Op::Break(queue) => self.rings[queue].put(self.rings[queue].setup.avail + 2, 5000_u16),
            Op::Serve(queue, len) => self.serve(queue, len),
            Op::ConfigChanges => {
                // A device that asks for reset has nothing more to say.
                if let Some(Activation { interrupt, .. }) = &*self.work.activation.lock().unwrap()
                    && !interrupt.failed()
                {
                    interrupt.signal_config();
                }
            }
        }
    }

    fn serve(&self, queue: usize, len: u32) {
        let mut activation = self.work.activation.lock().unwrap();
        let Some(Activation { memory, queues, interrupt, .. }) = &mut *activation else { return };
        if !interrupt.failed() && queues[queue].serve(&**memory, interrupt, |_| len).is_err() {
            interrupt.fail();
        }
    }
}

fn any_setup() -> impl Strategy<Value = QueueSetup> {
    let address = || prop_oneof![(0..0x2000_u64).prop_map(|page| page << 8), any::<u64>()];
    let size = prop_oneof![Just(u32::from(SIZE)), any::<u32>()];
    (size, any::<bool>(), address(), address(), address()).prop_map(
        |(size, ready, descriptors, avail, used)| QueueSetup { size, ready, descriptors, avail, used },
    )
}

proptest! {
    #[test]
    fn a_slot_that_took_over_a_state_goes_on_as_the_first_would_have(
        ops in prop::collection::vec(op(), 1..40),
        cut in 0..40_usize,
    ) {
        let (mut stays, mut moves) = (Guest::new(), Guest::new());
        for (step, op) in ops.iter().enumerate() {
            if step == cut {
                moves.move_away();
                prop_assert_eq!(moves.seen(), stays.seen(), "just moved");
            }
            stays.run(op);
            moves.run(op);
            prop_assert_eq!(moves.seen(), stays.seen(), "after {:?}", op);
        }
    }

    #[test]
    fn any_state_is_taken_over_as_it_is_or_leaves_the_slot_reset(
        status in prop_oneof![Just(0xf_u32), Just(0xb), 0..0x100_u32],
        driver_features in prop_oneof![Just(VERSION_1), Just(VERSION_1 | EVENT_IDX), any::<u64>()],
        queues in prop::collection::vec(any_setup(), 1..4),
        failed in any::<bool>(),
        used in any::<u16>(),
    ) {
        let memory = Memory::anonymous(HUGE_PAGE).unwrap();
        memory.write_obj(used, GuestAddress(RINGS[0] + 0x2002)).unwrap();
        let (slots, work) = plugged(&memory);
        let interrupt = InterruptState { config: true, generation: 7, failed };
        let state = TransportState {
            device_id: 4,
            status,
            device_features_select: 9,
            driver_features_select: 9,
            driver_features,
            queue_select: 9,
            queues,
            interrupt,
        };
        let restored = slots.restore(SLOT, &state).is_ok();
        let running = work.running.load(Ordering::Relaxed);
        if restored {
            prop_assert_eq!(running, status & 4 != 0 && !failed);
            prop_assert_eq!(slots.state(SLOT).unwrap(), state);
        } else {
            prop_assert!(!running);
            let reset = slots.state(SLOT).unwrap();
            prop_assert_eq!((reset.status, reset.driver_features, reset.interrupt.config), (0, 0, false));
        }
    }
}
