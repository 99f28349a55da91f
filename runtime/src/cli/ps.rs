//! `bulkhead ps`: the processes of a container, as the guest sees them.

use bulkhead_protocol::sandbox::{Process, ProcessesRequest};

use super::{
    Context,
    list::{Format, columns},
    print, print_json, with_container,
};
use crate::{
    api::{client::bounded, container::refused},
    error::Error,
};

/// Ticks of `utime` and `stime` in a second.
const USER_HZ: u64 = 100;

/// List the processes of a container; pids are the guest's
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "table", value_enum)]
    format: Format,
    /// Name of the container
    #[arg(value_name = "ID")]
    id: String,
    /// Accepted for callers that pass options of ps(1)
    #[arg(value_name = "PS OPTIONS", trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Result<u8, Error> {
        if !self.options.is_empty() {
            context.log.debug("ps options are not used: the columns are fixed");
        }
        with_container(context, &self.id, "list processes of", |container| {
            let request = ProcessesRequest { container_id: self.id.clone(), ..Default::default() };
            let asked = container.call(async |server| server.sandbox.processes(bounded(), &request).await);
            let processes = asked.map_err(refused)?.processes;
            match self.format {
                Format::Json => print_json(&processes.iter().map(|process| process.pid).collect::<Vec<_>>())?,
                Format::Table => print(&table(&processes))?,
            }
            Ok(0)
        })
    }
}

fn table(processes: &[Process]) -> String {
    let head = ["UID", "PID", "PPID", "S", "RSS", "TIME", "CMD"].map(str::to_owned);
    let rows = processes.iter().map(|process| {
        let seconds = process.cpu_ticks / USER_HZ;
        [
            process.uid.to_string(),
            process.pid.to_string(),
            process.ppid.to_string(),
            process.state.clone(),
            format!("{}K", process.rss_bytes / 1024),
            format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60),
            process.command.clone(),
        ]
    });
    columns(&[head].into_iter().chain(rows).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests;
