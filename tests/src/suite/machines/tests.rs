//! A place that dies and fails as a script says.

use super::*;

/// What the place prints in each run, and whether there is another one.
struct Script {
    runs: Vec<&'static str>,
    asked: Vec<String>,
    replaced: u32,
    replaceable: bool,
}

impl Place for Script {
    fn run(&mut self, program: &Path, tests: &BTreeSet<String>, line: &mut dyn FnMut(&str)) {
        assert_eq!(program, Path::new("e2e"));
        self.asked.push(join(tests));
        self.runs.remove(0).lines().for_each(line);
    }

    fn replace(&mut self) -> bool {
        self.replaced += u32::from(self.replaceable);
        self.replaceable
    }
}

fn lab(runs: &[&'static str]) -> Script {
    Script { runs: runs.to_vec(), asked: Vec::new(), replaced: 0, replaceable: true }
}

fn run_abc(place: &mut Script) -> Record {
    run(place, Path::new("e2e"), &["a", "b", "c"].map(str::to_owned).into(), &mut |_| {})
}

#[test]
fn good_tests_run_once() {
    let mut place = lab(&["test a ... ok\nnoise\ntest b ... ignored, why\ntest c ... ok\ntest d ... FAILED"]);
    let expected = Record { passed: 2, ignored: 1, ..Record::default() };
    assert_eq!((run_abc(&mut place), place.replaced), (expected, 0));
}

#[test]
fn a_lab_that_dies_is_replaced_and_the_rest_runs_there() {
    let mut place = lab(&["test a ... ok", "test b ... ok", "test c ... ok"]);
    assert_eq!(run_abc(&mut place), Record { passed: 3, ..Record::default() });
    assert_eq!((place.asked, place.replaced), (vec!["a b c".to_owned(), "b c".into(), "c".into()], 2));
}

#[test]
fn a_test_that_never_has_a_result_has_failed() {
    let mut place = lab(&["test a ... ok\ntest b ... ok", "", ""]);
    assert_eq!(run_abc(&mut place), Record { passed: 2, failed: vec!["c".into()], ..Record::default() });
}

#[test]
fn a_failed_test_has_one_second_try_which_is_told() {
    let mut place =
        lab(&["test a ... FAILED\ntest b ... FAILED\ntest c ... ok", "test a ... ok\ntest b ... FAILED"]);
    let expected =
        Record { passed: 2, failed: vec!["b".into()], second: vec!["a".into()], ..Record::default() };
    assert_eq!(run_abc(&mut place), expected);
    assert_eq!((place.asked, place.replaced), (vec!["a b c".to_owned(), "a b".into()], 1));
}

#[test]
fn a_second_try_without_a_result_leaves_the_test_failed() {
    let mut place = lab(&["test a ... FAILED\ntest b ... ok\ntest c ... ok", ""]);
    assert_eq!(run_abc(&mut place), Record { passed: 2, failed: vec!["a".into()], ..Record::default() });
}

#[test]
fn a_real_machine_has_no_second_try() {
    let runs = vec!["test a ... FAILED\ntest b ... ok"];
    let mut place = Script { runs, asked: Vec::new(), replaced: 0, replaceable: false };
    let expected = Record { passed: 1, failed: vec!["a".into(), "c".into()], ..Record::default() };
    assert_eq!((run_abc(&mut place), place.asked.len()), (expected, 1));
}
