use std::process::{Child, Command, Stdio};

use super::*;

/// A process that waits for its standard input to end.
struct Waiting(Child);

impl Waiting {
    fn new() -> Self {
        Self(Command::new("cat").stdin(Stdio::piped()).spawn().unwrap())
    }

    fn process(&self) -> Process {
        Process::of(self.0.id()).unwrap()
    }

    fn score(&self) -> i32 {
        let text = fs::read_to_string(format!("/proc/{}/oom_score_adj", self.0.id())).unwrap();
        text.trim().parse().unwrap()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[test]
fn a_score_is_raised_and_never_lowered() {
    let other = Waiting::new();
    let raise = |score| {
        let path = format!("/proc/{}/oom_score_adj", other.0.id());
        raise_one(Path::new(&path), score, "other", || other.process().is_alive()).unwrap();
        other.score()
    };
    let inherited = other.score();
    assert_eq!(raise(inherited.max(900)), inherited.max(900));
    assert_eq!(raise(-500), inherited.max(900));
}

#[test]
fn a_process_that_is_gone_or_another_one_is_left_alone() {
    let other = Waiting::new();
    let inherited = other.score();
    let gone = Process { start_ticks: other.process().start_ticks + 1, ..other.process() };
    raise_one(Path::new("/proc/4194304/oom_score_adj"), 1000, "nobody", || true).unwrap();
    let path = format!("/proc/{}/oom_score_adj", gone.pid);
    raise_one(Path::new(&path), 1000, "another", || gone.is_alive()).unwrap();
    assert_eq!(other.score(), inherited);
}

#[test]
fn a_refusal_names_the_field_and_what_it_takes() {
    let denied = io::Error::from(io::ErrorKind::PermissionDenied);
    let error = OomScoreError { score: -999, whom: "this process".into(), source: denied };
    assert_eq!(
        error.to_string(),
        "process.oomScoreAdj: set it to -999 for this process on the host (lowering it takes CAP_SYS_RESOURCE)"
    );
}
