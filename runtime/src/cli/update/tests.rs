use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

fn parse(arguments: &[&str]) -> Result<Args, clap::Error> {
    Line::try_parse_from(["update"].iter().chain(arguments)).map(|line| line.args)
}

fn json_of(arguments: &[&str]) -> Value {
    serde_json::from_slice(&parse(arguments).unwrap().limits.json()).unwrap()
}

#[test]
fn each_flag_is_a_field_of_the_spec() {
    let all = json_of(&[
        "--memory=512m",
        "--memory-reservation",
        "1g",
        "--memory-swap",
        "-1",
        "--kernel-memory=1",
        "--kernel-memory-tcp=2",
        "--cpu-quota",
        "-1",
        "--cpu-period=100000",
        "--cpu-burst=5",
        "--cpu-share=512",
        "--cpu-rt-period=3",
        "--cpu-rt-runtime=4",
        "--cpu-idle=1",
        "--cpuset-cpus=0-1",
        "--cpuset-mems=0",
        "--pids-limit",
        "-1",
        "--blkio-weight=100",
        "web",
    ]);
    let expected = json!({
        "memory": {"limit": 536_870_912, "reservation": 1_073_741_824, "swap": -1, "kernel": 1, "kernelTCP": 2},
        "cpu": {"quota": -1, "period": 100_000, "burst": 5, "shares": 512, "realtimePeriod": 3,
            "realtimeRuntime": 4, "idle": 1, "cpus": "0-1", "mems": "0"},
        "pids": {"limit": -1},
        "blockIO": {"weight": 100},
    });
    assert_eq!(all, expected);
}

#[test]
fn what_is_not_given_is_not_in_the_update() {
    let update = spec::parse_update(&parse(&["--pids-limit=0", "web"]).unwrap().limits.json()).unwrap();
    let expected = bulkhead_protocol::container::Resources {
        pids_max: Some(bulkhead_protocol::container::Limit::Value(0)),
        ..Default::default()
    };
    assert_eq!(update.resources, expected);
}

#[test]
fn sizes_have_units_of_1024_and_no_limit_is_minus_one() {
    assert_eq!(
        (size("4096"), size("512m"), size("2KiB"), size("1G")),
        (Ok(4096), Ok(512 << 20), Ok(2048), Ok(1 << 30))
    );
    assert_eq!(size("-1"), Ok(-1));
    for bad in ["", "m", "-2", "-1k", "1x", "9999999t", "1.5g"] {
        assert!(size(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_file_and_flags_exclude_each_other() {
    assert!(parse(&["--resources=-", "--memory=1m", "web"]).is_err());
    assert_eq!(parse(&["-r", "-", "web"]).unwrap().resources, Some("-".into()));
}

#[test]
fn an_update_says_what_it_cannot_do_by_its_path_and_leaves_devices_alone() {
    let refusal = |json: &str| spec::parse_update(json.as_bytes()).unwrap_err().to_string();
    assert!(
        refusal(r#"{"memory":{"swap":5}}"#).starts_with("linux.resources.memory.swap: needs memory.limit")
    );
    assert!(refusal(r#"{"memory":{"limit":"x"}}"#).starts_with("linux.resources.memory.limit"));
    let update =
        br#"{"devices":[{"allow":false,"access":"rwm"}],"memory":{"limit":4096,"checkBeforeUpdate":true}}"#;
    let update = spec::parse_update(update).unwrap();
    assert!(update.resources.devices.is_empty() && update.resources.memory_check_before_update);
}
