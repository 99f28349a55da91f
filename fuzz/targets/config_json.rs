//! A bundle of anybody's: `config.json` with any values in its fields, or any bytes.
//!
//! It is taken or refused, and the agent reads what is taken as it was meant.

#![no_main]

use std::{fs, path::Path, sync::OnceLock};

use arbitrary::Arbitrary;
use bulkhead_protocol::container::ContainerSpec;
use bulkhead_runtime::spec::{ExecFlags, Policy, exec_process, load, parse_update};
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};
use tempfile::TempDir;

/// Has every field that is looked at.
const TEMPLATE: &str = include_str!("config.json");
/// Words that fields have.
const WORDS: [&str; 24] = [
    "type",
    "path",
    "source",
    "destination",
    "options",
    "limit",
    "hard",
    "soft",
    "names",
    "action",
    "args",
    "name",
    "/data",
    "proc",
    "tmpfs",
    "bind",
    "rbind",
    "ro",
    "network",
    "SCMP_ACT_ERRNO",
    "CAP_KILL",
    "0-3",
    "max",
    "rshared",
];

#[derive(Debug, Arbitrary)]
enum Input {
    Bytes(Vec<u8>),
    Changes(Vec<(u16, Json)>),
    Update(Json),
    Exec {
        changes: Vec<(u16, Json)>,
        args: Vec<String>,
        env: Vec<String>,
        user: Option<String>,
        cwd: Option<String>,
    },
}

#[derive(Debug, Arbitrary)]
enum Json {
    Null,
    Bool(bool),
    Small(i8),
    Number(i64),
    Natural(u64),
    Float(f64),
    Word(u8),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(u8, Json)>),
}

fn word(index: u8) -> String {
    WORDS[usize::from(index) % WORDS.len()].to_owned()
}

impl From<Json> for Value {
    fn from(json: Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(value) => value.into(),
            Json::Small(value) => value.into(),
            Json::Number(value) => value.into(),
            Json::Natural(value) => value.into(),
            Json::Float(value) => value.into(),
            Json::Word(index) => word(index).into(),
            Json::Text(text) => text.into(),
            Json::List(list) => list.into_iter().map(Self::from).collect(),
            Json::Object(fields) => {
                let fields = fields.into_iter().map(|(name, value)| (word(name), value.into()));
                Self::Object(fields.collect::<Map<_, _>>())
            }
        }
    }
}

/// The places in a value, as JSON pointers.
fn places(value: &Value, here: &str, all: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(name, value)| places(value, &format!("{here}/{name}"), all))
        }
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(index, value)| places(value, &format!("{here}/{index}"), all));
        }
        _ => {}
    }
    all.push(here.to_owned());
}

/// The template with other values in some places.
fn changed(changes: Vec<(u16, Json)>) -> Vec<u8> {
    let mut spec: Value = serde_json::from_str(TEMPLATE).expect("the template is JSON");
    for (place, value) in changes.into_iter().take(8) {
        let mut all = Vec::new();
        places(&spec, "", &mut all);
        if let Some(target) = spec.pointer_mut(&all[usize::from(place) % all.len()]) {
            *target = value.into();
        }
    }
    spec.to_string().into_bytes()
}

/// A directory with a rootfs; what is in it beside is another run's.
fn bundle() -> &'static Path {
    static BUNDLE: OnceLock<TempDir> = OnceLock::new();
    let bundle = BUNDLE.get_or_init(|| {
        let bundle = tempfile::tempdir_in("/dev/shm").expect("a directory");
        fs::create_dir(bundle.path().join("rootfs")).expect("a rootfs");
        bundle
    });
    bundle.path()
}

fn take(json: &[u8]) {
    let dir = bundle();
    fs::write(dir.join("config.json"), json).expect("write config.json");
    let id = "fuzz".parse().expect("an id");
    match load(dir, &id, &Policy::default(), None) {
        Ok(taken) => {
            let sent = serde_json::to_vec(&taken.guest).expect("the guest's part is JSON");
            let read: ContainerSpec = serde_json::from_slice(&sent).expect("the agent reads it");
            assert_eq!(read, taken.guest);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fuzz_target!(|input: Input| {
    match input {
        Input::Bytes(bytes) => take(&bytes),
        Input::Changes(changes) => take(&changed(changes)),
        Input::Update(json) => {
            let _ = parse_update(Value::from(json).to_string().as_bytes());
        }
        Input::Exec { changes, args, env, user, cwd } => {
            let flags = ExecFlags { args, env, user, cwd, ..ExecFlags::default() };
            let _ = exec_process(&changed(changes), &flags, &Policy::default());
        }
    }
});
