use super::{
    super::{
        Parts,
        fake::{self, FakeAgent, SIZES},
        nics::Nics,
        resize::Machine,
        share::Share,
        timeline::Timeline,
        vmm::processes::Processes,
    },
    *,
};
use crate::store::{Door, StateDir};

/// A machine of 64 MiB that may have 256, and the task that follows its guest.
struct Test {
    sandbox: Arc<Sandbox>,
    agent: Agent,
    fake: FakeAgent,
    _root: tempfile::TempDir,
}

impl Test {
    fn new(memory: Memory) -> Self {
        let root = tempfile::tempdir().unwrap();
        let fake = FakeAgent::default();
        let (vmm, _) = fake::vmm(fake::Guest::Works, fake.clone());
        let dir = StateDir::claim(root.path(), &"web".parse().unwrap()).unwrap();
        let sandbox = Sandbox::new(Parts {
            host_container: None,
            cgroup: None,
            machine: Machine::new(vmm.clone(), SIZES, None, memory),
            processes: Processes::of(std::process::id()).unwrap(),
            nics: Nics::new(vmm, dir.journal(), false, None),
            vsock: Door::new(fake::null(), "vsock.sock"),
            port_forward: false,
            share: Share::at(&root.path().join("share")).unwrap(),
            timeline: Timeline::default(),
        });
        let agent = fake.connect();
        tokio::spawn(follow(sandbox.clone(), agent.clone()));
        Self { sandbox, agent, fake, _root: root }
    }

    /// What VMM and agent are asked, as soon as it is this.
    async fn until_asked(&self, expected: &[&str]) {
        let asked = || self.fake.machine().asked.clone();
        let same = async {
            while asked() != expected {
                sleep(Duration::from_millis(1)).await;
            }
        };
        if tokio::time::timeout(fake::PATIENCE, same).await.is_err() {
            assert_eq!(asked(), expected);
        }
        self.fake.machine().asked.clear();
    }

    fn press(&self) {
        self.fake.pressed.notify_one();
    }
}

#[tokio::test]
async fn a_machine_doubles_each_time_its_containers_press_and_lets_them_go_at_its_bound() {
    let test = Test::new(Memory::Unlimited);
    test.until_asked(&["hold"]).await;
    test.press();
    test.until_asked(&["plug 5", "bind 5", "memory 128", "hold"]).await;
    test.press();
    test.until_asked(&["memory 256", "let go"]).await;
}

#[tokio::test]
async fn a_machine_of_limited_containers_grows_by_itself_only_while_one_has_no_limit() {
    let test = Test::new(Memory::Limited);
    test.sandbox.hold_machine().await.lift_memory().unwrap();
    test.until_asked(&["hold"]).await;
    test.sandbox.hold_machine().await.limit_memory();
    test.until_asked(&["let go"]).await;
}

#[tokio::test]
async fn containers_are_held_anew_when_somebody_else_has_changed_the_size() {
    let test = Test::new(Memory::Unlimited);
    test.until_asked(&["hold"]).await;
    let need = Need { memory_mib: Some(100), vcpus: None };
    test.sandbox.hold_machine().await.resize(&test.agent, need).await.unwrap();
    test.until_asked(&["plug 5", "bind 5", "memory 100", "hold"]).await;
    test.press();
    test.until_asked(&["memory 200", "hold"]).await;
}

#[tokio::test]
async fn a_host_that_has_no_more_leaves_the_machine_as_it_is_and_the_guest_goes_on() {
    let test = Test::new(Memory::Unlimited);
    test.until_asked(&["hold"]).await;
    test.fake.machine().refuses_memory = true;
    test.press();
    test.until_asked(&["plug 5", "bind 5", "memory 128", "memory 64", "let go"]).await;
}

#[test]
fn a_guest_is_asked_for_what_its_room_calls_for() {
    let room = |memory, memory_mib| Room { memory, memory_mib, grows_to_mib: 256 };
    assert_eq!(Order::of(room(Memory::Unlimited, 64), false, false), Order::Hold);
    assert_eq!(Order::of(room(Memory::Unlimited, 64), true, true), Order::LetGo);
    assert_eq!(Order::of(room(Memory::Unlimited, 256), true, false), Order::LetGo);
    assert_eq!(Order::of(room(Memory::Unlimited, 256), false, false), Order::None);
    assert_eq!(Order::of(room(Memory::Limited, 64), false, false), Order::None);
}
