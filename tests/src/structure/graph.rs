//! Imports between the children of one module, and the cycles that they make.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use super::source::{Crate, ModulePath, Reference};

/// An import between two siblings that may be part of a cycle.
#[derive(Debug)]
pub(super) struct Allowed {
    /// The library, program or test, by cargo's name of it.
    pub(super) target: &'static str,
    /// The two modules from the crate's root: `devices::net`.
    pub(super) from: &'static str,
    pub(super) to: &'static str,
    pub(super) reason: &'static str,
}

/// Who imports whom, by level: the edges between the children of each module.
#[derive(Debug)]
pub(super) struct Graph {
    target: String,
    levels: BTreeMap<ModulePath, Level>,
}

/// Edges between siblings, with the imports that make each.
type Level = BTreeMap<(String, String), Vec<Reference>>;

impl Graph {
    pub(super) fn new(target: &str, source: &Crate) -> Self {
        let mut levels: BTreeMap<ModulePath, Level> = BTreeMap::new();
        for reference in &source.references {
            let to = module_of(source, &reference.from, &reference.path);
            let from = &reference.from;
            let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
            // One of the two is above the other: parent and child.
            let (Some(importer), Some(imported)) = (from.get(common), to.get(common)) else { continue };
            let edge = (importer.clone(), imported.clone());
            let level = levels.entry(to[..common].to_vec()).or_default();
            level.entry(edge).or_default().push(reference.clone());
        }
        Self { target: target.to_owned(), levels }
    }
}

/// The module in which a mentioned thing lives. A name that an ancestor of the one who mentions it only hands on is
/// followed to where it comes from: importing it past the parent is importing it.
fn module_of(source: &Crate, from: &[String], path: &[String]) -> ModulePath {
    let (mut path, mut seen) = (path.to_vec(), BTreeSet::new());
    loop {
        let mut length = 0;
        while length < path.len() && source.modules.contains_key(&path[..=length]) {
            length += 1;
        }
        let (module, rest) = path.split_at(length);
        if !from.starts_with(module) || !seen.insert(path.clone()) {
            return module.to_vec();
        }
        let (Some(names), Some((name, rest))) = (source.modules.get(module), rest.split_first()) else {
            return module.to_vec();
        };
        match names.imported.get(name) {
            Some(origin) => path = origin.iter().chain(rest).cloned().collect(),
            None => return module.to_vec(),
        }
    }
}

/// The groups of siblings that import each other in a circle, in order.
fn circles<'level>(edges: &BTreeSet<(&'level str, &'level str)>) -> Vec<BTreeSet<&'level str>> {
    let reach = |start: &'level str| {
        let (mut reached, mut todo) = (BTreeSet::new(), vec![start]);
        while let Some(at) = todo.pop() {
            todo.extend(
                edges.iter().filter(|(from, to)| *from == at && reached.insert(*to)).map(|(_, to)| to),
            );
        }
        reached
    };
    let reached: BTreeMap<_, _> = edges.iter().map(|(from, _)| (*from, reach(from))).collect();
    let mut circles: Vec<BTreeSet<_>> = Vec::new();
    for (module, reaches) in &reached {
        if reaches.contains(module) && !circles.iter().any(|circle| circle.contains(module)) {
            let mutual =
                reaches.iter().filter(|other| reached.get(*other).is_some_and(|it| it.contains(module)));
            circles.push(mutual.copied().collect());
        }
    }
    circles
}

/// Every cycle that is not allowed, with the imports that make it, and every allowed import that no cycle needs.
pub(super) fn complaints(graphs: &[Graph], allowed: &[Allowed]) -> Vec<String> {
    let mut complaints = Vec::new();
    for graph in graphs {
        for (parent, level) in &graph.levels {
            complaints.extend(cycles_of(graph, parent, level, allowed));
        }
    }
    for entry in allowed {
        if !graphs.iter().any(|graph| is_needed(graph, entry, allowed)) {
            let Allowed { target, from, to, reason } = entry;
            complaints.push(format!(
                "{target}: {from} -> {to} is allowed ({reason}), but makes no cycle: take it off the list"
            ));
        }
    }
    complaints
}

fn full_name(parent: &[String], name: &str) -> String {
    parent.iter().map(String::as_str).chain([name]).collect::<Vec<_>>().join("::")
}

impl Allowed {
    fn is(&self, graph: &Graph, parent: &[String], (from, to): (&str, &str)) -> bool {
        self.target == graph.target
            && self.from == full_name(parent, from)
            && self.to == full_name(parent, to)
    }
}

/// The edges of a level without those that are allowed.
fn edges_without<'level>(
    graph: &Graph,
    parent: &[String],
    level: &'level Level,
    allowed: &[&Allowed],
) -> BTreeSet<(&'level str, &'level str)> {
    let edges = level.keys().map(|(from, to)| (from.as_str(), to.as_str()));
    edges.filter(|edge| !allowed.iter().any(|entry| entry.is(graph, parent, *edge))).collect()
}

fn cycles_of(graph: &Graph, parent: &[String], level: &Level, allowed: &[Allowed]) -> Vec<String> {
    let edges = edges_without(graph, parent, level, &allowed.iter().collect::<Vec<_>>());
    let tell = |circle: BTreeSet<&str>| {
        let names: Vec<_> = circle.iter().map(|name| full_name(parent, name)).collect();
        let mut told = format!("{}: these import each other in a circle: {}", graph.target, names.join(", "));
        for (from, to) in edges.iter().filter(|(from, to)| circle.contains(from) && circle.contains(to)) {
            let imports = &level[&((*from).to_owned(), (*to).to_owned())];
            for Reference { file, line, path, .. } in imports {
                let _ = write!(told, "\n    {from} -> {to}  {}:{line}  {}", file.display(), path.join("::"));
            }
        }
        told
    };
    circles(&edges).into_iter().map(tell).collect()
}

/// Whether the import would make a cycle if it were not allowed.
fn is_needed(graph: &Graph, entry: &Allowed, allowed: &[Allowed]) -> bool {
    graph.levels.iter().any(|(parent, level)| {
        let others: Vec<_> = allowed.iter().filter(|other| !std::ptr::eq(*other, entry)).collect();
        let edges = edges_without(graph, parent, level, &others);
        let own = edges.iter().find(|edge| entry.is(graph, parent, **edge));
        own.is_some_and(|(from, to)| {
            circles(&edges).iter().any(|circle| circle.contains(from) && circle.contains(to))
        })
    })
}
