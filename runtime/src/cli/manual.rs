//! `docs/cli.md` from the doc comments of the commands: written on request, compared otherwise.
//!
//!   BULKHEAD_WRITE_DOCS=1 cargo test -p bulkhead-runtime manual

use std::{fmt::Write as _, fs, path::Path};

use clap::{Arg, Command, CommandFactory as _};

const OPENING: &str = "# The command line

Flags, output and exit codes are runc's, so that podman, docker, CRI-O and containerd can call `bulkhead` in its place.
This page is made from the doc comments in `runtime/src/cli`.

Exit codes: 0 done; 1 failed, with one message on standard error (and in the file of `--log`) that says step, object and
cause, and a hint where there is something to do. `run` exits as the container's process did (128 + N for signal N);
`exec` likewise, and with 255 when the runtime itself failed.

Flags of a command may come before or after the id. Only those of `exec` end at the id: what follows is the process's.
";

fn render() -> String {
    let mut root = super::Cli::command();
    root.build();
    let mut text = OPENING.to_owned();
    section(&mut text, "Global flags", "Given before the command.", "bulkhead [FLAGS] COMMAND …", &root);
    for command in root.get_subcommands().filter(|command| !command.is_hide_set()) {
        let about =
            command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default();
        let usage = command.clone().render_usage().to_string();
        let usage = usage.trim_start_matches("Usage: ");
        section(&mut text, &format!("bulkhead {}", command.get_name()), &format!("{about}."), usage, command);
    }
    text
}

fn section(text: &mut String, title: &str, about: &str, usage: &str, command: &Command) {
    let _ = write!(text, "\n## {title}\n\n{about}\n\n```\n{usage}\n```\n");
    let arguments: Vec<&Arg> = command
        .get_arguments()
        .filter(|argument| !argument.is_hide_set() && argument.get_id() != "help")
        .collect();
    if !arguments.is_empty() {
        text.push_str("\n| flag or argument | meaning |\n|---|---|\n");
    }
    for argument in arguments {
        let help =
            argument.get_long_help().or(argument.get_help()).map(ToString::to_string).unwrap_or_default();
        let defaults: Vec<_> =
            argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        let takes_value = argument.get_action().takes_values();
        let default = match defaults.as_slice() {
            [value] if takes_value => format!(" Default: `{value}`."),
            _ => String::new(),
        };
        let help = help.replace('\n', " ").replace('|', "\\|");
        let _ = writeln!(text, "| `{}` | {help}.{default} |", name(argument));
    }
}

fn name(argument: &Arg) -> String {
    let value = argument.get_value_names().map(|names| names.join(" ")).unwrap_or_default();
    if argument.is_positional() {
        return value;
    }
    let long = argument.get_long().map(|long| format!("--{long}"));
    let short = argument.get_short().map(|short| format!("-{short}"));
    let flags = [short, long].into_iter().flatten().collect::<Vec<_>>().join(", ");
    if argument.get_action().takes_values() { format!("{flags} {value}") } else { flags }
}

#[test]
fn the_manual_says_what_the_commands_say() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli.md");
    let text = render();
    if std::env::var_os("BULKHEAD_WRITE_DOCS").is_some() {
        fs::write(&page, &text).unwrap();
    }
    let there = fs::read_to_string(&page).unwrap_or_default();
    assert!(
        there == text,
        "docs/cli.md is out of date: BULKHEAD_WRITE_DOCS=1 cargo test -p bulkhead-runtime manual"
    );
}
