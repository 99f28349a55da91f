//! Checks of the source itself: what the compiler allows and this project does not.
//!
//!   cargo metadata ─▶ every library, program and test ─▶ source (modules and what they import) ─▶ graph (cycles)
//!                   └▶ every dependency ─▶ dependencies (named in no source file), licences (not in deny.toml)
//!
//! Modules import only downwards: among the children of one module (or of the crate) imports make no cycle. What is
//! between a parent and its child is left out: the parent declares the child, and the child may use the parent's types.
//! Code under `cfg(test)` is left out as well.

mod dependencies;
mod graph;
mod licences;
mod source;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, env, fs, path::PathBuf, process::Command};

use graph::{Allowed, Graph};
use source::Crate;

/// Imports that make a cycle and stay, each with its reason. An entry that no cycle needs fails the check.
const ALLOWED: &[Allowed] = &[];

/// Dependencies that only generated code names: the package and the dependency. An entry that no package declares, or that a
/// source file names, fails the check.
const GENERATED: &[(&str, &str)] = &[("bulkhead-protocol", "async-trait"), ("bulkhead-protocol", "protobuf")];

/// What `cargo metadata` says of one member of the workspace.
#[derive(Debug, serde::Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
    dependencies: Vec<Dependency>,
    targets: Vec<Target>,
}

#[derive(Debug, serde::Deserialize)]
struct Dependency {
    name: String,
    rename: Option<String>,
}

#[derive(Debug, serde::Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
    src_path: PathBuf,
}

#[derive(Debug, serde::Deserialize)]
struct Workspace {
    packages: Vec<Package>,
    workspace_root: PathBuf,
}

/// The workspace's own packages.
fn workspace() -> Workspace {
    metadata(&["--no-deps", "--offline"])
}

fn metadata<T: serde::de::DeserializeOwned>(arguments: &[&str]) -> T {
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--format-version=1"])
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("run cargo metadata");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("parse what cargo metadata says")
}

#[test]
fn modules_import_only_downwards() {
    let workspace = workspace();
    let mut graphs = Vec::new();
    for target in workspace.packages.iter().flat_map(|package| &package.targets) {
        if target.kind != ["custom-build"] {
            let source = Crate::read(&target.src_path, |path| fs::read_to_string(path))
                .unwrap_or_else(|error| panic!("{}: {error}", target.src_path.display()));
            graphs.push(Graph::new(&target.name, &source));
        }
    }
    let complaints = graph::complaints(&graphs, ALLOWED);
    let root = format!("{}/", workspace.workspace_root.display());
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n").replace(&root, ""));
}

#[test]
fn every_dependency_is_used() {
    let mut unused = BTreeSet::new();
    for package in &workspace().packages {
        let names = package.dependencies.iter().map(|it| it.rename.as_ref().unwrap_or(&it.name).as_str());
        let directory = package.manifest_path.parent().expect("a manifest lies in a directory");
        let of = |name: &str| (package.name.clone(), name.to_owned());
        unused.extend(dependencies::unused(directory, names).into_iter().map(of));
    }
    for (package, name) in GENERATED {
        let listed = unused.remove(&((*package).to_owned(), (*name).to_owned()));
        assert!(listed, "{package} uses {name} itself, or has it no more: take it off the list");
    }
    let told: Vec<_> = unused.iter().map(|(package, name)| format!("{package}: {name}")).collect();
    assert!(told.is_empty(), "declared and not used:\n{}", told.join("\n"));
}

#[test]
fn every_dependency_has_an_allowed_licence_and_comes_from_a_registry() {
    #[derive(serde::Deserialize)]
    struct All {
        packages: Vec<licences::Package>,
    }
    let all: All = metadata(&["--locked", "--filter-platform=x86_64-unknown-linux-gnu"]);
    let deny =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../deny.toml")).expect("read deny.toml");
    let refused = licences::refused(&all.packages, &licences::allowed(&deny));
    assert!(refused.is_empty(), "\n{}", refused.join("\n"));
}
