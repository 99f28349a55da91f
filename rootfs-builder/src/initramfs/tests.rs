use std::error::Error;
use std::fs;

use super::*;
use crate::elf::tests::program;

struct Bench {
    directory: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str, content: &[u8], mode: u32) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    fn static_agent(&self) -> PathBuf {
        self.file("agent", &program(&[(1, b"the agent's code")]), 0o700)
    }
}

fn bytes_of(initramfs: &Initramfs) -> Vec<u8> {
    let mut bytes = Vec::new();
    initramfs.write_to(&mut bytes).unwrap();
    bytes
}

#[test]
fn the_image_has_init_a_console_and_the_mount_points() {
    let bench = Bench::new();
    let agent = bench.static_agent();
    let bytes = bytes_of(&Initramfs::new(&agent, &[]).unwrap());

    let content = fs::read(agent).unwrap();
    assert!(bytes.windows(content.len()).any(|window| window == content), "the agent is in it");
    for name in ["dev\0", "dev/console\0", "init\0", "proc\0", "run\0", "sys\0", "tmp\0", "TRAILER!!!\0"] {
        assert!(bytes.windows(name.len()).any(|window| window == name.as_bytes()), "{name:?} is in it");
    }
}

#[test]
fn the_same_input_gives_the_same_bytes_whatever_its_times_place_and_mode() {
    let (one, other) = (Bench::new(), Bench::new());
    let first = Initramfs::new(&one.static_agent(), &[]).unwrap();
    let agent = other.file("another-name", &fs::read(one.static_agent()).unwrap(), 0o755);
    fs::File::open(&agent).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    let second = Initramfs::new(&agent, &[]).unwrap();
    assert_eq!(bytes_of(&first), bytes_of(&second));
    assert_eq!(bytes_of(&first), bytes_of(&first));
}

#[test]
fn extra_files_keep_only_whether_they_are_executable() {
    let bench = Bench::new();
    let agent = bench.static_agent();
    let extra = |mode| {
        let source = bench.file("extra", b"content", mode);
        let extra = [Extra { destination: "/opt/tool".to_owned(), source }];
        bytes_of(&Initramfs::new(&agent, &extra).unwrap())
    };
    assert_eq!(extra(0o600), extra(0o664));
    assert_eq!(extra(0o700), extra(0o555));
    assert_ne!(extra(0o600), extra(0o700));
}

#[test]
fn an_extra_file_cannot_replace_init() {
    let bench = Bench::new();
    let extra = [Extra { destination: "/init".to_owned(), source: bench.file("evil", b"", 0o755) }];
    let error = Initramfs::new(&bench.static_agent(), &extra).unwrap_err();
    assert!(matches!(error, BuildError::Layout(ArchiveError::Taken { .. })), "{error:?}");
}

#[test]
fn a_dynamic_agent_is_refused_with_a_way_out_and_writes_nothing() {
    let bench = Bench::new();
    let agent = bench.file("agent", &program(&[(3, b"/lib64/ld-linux-x86-64.so.2\0")]), 0o755);
    let error = Initramfs::new(&agent, &[]).unwrap_err();
    assert!(error.to_string().contains("agent as /init"), "{error}");
    let cause = error.source().unwrap().to_string();
    assert!(cause.contains("/lib64/ld-linux-x86-64.so.2") && cause.contains("crt-static"), "{cause}");
}

#[test]
fn inputs_that_are_missing_or_no_files_are_named() {
    let bench = Bench::new();
    let missing = bench.directory.path().join("missing");
    assert!(matches!(Initramfs::new(&missing, &[]), Err(BuildError::Read { path, .. }) if path == missing));
    let directory = bench.directory.path();
    assert!(
        matches!(Initramfs::new(directory, &[]), Err(BuildError::NotAFile { path }) if path == directory)
    );
}

#[test]
fn the_output_is_replaced_in_one_step_and_leaves_no_temporary_file() {
    let bench = Bench::new();
    let image = Initramfs::new(&bench.static_agent(), &[]).unwrap();
    let output = bench.file("initramfs", b"an older and much longer image", 0o600);
    let reader = fs::File::open(&output).unwrap();

    image.write_file(&output).unwrap();

    assert_eq!(fs::read(&output).unwrap(), bytes_of(&image));
    assert_eq!(fs::metadata(&output).unwrap().permissions().mode() & 0o777, 0o644);
    assert_eq!(io::read_to_string(reader).unwrap(), "an older and much longer image");
    assert_eq!(fs::read_dir(bench.directory.path()).unwrap().count(), 2);
}

#[test]
fn an_output_that_cannot_be_written_is_named() {
    let bench = Bench::new();
    let image = Initramfs::new(&bench.static_agent(), &[]).unwrap();
    let output = bench.directory.path().join("no-such-directory/initramfs");
    assert!(matches!(image.write_file(&output), Err(BuildError::Write { path, .. }) if path == output));
}

#[test]
fn extras_are_written_destination_first() {
    let extra: Extra = "/a=b=c".parse().unwrap();
    assert_eq!(extra, Extra { destination: "/a".to_owned(), source: "b=c".into() });
    for bad in ["", "/a", "=b", "/a="] {
        assert_eq!(bad.parse::<Extra>(), Err(ExtraError), "{bad:?}");
    }
}
