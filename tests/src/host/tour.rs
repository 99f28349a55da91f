//! Tours in `docs/`: their `console` blocks are run, and must print what they say.
//!
//! A line that begins with `$ ` is a command, one with `> ` continues it, others are what it prints on either output. `…`
//! stands for any text within a line.

use std::{process::Command, time::Duration};

use super::{engine::GO, finish, stage};

/// Ends the output of each command.
const MARK: char = '\u{1e}';

#[derive(Debug, Default)]
struct Step {
    command: String,
    prints: Vec<String>,
}

/// What a page takes for granted: the installation at `/usr/local`, and a machine on which nothing else goes on. Go
/// programs are told what `GO` says.
fn prelude() -> String {
    let [procs, collector] = GO.map(|(name, value)| format!("{name}={value}"));
    let stage = stage();
    format!(
        "exec 2>&1
         export PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root {procs} {collector}
         mount --bind {} /usr/local
         for dir in /tmp /run; do mount -t tmpfs tour $dir; done
         ip link set lo up
         cd /",
        stage.display()
    )
}

/// Runs the blocks of a page in one shell, one after another, after the commands of `places`, which make the page's places.
/// The shell has mount, network and pid namespaces of its own: engines change the first two, and nothing outlives the last.
pub fn tour(page: &str, places: &str, deadline: Duration) {
    let steps = steps(page);
    let script = format!("{}\n{places}\n{}", prelude(), script(&steps));
    let text = said(&script, "", deadline);
    let said: Vec<&str> = text.split(MARK).collect();
    compare(&steps, &said);
}

/// Somebody else than root, for a tour of its own.
#[derive(Debug, Clone, Copy)]
pub struct Guide<'a> {
    /// As for `tour`, by root.
    pub places: &'a str,
    /// The words that start the shell of the page, without its options.
    pub shell: &'a str,
    /// By root, when the page is through. They are to print nothing.
    pub after: &'a str,
}

/// As `tour`, in another shell.
pub fn tour_as(guide: Guide<'_>, page: &str, deadline: Duration) {
    let steps = steps(page);
    let Guide { places, shell, after } = guide;
    let root = format!("{}\n{places}\n{shell} -c \"$1\"\n{after}\nprintf '{MARK}'", prelude());
    let text = said(&root, &script(&steps), deadline);
    let mut said: Vec<&str> = text.split(MARK).collect();
    said.pop();
    compare(&steps, &said);
    assert_eq!(said.last(), Some(&""), "after the page");
}

/// What each step prints, and a mark after it. The first mark says that the page begins.
fn script(steps: &[Step]) -> String {
    assert!(!steps.is_empty(), "no console blocks");
    let marked = steps.iter().map(|step| format!("{}\nprintf '{MARK}'\n", step.command));
    format!("printf '{MARK}'\n{}", marked.collect::<String>())
}

/// All that a script prints, in namespaces of its own.
fn said(script: &str, argument: &str, deadline: Duration) -> String {
    let namespaces = ["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let mut command = Command::new("unshare");
    command.args(namespaces).args(["bash", "-c", script, "tour", argument]);
    finish(&mut command, b"", deadline).text()
}

/// `said`: before the first step, of each step, and after the last.
fn compare(steps: &[Step], said: &[&str]) {
    assert_eq!(said[0], "", "the prelude");
    let mut wrong = String::new();
    for (step, said) in steps.iter().zip(&said[1..]) {
        let same = said.lines().count() == step.prints.len()
            && step.prints.iter().zip(said.lines()).all(|(pattern, line)| matches(pattern, line));
        if !same {
            wrong.push_str(&format!(
                "$ {}\nprints:\n{said}\nnot:\n{}\n",
                step.command,
                step.prints.join("\n")
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert_eq!(said.len(), steps.len() + 2, "the shell ended early:\n{}", said.concat());
}

fn steps(page: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if inside {
            match (line.strip_prefix("$ "), line.strip_prefix("> "), steps.last_mut()) {
                (Some(command), ..) => {
                    steps.push(Step { command: command.to_owned(), prints: Vec::new() });
                }
                (None, Some(more), Some(step)) => {
                    step.command.push('\n');
                    step.command.push_str(more);
                }
                (None, None, Some(step)) => step.prints.push(line.to_owned()),
                (.., None) => panic!("a block that does not begin with a command: {line}"),
            }
        }
    }
    steps
}

fn matches(pattern: &str, line: &str) -> bool {
    let mut parts = pattern.split('…');
    let Some(mut rest) = line.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

#[cfg(test)]
#[path = "tour_tests.rs"]
mod tests;
