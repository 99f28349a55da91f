//! The modules of the crate import downwards only: `docs/architecture.md` has the picture, this keeps it.

// All of this is test code; the lint only knows functions marked as tests.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// From the lowest to the highest. A module may import those before it.
const LAYERS: [&str; 18] = [
    "text",
    "time",
    "spec",
    "log",
    "shed",
    "config",
    "store",
    "network",
    "systemd",
    "undo",
    "hooks",
    "sandbox",
    "container",
    "api",
    "proxy",
    "doctor",
    "error",
    "cli",
];

fn layer(module: &str) -> usize {
    LAYERS.iter().position(|name| *name == module).unwrap_or_else(|| panic!("{module} has no layer"))
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

/// The modules that follow `crate::` in what is neither a comment nor a test.
fn imports(text: &str) -> BTreeSet<String> {
    let code: String = text
        .lines()
        .take_while(|line| line.trim() != "#[cfg(test)]")
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| [line, "\n"])
        .collect();
    let mut found = BTreeSet::new();
    for after in code.split("crate::").skip(1) {
        match after.strip_prefix('{') {
            Some(list) => found.extend(first_words(list)),
            None => found.extend(word(after)),
        }
    }
    found
}

/// Of each item in a list that a brace ends.
fn first_words(list: &str) -> Vec<String> {
    let (mut depth, mut words, mut start) = (0, Vec::new(), true);
    for (at, letter) in list.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => start = true,
            _ if start && letter.is_ascii_lowercase() => {
                words.extend(word(&list[at..]));
                start = false;
            }
            _ => {}
        }
    }
    words
}

fn word(text: &str) -> Option<String> {
    let name: String = text.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}

#[test]
fn modules_import_downwards_only() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for path in sources(&src) {
        let relative = path.strip_prefix(&src).unwrap();
        let first = relative.components().next().unwrap().as_os_str().to_str().unwrap();
        let module = first.trim_end_matches(".rs");
        let test = relative.to_str().unwrap().contains("test");
        if matches!(module, "lib" | "main") || test {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let upward = imports(&text).into_iter().filter(|name| name != module && layer(name) >= layer(module));
        wrong.extend(upward.map(|name| format!("{} imports {name}", relative.display())));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn lists_and_single_imports_are_found() {
    let text =
        "use crate::{\n    api::{a, b},\n    store::X,\n};\nfn f() { crate::log::note(1) } // crate::cli";
    let found = imports(text);
    assert!(["api", "store", "log"].iter().all(|name| found.contains(*name)), "{found:?}");
}
