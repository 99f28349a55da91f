//! Places of shell scripts.

use std::fs;

use super::*;

/// A lab's command that writes down what it is asked for, cannot end a lab, and runs programs right here.
const LAB: &str = r#"#!/bin/sh
echo "$1" >>"${0%/*}/asked"
case "$1" in
up) exit 0 ;;
exec) shift 4 && exec "$@" ;;
*) exit 1 ;;
esac
"#;
const PROGRAM: &str = r#"#!/bin/sh
[ "$1" = --list ] && { printf 'a: test\nb: test\n\n2 tests, 0 benchmarks\n'; exit; }
echo "running $*"
echo "test a ... ok" >&2
"#;

struct Scripts(tempfile::TempDir);

impl Scripts {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, text) in [("lab", LAB), ("program", PROGRAM)] {
            let (source, path) = (dir.path().join(format!("{name}.sh")), dir.path().join(name));
            fs::write(&source, text).expect("write a script");
            // By another process: a child of another test's might hold a file that this one has written, and then nobody may
            // execute it (ETXTBSY).
            let mut install = Command::new("install");
            assert!(install.args(["-m", "755"]).args([&source, &path]).status().expect("install").success());
        }
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn lines(&self, machine: &mut Machine) -> Vec<String> {
        let mut lines = Vec::new();
        machine.run(&self.path("program"), &["a".to_owned()].into(), &mut |line| lines.push(line.to_owned()));
        lines
    }
}

#[test]
fn a_lab_is_replaced_though_it_is_dead_already() {
    let scripts = Scripts::new();
    let mut machine = Machine::lab(scripts.path("lab")).expect("a lab");
    assert_eq!(scripts.lines(&mut machine), ["running --test-threads=2 --exact a", "test a ... ok"]);
    assert!(machine.replace());
    assert_eq!(fs::read_to_string(scripts.path("asked")).expect("read"), "up\nexec\ndown\nup\n");
}

#[test]
fn this_machine_runs_the_same_and_is_not_replaced() {
    let scripts = Scripts::new();
    let mut machine = Machine::this();
    assert_eq!(scripts.lines(&mut machine), ["running --test-threads=2 --exact a", "test a ... ok"]);
    assert!(!machine.replace());
}

#[test]
fn a_lab_that_does_not_come_up_is_none() {
    assert!(Machine::lab("/bin/false").is_none());
}

#[test]
fn a_program_lists_its_tests_or_cannot_be_asked() {
    let scripts = Scripts::new();
    assert_eq!(Machine::list(&scripts.path("program")), Some(["a".to_owned(), "b".into()].into()));
    assert_eq!(Machine::list(Path::new("/bin/false")), None);
}
