//! `state`, `spec` and `features` against the JSON schemas of the OCI runtime spec, as Debian has them: those of 1.2 in the
//! lab. A field that came later is ignored there.

use bulkhead_tests::host::{DEADLINE, TestHost, finish};

/// Reads a document, and says where it does not fit the schema of that file name.
const CHECK: &str = r#"
import json, pathlib, sys, jsonschema
path = pathlib.Path("/usr/share/gocode/src/github.com/opencontainers/runtime-spec/schema", sys.argv[1])
schema = json.loads(path.read_text())
resolver = jsonschema.RefResolver(path.as_uri(), schema)
errors = list(jsonschema.Draft4Validator(schema, resolver=resolver).iter_errors(json.load(sys.stdin)))
sys.exit("\n".join(f"{list(error.path)}: {error.message}" for error in errors) or 0)
"#;

/// Architectures of seccomp that came with 1.3.
const LATER: [&str; 4] = ["SCMP_ARCH_LOONGARCH64", "SCMP_ARCH_M68K", "SCMP_ARCH_SH", "SCMP_ARCH_SHEB"];

fn errors(schema: &str, document: &str) -> String {
    let mut python = std::process::Command::new("/usr/bin/python3");
    let checked = finish(python.args(["-c", CHECK, schema]), document.as_bytes(), DEADLINE);
    assert_eq!(checked.status.success(), checked.stderr.is_empty(), "{checked:?}");
    checked.errors()
}

#[test]
fn state_and_the_template_of_a_spec_fit_the_published_schemas() {
    let host = TestHost::new();
    // The check does check.
    assert!(
        errors("state-schema.json", r#"{"ociVersion": "1.0.2", "id": 5}"#)
            .contains("['id']: 5 is not of type")
    );
    let bundle = host.bundle().args(["probe", "linger"]).set("/annotations/key", "value".into());
    let web = host.create("web", &bundle);
    for status in ["created", "running", "stopped"] {
        web.until_status(status, DEADLINE);
        let state = web.command("state", [""; 0]).success();
        assert_eq!(errors("state-schema.json", &state), "", "{state}");
        match status {
            "created" => web.start(),
            "running" => web.kill("KILL"),
            _ => {}
        }
    }
    web.delete();
    let directory = host.dir().join("template");
    std::fs::create_dir(&directory).unwrap();
    finish(host.bulkhead(["spec", "--bundle"]).arg(&directory), b"", DEADLINE).success();
    let config = std::fs::read_to_string(directory.join("config.json")).unwrap();
    assert_eq!(errors("config-schema.json", &config), "", "{config}");
}

#[test]
fn features_fit_the_published_schema_but_for_what_came_later() {
    assert!(errors("features-schema.json", "{}").contains("'ociVersionMin' is a required property"));
    let host = TestHost::new();
    let features = finish(&mut host.bulkhead(["features"]), b"", DEADLINE).success();
    let wrong = errors("features-schema.json", &features);
    let later = LATER.map(|name| format!("'{name}' is not one of"));
    let unknown = |line: &&str| {
        !line.starts_with("['linux', 'seccomp', 'archs'") || !later.iter().any(|name| line.contains(name))
    };
    assert_eq!(wrong.lines().find(unknown), None, "{features}");
}
