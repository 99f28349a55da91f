//! `bulkhead-bench`: see `bench`. Needs a KVM that runs stock guests, runc, crun and QEMU: `make bench` runs it in place
//! or in the lab, and finds `bench.md` and `timeline.svg` in the output directory.

use std::{
    error::Error,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use bulkhead_tests::{
    bench::{
        contest::{self, Competitor},
        disk::{self, LoopDevice},
        files, memory,
        microvm::Microvm,
        network, picture, pods,
        programs::Programs,
        reclaim,
        report::{Report, Row},
        samples::Samples,
        throughput,
        timeline::Timeline,
    },
    host::{Bundle, Podman, TestHost, Wire, probe, process, stage, until},
};
use clap::Parser;

/// Guest memory of the default configuration: a mapping of this size is the guest's.
const GUEST_KIB: u64 = 512 << 10;
const QEMU: &str = "qemu-system-x86_64";
/// Bytes of one throughput measurement.
const STREAM: u64 = 64 << 20;

#[derive(Debug, Parser)]
struct Args {
    /// Where the table and the picture go.
    #[arg(long)]
    out: PathBuf,
    /// Counted rounds of the start-up contest.
    #[arg(long, default_value_t = 10)]
    rounds: usize,
    /// The network alone.
    #[arg(long)]
    network: bool,
    /// Pods alone.
    #[arg(long)]
    pods: bool,
    /// Disks alone.
    #[arg(long)]
    disks: bool,
    /// Files alone.
    #[arg(long)]
    files: bool,
    /// A Debian userland with Python, for files.
    #[arg(long)]
    userland: PathBuf,
    /// What the machine is, for the report's head.
    #[arg(long, default_value = "kvm")]
    machine: String,
}

fn main() -> ExitCode {
    match bench(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bulkhead-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench(args: &Args) -> Result<(), Box<dyn Error>> {
    let host = TestHost::new();
    if args.network || args.disks || args.pods || args.files {
        let (mut ratios, mut figures) = (Vec::new(), Vec::new());
        if args.network {
            networks(&host, args.rounds, &mut ratios, &mut figures)?;
        }
        if args.pods {
            pods(args.rounds, &mut ratios, &mut figures)?;
        }
        if args.disks {
            disks(&host, args.rounds, &mut ratios, &mut figures)?;
        }
        if args.files {
            let programs = Programs::copied(&["runc"], host.dir().join("programs"))?;
            files(&host, &programs, args, &mut ratios, &mut figures)?;
        }
        for Row { what, unit, samples, .. } in ratios.iter().chain(&figures) {
            println!("{what}: {:.2} {unit} ({:.2} to {:.2})", samples.median(), samples.min(), samples.max());
        }
        return Ok(());
    }
    let programs = Programs::copied(&["runc", "crun", QEMU], host.dir().join("programs"))?;
    let mut timeline = Timeline::default();
    let starts = starts(&host, &programs, args.rounds, &mut timeline)?;
    let control = starts["runc run"].clone();
    let against = |name: &str, control: &str, goal: Option<f64>| Row {
        what: format!("`{name}` / `{control}`"),
        unit: "×",
        samples: starts[name].ratio(&starts[control]),
        goal,
    };
    let greeting =
        Samples(timeline.between("vmm-spawned", "agent-up").0.iter().map(|ms| ms / 1000.0).collect());
    // The first round is not counted by the contest, nor here.
    let greeting = Samples(greeting.0.into_iter().skip(1).collect());
    let mut ratios = vec![
        against("bulkhead run", "runc run", Some(1.8)),
        against("bulkhead run", "crun run", None),
        Row {
            what: "VMM spawn to greeting / QEMU microvm boot".to_owned(),
            unit: "×",
            samples: greeting.ratio(&starts["qemu microvm"]),
            goal: Some(0.6),
        },
    ];
    let mut figures = Vec::new();
    running(&host, &programs, args.rounds, &mut ratios, &mut figures)?;
    networks(&host, args.rounds, &mut ratios, &mut figures)?;
    disks(&host, args.rounds, &mut ratios, &mut figures)?;
    files(&host, &programs, args, &mut ratios, &mut figures)?;
    podman(args.rounds, &mut ratios)?;
    pods(args.rounds, &mut ratios, &mut figures)?;
    let report =
        Report { machine: args.machine.clone(), rounds: args.rounds, control, ratios, figures, timeline };
    fs::create_dir_all(&args.out)?;
    fs::write(args.out.join("bench.md"), report.markdown())?;
    fs::write(args.out.join("timeline.svg"), picture::svg(&report.timeline))?;
    println!("{}", report.markdown());
    Ok(())
}

/// Start to exit of `true`, everybody in turn.
fn starts(
    host: &TestHost,
    programs: &Programs,
    rounds: usize,
    timeline: &mut Timeline,
) -> Result<std::collections::BTreeMap<String, Samples>, Box<dyn Error>> {
    let bundle = host.bundle().args(["true"]);
    let dir = bundle.write().to_owned();
    let microvm = Microvm::new(&stage().join("share/bulkhead/vmlinux"), &probe(), host.dir())?;
    let stamps = |round: usize| host.dir().join(format!("timeline{round}"));
    let results = contest::run(
        rounds,
        &mut [
            Competitor {
                name: "bulkhead run",
                command: Box::new(|round| {
                    let mut command = host.bulkhead(["run", "--timeline"]);
                    command.arg(stamps(round)).arg("--bundle").arg(&dir).arg(host.id("start"));
                    command
                }),
            },
            Competitor { name: "runc run", command: Box::new(|_| oci(programs, "runc", host, &dir)) },
            Competitor { name: "crun run", command: Box::new(|_| oci(programs, "crun", host, &dir)) },
            Competitor {
                name: "qemu microvm",
                command: Box::new(|_| microvm.command(programs.command(QEMU))),
            },
        ],
    )?;
    for round in 0..=rounds {
        timeline.add(&stamps(round))?;
    }
    Ok(results)
}

/// `runc run` or `crun run` of the same bundle.
fn oci(programs: &Programs, program: &str, host: &TestHost, bundle: &Path) -> Command {
    let mut command = programs.command(program);
    command.arg("--root").arg(host.dir().join(program)).args(["run", "--bundle"]).arg(bundle);
    command.arg(host.id("bench")).stdin(Stdio::null());
    command
}

/// What is measured on a running container: exec, stdout, memory; beside a running runc container.
fn running(
    host: &TestHost,
    programs: &Programs,
    rounds: usize,
    ratios: &mut Vec<Row>,
    figures: &mut Vec<Row>,
) -> Result<(), Box<dyn Error>> {
    let bundle = host.bundle().args(["probe", "linger"]);
    let ours = host.create("bench", &bundle);
    ours.start();
    ours.until_stdout("ready");
    let runc = Runc::start(host, programs, &bundle)?;
    let (server, vmm) =
        (sole("bulkhead", &["sandbox-server"], &ours.id)?, sole("bulkhead-vmm", &[], &ours.id)?);
    let mib = |kib: u64| Samples(vec![f64::from(u32::try_from(kib).unwrap_or(u32::MAX)) / 1024.0]);
    let (server, vmm) = (memory::of(server, GUEST_KIB)?, memory::of(vmm, GUEST_KIB)?);
    let mut figure =
        |what: &str, samples, unit, goal| figures.push(Row { what: what.to_owned(), unit, samples, goal });
    figure("Private memory of the sandbox server", mib(server.private), "MiB", Some(12.0));
    figure("Private memory of the VMM beside guest memory", mib(vmm.private), "MiB", Some(10.0));
    figure("Resident guest memory, container idle (512 MiB guest)", mib(vmm.guest), "MiB", None);
    let exec = contest::run(
        rounds,
        &mut [
            Competitor {
                name: "bulkhead exec",
                command: Box::new(|_| host.bulkhead(["exec", ours.id.as_str(), "true"])),
            },
            Competitor { name: "runc exec", command: Box::new(|_| runc.exec(&["true"])) },
        ],
    )?;
    ratios.push(Row {
        what: "`bulkhead exec` / `runc exec`".to_owned(),
        unit: "×",
        samples: exec["bulkhead exec"].ratio(&exec["runc exec"]),
        goal: Some(1.5),
    });
    let count = format!("if=/dev/zero bs=1M count={}", STREAM >> 20);
    let stream = ["sh", "-c", &format!("dd {count} 2>/dev/null")];
    let (mut own, mut control) = (Samples::default(), Samples::default());
    for _ in 0..rounds.min(5) {
        own.0.push(throughput::measure(host.bulkhead(["exec", ours.id.as_str()]).args(stream), STREAM)?);
        control.0.push(throughput::measure(&mut runc.exec(&stream), STREAM)?);
    }
    ratios.push(Row {
        what: "stdout throughput: `bulkhead exec` / `runc exec` (a pipe)".to_owned(),
        unit: "×",
        samples: own.ratio(&control),
        goal: None,
    });
    figure("stdout throughput of `bulkhead exec`", own, "MiB/s", None);
    ours.delete_force();
    let (mut took, mut share) = (Samples::default(), Samples::default());
    for _ in 0..rounds.min(3) {
        let reclaimed = reclaimed(host)?;
        took.0.push(reclaimed.took.as_secs_f64());
        share.0.push(reclaimed.share * 100.0);
    }
    let what = format!(
        "Time until {:.0} % of {} MiB that a container freed are back",
        reclaim::SHARE * 100.0,
        reclaim::HELD_MIB
    );
    figure(&what, took, "s", Some(30.0));
    figure("Memory back by then", share, "%", None);
    Ok(())
}

/// TCP over a veth pair whose inner end is a microVM's, with vhost-net and without, and over one whose inner end is a
/// namespace's own.
fn networks(
    host: &TestHost,
    rounds: usize,
    ratios: &mut Vec<Row>,
    figures: &mut Vec<Row>,
) -> Result<(), Box<dyn Error>> {
    let without = TestHost::configured("vhost_net = false\n");
    let control = Wire::connected();
    let microvms = [host, &without].map(|host| {
        let wire = Wire::connected();
        let bundle = host.bundle().args(["probe", "linger"]);
        let bundle = bundle.set("/linux/namespaces/1/path", serde_json::json!(wire.path()));
        let container = host.create("wire", &bundle);
        container.start();
        (host, wire, container)
    });
    let mut samples: [[Samples; 3]; 3] = Default::default();
    for _ in 0..rounds.min(5) {
        let [own, plain] = microvms.each_ref().map(|(host, wire, container)| {
            network::measure(wire, |words| {
                let mut command = host.bulkhead(["exec", container.id.as_str(), "probe"]);
                command.args(words);
                command
            })
        });
        let (own, plain) = (own?, plain?);
        let veth = network::measure(&control, |words| {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", &control.inside]).arg(probe()).args(words);
            command
        })?;
        let seconds = [
            [own.out, plain.out, veth.out],
            [own.into, plain.into, veth.into],
            [own.trip, plain.trip, veth.trip],
        ];
        for (samples, seconds) in samples.iter_mut().flatten().zip(seconds.into_iter().flatten()) {
            samples.0.push(seconds);
        }
    }
    let [out, into, trip] = samples;
    let whats = ["64 MiB out by TCP", "64 MiB in by TCP", "a byte there and back by TCP"];
    // Half the throughput is twice the time.
    for (what, ([own, plain, veth], goal)) in
        whats.into_iter().zip([(&out, Some(2.0)), (&into, Some(2.0)), (&trip, None)])
    {
        let row = |name, samples: &Samples, goal| Row {
            what: format!("{what}: {name} / veth"),
            unit: "×",
            samples: samples.ratio(veth),
            goal,
        };
        ratios.push(row("microVM", own, goal));
        ratios.push(row("microVM without vhost-net", plain, None));
    }
    #[allow(clippy::cast_precision_loss)]
    let rate = |seconds: &Samples| {
        Samples(
            seconds.0.iter().map(|seconds| network::STREAM as f64 / f64::from(1 << 20) / seconds).collect(),
        )
    };
    for (what, samples, unit) in [
        ("TCP out of a container", rate(&out[0]), "MiB/s"),
        ("TCP into a container", rate(&into[0]), "MiB/s"),
        ("TCP round trip", Samples(trip[0].0.iter().map(|seconds| seconds * 1e6).collect()), "µs"),
    ] {
        figures.push(Row { what: what.to_owned(), unit, samples, goal: None });
    }
    for (_, _, container) in microvms {
        container.delete_force();
    }
    Ok(())
}

/// Streams from and to a block device, by a microVM and by the host.
fn disks(
    host: &TestHost,
    rounds: usize,
    ratios: &mut Vec<Row>,
    figures: &mut Vec<Row>,
) -> Result<(), Box<dyn Error>> {
    let device = LoopDevice::over(&host.dir().join("disk"))?;
    let number = fs::metadata(&device.0)?.rdev();
    let mut node = serde_json::json!({
        "path": "/dev/disk",
        "type": "b",
        "major": rustix::fs::major(number),
        "minor": rustix::fs::minor(number),
    });
    let bundle = host.bundle().args(["probe", "linger"]).set("/linux/devices", serde_json::json!([node]));
    (node["allow"], node["access"]) = (true.into(), "rwm".into());
    let bundle = bundle.set("/linux/resources/devices", serde_json::json!([node]));
    let container = host.create("disk", &bundle);
    container.start();
    container.until_stdout("ready");
    let mib = disk::MIB.to_string();
    for (way, cache) in [("write", "direct"), ("read", "direct"), ("read", "cached")] {
        let (mut own, mut control) = (Samples::default(), Samples::default());
        for _ in 0..rounds.min(5) {
            device.drop_cache()?;
            let words = ["probe", "disk", way, "/dev/disk", &mib, cache];
            own.0.push(disk::measure(host.bulkhead(["exec", container.id.as_str()]).args(words))?);
            device.drop_cache()?;
            let mut on_host = Command::new(probe());
            on_host.args(["disk", way]).arg(&device.0).args([&mib, "cached"]);
            control.0.push(disk::measure(&mut on_host)?);
        }
        // Four fifths of the throughput are five quarters of the time.
        let goal = (cache == "direct").then_some(1.25);
        let what = format!("{way} of {mib} MiB of a block device, {cache} in the guest: microVM / host");
        ratios.push(Row { what, unit: "×", samples: own.ratio(&control), goal });
        #[allow(clippy::cast_precision_loss)]
        let rate = Samples(own.0.iter().map(|seconds| disk::MIB as f64 / seconds).collect());
        let what = format!("{way} of a block device by a microVM, {cache}");
        figures.push(Row { what, unit: "MiB/s", samples: rate, goal: None });
    }
    container.delete_force();
    Ok(())
}

/// What a program does with the files of its rootfs.
fn files(
    host: &TestHost,
    programs: &Programs,
    args: &Args,
    ratios: &mut Vec<Row>,
    figures: &mut Vec<Row>,
) -> Result<(), Box<dyn Error>> {
    let rootfs = files::Rootfs::of(&args.userland, host.dir().join("userland"))?;
    let bundle = host.bundle().args(files::COMMAND).set("/root/path", serde_json::json!(rootfs.0));
    let bundle = bundle.set("/root/readonly", serde_json::json!(false));
    let dir = bundle.write();
    let (mut own, mut control) = (files::Times::new(), files::Times::new());
    for _ in 0..args.rounds.min(5) {
        files::measure(&mut oci(programs, "runc", host, dir), &mut control)?;
        let mut run = host.bulkhead(["run", "--bundle"]);
        files::measure(run.arg(dir).arg(host.id("files")), &mut own)?;
    }
    for (name, what, goal) in files::ROWS {
        let (own, control) = (&own[name], &control[name]);
        ratios.push(Row {
            what: format!("{what}: microVM / runc"),
            unit: "×",
            samples: own.ratio(control),
            goal,
        });
        figures.push(Row { what: what.to_owned(), unit: "s", samples: own.clone(), goal: None });
    }
    Ok(())
}

/// `podman run` of `true` with Bulkhead and with crun, everything else the same.
fn podman(rounds: usize, ratios: &mut Vec<Row>) -> Result<(), Box<dyn Error>> {
    if !Podman::installed() {
        eprintln!("bench: podman is not installed: it has no row");
        return Ok(());
    }
    let podman = Podman::new();
    let (ours, crun) = (stage().join("bin/bulkhead"), Path::new("/usr/bin/crun"));
    let run = |runtime| podman.command_with(runtime, ["run", "--rm", "--network=none", "probe", "true"]);
    let results = contest::run(
        rounds.min(5),
        &mut [
            Competitor { name: "bulkhead", command: Box::new(|_| run(&ours)) },
            Competitor { name: "crun", command: Box::new(|_| run(crun)) },
        ],
    )?;
    ratios.push(Row {
        what: "`podman run` with Bulkhead / with crun".to_owned(),
        unit: "×",
        samples: results["bulkhead"].ratio(&results["crun"]),
        goal: None,
    });
    Ok(())
}

/// Pods by containerd's CRI plugin, with Bulkhead and with runc.
fn pods(rounds: usize, ratios: &mut Vec<Row>, figures: &mut Vec<Row>) -> Result<(), Box<dyn Error>> {
    if !Path::new("/usr/bin/containerd").exists() {
        eprintln!("bench: containerd is not installed: pods have no rows");
        return Ok(());
    }
    let pods::Measured { start, probe, many, memory } = pods::measure(rounds.min(5))?;
    let many_at_once = format!("{} pods at once", pods::MANY);
    for (what, pair, goal) in [
        ("a pod with a container by CRI", start, Some(2.5)),
        ("an exec probe by CRI", probe, Some(0.5)),
        (&*many_at_once, many, None),
    ] {
        let what = format!("{what}: Bulkhead / runc");
        ratios.push(Row { what, unit: "×", samples: pair.own.ratio(&pair.runc), goal });
    }
    for (what, samples, goal) in [
        ("Memory of the host for an idle pod, all in", memory.own, Some(60.0)),
        ("The same with runc", memory.runc, None),
    ] {
        figures.push(Row { what: what.to_owned(), unit: "MiB", samples, goal });
    }
    Ok(())
}

fn reclaimed(host: &TestHost) -> Result<reclaim::Reclaimed, Box<dyn Error>> {
    let container =
        host.create("reclaim", &host.bundle().args(["probe", "hold", &reclaim::HELD_MIB.to_string()]));
    let reclaimed = reclaim::measure(&container, sole("bulkhead-vmm", &[], &container.id)?, GUEST_KIB)?;
    container.delete_force();
    Ok(reclaimed)
}

/// The one process of that name that belongs to the container.
fn sole(name: &str, words: &[&str], id: &str) -> Result<u32, String> {
    process(name, words, id).ok_or_else(|| format!("no process {name} of {id}"))
}

/// A runc container to compare with; killed when dropped.
struct Runc<'a> {
    host: &'a TestHost,
    programs: &'a Programs,
    id: String,
}

impl<'a> Runc<'a> {
    fn start(host: &'a TestHost, programs: &'a Programs, bundle: &Bundle) -> Result<Self, Box<dyn Error>> {
        let runc = Self { host, programs, id: host.id("control") };
        let log = host.dir().join("control.out");
        let status = runc
            .command(&["run", "--detach", "--bundle"])
            .arg(bundle.write())
            .arg(&runc.id)
            .stdout(fs::File::create(&log)?)
            .stderr(Stdio::null())
            .status()?;
        if !status.success() {
            return Err("runc run --detach failed".into());
        }
        until("runc's container is ready", bulkhead_tests::host::DEADLINE, || {
            fs::read_to_string(&log).is_ok_and(|text| text.contains("ready")).then_some(())
        });
        Ok(runc)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.programs.command("runc");
        command.arg("--root").arg(self.host.dir().join("runc")).args(words).stdin(Stdio::null());
        command
    }

    fn exec(&self, argv: &[&str]) -> Command {
        let mut command = self.command(&["exec", &self.id]);
        command.args(argv);
        command
    }
}

impl Drop for Runc<'_> {
    fn drop(&mut self) {
        let _ = self.command(&["delete", "--force", &self.id]).status();
    }
}
