//! Generates the ttrpc services from `proto/` into the build directory; nothing generated is committed.

use std::{env, fs, path::PathBuf};

use ttrpc_codegen::{Codegen, Customize};

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let services = ["agent", "sandbox"];
    let protos = ["agent", "sandbox", "pod"].map(|name| format!("proto/{name}.proto"));
    for proto in &protos {
        println!("cargo:rerun-if-changed={proto}");
    }
    Codegen::new()
        .out_dir(&out)
        .inputs(&protos)
        .include("proto")
        .rust_protobuf()
        .customize(Customize { async_all: true, ..Customize::default() })
        .run()
        .expect("generate ttrpc code");
    // The generated files carry inner attributes, so they must be modules of a file, not included themselves.
    let modules = services.map(|service| format!("pub mod {service};\npub mod {service}_ttrpc;\n"));
    fs::write(out.join("services.rs"), modules.concat() + "pub mod pod;\n")
        .expect("write the list of services");
}
