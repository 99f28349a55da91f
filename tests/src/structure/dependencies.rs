//! Dependencies that a manifest declares and no source file names.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Those of the names that no Rust file below the directory has as a word, in order.
pub(super) fn unused<'names>(
    directory: &Path,
    names: impl Iterator<Item = &'names str>,
) -> BTreeSet<&'names str> {
    let mut unused: BTreeSet<_> = names.collect();
    for file in rust_files(directory) {
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        unused.retain(|name| !names_word(&text, &name.replace('-', "_")));
    }
    unused
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut todo = vec![directory.to_owned()];
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            todo.extend(fs::read_dir(&path).expect("list a directory").flatten().map(|entry| entry.path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// Whether code has the word in it. Comments do not count: a crate that only they name is not used.
pub(super) fn names_word(text: &str, word: &str) -> bool {
    let code = text.lines().map(|line| line.split("//").next().unwrap_or(""));
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
    code.flat_map(|line| line.split(|letter| !is_part(letter))).any(|part| part == word)
}
