//! What a container sees under Bulkhead is what it sees under crun or runc, but for what `bulkhead_tests::differential`
//! lists with reasons. A case is one change of the default bundle.

mod devices;
mod mounts;
mod namespaces;
mod process;
mod resources;
mod security;
