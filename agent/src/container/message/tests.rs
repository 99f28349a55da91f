use super::*;
use crate::container::plan::{Launch, LaunchKind, Step};

#[test]
fn a_plan_larger_than_a_packet_comes_through_whole() {
    let plan = Plan {
        launch: Launch {
            namespaces: 1,
            oom_score_adj: -5,
            initial_cpus: None,
            stream_owner: Some(1000),
            kind: LaunchKind::Join,
        },
        last_steps: vec![],
        steps: vec![Step::NewSession, Step::EnterDirectory("/".into())],
        args: vec!["x".repeat(2 << 20)],
        start_hooks: None,
        pauses: false,
        env: vec!["A=\n".into()],
    };
    assert_eq!(read_plan(write_plan(&plan).unwrap()).unwrap(), plan);
}
