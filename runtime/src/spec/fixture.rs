//! A bundle on disk for tests: what `bulkhead spec` writes, then changed field by field.

use std::path::Path;

use bulkhead_protocol::container::ContainerSpec;
use serde_json::{Value, json};

use super::{Bundle, Policy, SpecError, load};

pub(crate) struct Fixture {
    pub dir: tempfile::TempDir,
    spec: Value,
}

/// The generated spec over an empty rootfs.
pub(crate) fn bundle() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("rootfs")).unwrap();
    Fixture { dir, spec: serde_json::from_str(super::TEMPLATE).unwrap() }
}

impl Fixture {
    /// Sets the field at `path` (`linux.resources.cpu`), making the objects on the way; lists are replaced whole.
    pub(crate) fn set(mut self, path: &str, value: Value) -> Self {
        let mut at = &mut self.spec;
        for part in path.split('.') {
            if at.is_null() {
                *at = json!({});
            }
            at = at.as_object_mut().unwrap().entry(part).or_insert(Value::Null);
        }
        *at = value;
        self
    }

    pub(crate) fn remove(mut self, path: &str) -> Self {
        let (parents, name) = path.rsplit_once('.').unwrap_or(("", path));
        let mut at = &mut self.spec;
        for part in parents.split('.').filter(|part| !part.is_empty()) {
            at = &mut at[part];
        }
        at.as_object_mut().unwrap().remove(name).unwrap();
        self
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn json(&self) -> Vec<u8> {
        serde_json::to_vec(&self.spec).unwrap()
    }

    pub(crate) fn load(&self) -> Result<Bundle, SpecError> {
        self.load_within(&Policy::default())
    }

    pub(crate) fn load_within(&self, policy: &Policy) -> Result<Bundle, SpecError> {
        std::fs::write(self.dir().join("config.json"), self.json()).unwrap();
        load(self.dir(), &"web".parse().unwrap(), policy, None)
    }

    pub(crate) fn guest(&self) -> ContainerSpec {
        self.load().unwrap().guest
    }

    pub(crate) fn warnings(&self) -> Vec<String> {
        self.load().unwrap().host.warnings
    }

    /// The message that the user would read.
    pub(crate) fn refusal(&self) -> String {
        bulkhead_sys::chain(&self.load().unwrap_err())
    }
}

/// `mounts` or another list with one entry.
pub(crate) fn one(value: Value) -> Value {
    Value::Array(vec![value])
}
