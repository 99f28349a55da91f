//! A report as a flat list of facts that two runs can be compared by.
//!
//! Facts are as small as they can be said: each option of a mount is one, so that a difference names what it is about.

use std::{collections::BTreeMap, fs};

use serde_json::Value;

use super::NOTHING;
use crate::host::Finished;

/// The first bytes of a long output are enough to tell what went wrong; its end and length tell whether it is whole.
const SHOWN: usize = 400;

/// Facts by name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct View(BTreeMap<String, String>);

impl View {
    pub(super) fn of(finished: &Finished, outer: &Namespaces) -> Self {
        let mut facts = BTreeMap::new();
        facts.insert("code".to_owned(), finished.code().to_string());
        facts.insert("stderr".to_owned(), shortened(&finished.errors()));
        match serde_json::from_slice::<Value>(&finished.stdout) {
            Ok(report @ Value::Object(_)) => add_report(&mut facts, &report, outer),
            _ => add(&mut facts, "stdout", shortened(&finished.text())),
        }
        Self(facts)
    }

    /// Name, this one's and the other one's value of each fact that is not the same.
    pub(super) fn differences(&self, other: &Self) -> Vec<(String, String, String)> {
        let names = self.0.keys().chain(other.0.keys().filter(|name| !self.0.contains_key(*name)));
        let value = |facts: &Self, name: &str| facts.0.get(name).map_or(NOTHING, String::as_str).to_owned();
        names
            .map(|name| (name.clone(), value(self, name), value(other, name)))
            .filter(|(_, ours, theirs)| ours != theirs)
            .collect()
    }
}

/// The namespaces around a container, by their name in /proc/PID/ns.
#[derive(Debug)]
pub(super) struct Namespaces(BTreeMap<String, String>);

impl Namespaces {
    pub(super) fn of_this_process() -> Self {
        let entries = fs::read_dir("/proc/thread-self/ns").expect("procfs");
        let named = entries.flatten().filter_map(|entry| {
            let link = fs::read_link(entry.path()).ok()?;
            Some((entry.file_name().into_string().ok()?, link.to_str()?.to_owned()))
        });
        Self(named.collect())
    }

    /// Those that a kernel boots with have numbers of their own (linux/nsfs.h), but for mount and network, which a
    /// container of ours never shares.
    pub(super) fn first_of_a_kernel() -> Self {
        let numbers = [
            ("ipc", 0xefff_ffff_u32),
            ("uts", 0xefff_fffe),
            ("user", 0xefff_fffd),
            ("pid", 0xefff_fffc),
            ("cgroup", 0xefff_fffb),
            ("time", 0xefff_fffa),
        ];
        Self(numbers.map(|(name, number)| (name.to_owned(), format!("{name}:[{number}]"))).into())
    }

    fn are_shared(&self, name: &str, link: &str) -> bool {
        self.0.get(name.trim_end_matches("_for_children")).is_some_and(|outer| outer == link)
    }
}

fn add(facts: &mut BTreeMap<String, String>, name: &str, value: impl Into<String>) {
    facts.insert(name.to_owned(), value.into());
}

fn add_report(facts: &mut BTreeMap<String, String>, report: &Value, outer: &Namespaces) {
    for (name, value) in report.as_object().into_iter().flatten() {
        match name.as_str() {
            "limits" => strings(value).skip(1).for_each(|line| add_limit(facts, line)),
            "mounts" => strings(value).for_each(|line| add_mount(facts, line)),
            "namespaces" => {
                for (name, link) in value.as_object().into_iter().flatten() {
                    let shared = outer.are_shared(name, link.as_str().unwrap_or_default());
                    add(facts, &format!("namespaces.{name}"), if shared { "shared" } else { "own" });
                }
            }
            _ => flatten(facts, name, value),
        }
    }
}

fn strings(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn flatten(facts: &mut BTreeMap<String, String>, name: &str, value: &Value) {
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(key, value)| flatten(facts, &format!("{name}.{key}"), value));
        }
        Value::String(text) => add(facts, name, text),
        other => add(facts, name, other.to_string()),
    }
}

/// `Max cpu time              unlimited            unlimited            seconds`: the name has 26 columns.
fn add_limit(facts: &mut BTreeMap<String, String>, line: &str) {
    if let Some((name, values)) = line.split_at_checked(26) {
        let values: Vec<&str> = values.split_whitespace().take(2).collect();
        add(facts, &format!("limits.{}", name.trim_end()), values.join(" "));
    }
}

/// proc(5): id, parent, device, root, mount point, options, optional fields, `-`, type, source, options of the filesystem.
fn add_mount(facts: &mut BTreeMap<String, String>, line: &str) {
    let Some((mount, filesystem)) = line.split_once(" - ") else { return };
    let (mount, filesystem): (Vec<&str>, Vec<&str>) =
        (mount.split(' ').collect(), filesystem.split(' ').collect());
    let ([_, _, _, root, point, options, propagation @ ..], [kind, source, data]) =
        (&mount[..], &filesystem[..])
    else {
        return;
    };
    // One above the other.
    let number =
        (0..).find(|number| !facts.contains_key(&format!("{}.type", place(point, *number)))).unwrap_or(0);
    let place = place(point, number);
    add(facts, &format!("{place}.type"), *kind);
    add(facts, &format!("{place}.source"), *source);
    // Where directories of the host lie is no fact about the container.
    if matches!(*kind, "proc" | "sysfs" | "devpts" | "mqueue" | "cgroup2") {
        add(facts, &format!("{place}.root"), *root);
    }
    let kinds: Vec<&str> = propagation.iter().map(|field| field.split(':').next().unwrap_or(field)).collect();
    add(facts, &format!("{place}.propagation"), kinds.join(" "));
    for option in options.split(',') {
        add(facts, &format!("{place}.option.{option}"), "set");
    }
    for option in data.split(',') {
        let (key, value) = option.split_once('=').unwrap_or((option, "set"));
        add(facts, &format!("{place}.data.{key}"), value);
    }
}

fn place(point: &str, number: usize) -> String {
    match number {
        0 => format!("mount {point}"),
        above => format!("mount {point} above {above}"),
    }
}

fn shortened(text: &str) -> String {
    if text.len() <= SHOWN {
        return text.to_owned();
    }
    let start: String = text.chars().take(SHOWN).collect();
    let sum = text.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    format!("{start}… ({} bytes, checksum {sum:x})", text.len())
}

#[cfg(test)]
mod tests;
