//! `bulkhead run` on a person's terminal, and `--console-socket` for callers.

use std::{
    fs::File,
    io::{IoSliceMut, Read, Write},
    os::{
        fd::{AsRawFd, FromRawFd},
        unix::net::UnixListener,
    },
};

use bulkhead_tests::host::{DEADLINE, Terminal, TestHost, finish};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use serde_json::json;

#[test]
fn a_shell_answers_on_a_terminal_and_ctrl_c_interrupts_its_child() {
    let host = TestHost::new();
    let id = host.id("shell");
    let bundle = host.bundle().args(["sh"]).set("/process/terminal", json!(true));
    let mut terminal =
        Terminal::spawn(host.bulkhead(["run", "--bundle"]).arg(bundle.write()).arg(&id), 80, 24);
    terminal.send("echo hello-$((20+3)); stty size\n");
    // Line feeds are plain until the user's own terminal has them.
    terminal.expect("hello-23\r\n", DEADLINE);
    terminal.expect("24 80\r\n", DEADLINE);
    let mut exec = host.bulkhead(["exec", "--tty", &id]);
    let lines = finish(exec.args(["sh", "-c", "tty; echo line"]), b"", DEADLINE).success();
    assert_eq!(lines, "/dev/pts/1\nline\n");
    // Said by the child: between fork and exec a child of an interactive shell takes the signal for the shell, and loses it.
    terminal.send("sh -c 'echo sleeping-$((1+1)); exec sleep 1000'\n");
    terminal.expect("sleeping-2", DEADLINE);
    terminal.send("\u{3}");
    terminal.send("echo back-$((2+2))\n");
    terminal.expect("back-4", DEADLINE);
    terminal.send("exit 4\n");
    assert_eq!(terminal.wait(DEADLINE).code(), Some(4));
    host.assert_no_trace_of(&id);
}

#[test]
fn a_resized_window_arrives_as_sigwinch() {
    let host = TestHost::new();
    let bundle = host.bundle().args(["probe", "trap"]).set("/process/terminal", json!(true));
    let mut command = host.bulkhead(["run", "--bundle"]);
    let mut terminal = Terminal::spawn(command.arg(bundle.write()).arg(host.id("winch")), 80, 24);
    // At the start of a line: progress messages say "not ready yet".
    terminal.expect("\nready", DEADLINE);
    terminal.resize(132, 50);
    terminal.expect("SIGWINCH", DEADLINE);
    // Ctrl-C is a byte until the container's own line discipline makes a signal of it.
    terminal.send("\u{3}");
    terminal.expect("SIGINT", DEADLINE);
}

#[test]
fn the_console_socket_receives_the_terminal() {
    let host = TestHost::new();
    let id = host.id("console");
    // Longer than sun_path allows, as callers' directories are.
    let deep = host.dir().join("d".repeat(120));
    std::fs::create_dir(&deep).unwrap();
    let directory = File::open(&deep).unwrap();
    let listener =
        UnixListener::bind(format!("/proc/self/fd/{}/console.sock", directory.as_raw_fd())).unwrap();
    let bundle = host.bundle().sh("read line; echo got-$line; exit 8").set("/process/terminal", json!(true));
    let mut create = host.bulkhead(["create", "--console-socket"]);
    create.arg(deep.join("console.sock")).arg("--bundle").arg(bundle.write()).arg(&id);
    finish(&mut create, b"", DEADLINE).success();
    let mut master = receive_fd(&listener);
    host.output(["start", &id]).success();
    master.write_all(b"word\n").unwrap();
    let mut seen = Vec::new();
    let mut buffer = [0; 256];
    // EIO at the end: the other side is closed.
    while let Ok(count @ 1..) = master.read(&mut buffer) {
        seen.extend(&buffer[..count]);
    }
    // The only terminal that the caller knows does what a terminal does.
    assert!(String::from_utf8_lossy(&seen).contains("got-word\r\n"), "{:?}", String::from_utf8_lossy(&seen));
    host.output(["delete", "--force", &id]).success();
    host.assert_no_trace_of(&id);
}

fn receive_fd(listener: &UnixListener) -> File {
    let (stream, _) = listener.accept().unwrap();
    let mut name = [0; 256];
    let mut space = nix::cmsg_space!([i32; 1]);
    let mut slices = [IoSliceMut::new(&mut name)];
    let message =
        recvmsg::<()>(stream.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC).unwrap();
    let fd = message
        .cmsgs()
        .unwrap()
        .find_map(|cmsg| match cmsg {
            ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
            _ => None,
        })
        .expect("a descriptor");
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows its number.
    unsafe { File::from_raw_fd(fd) }
}
