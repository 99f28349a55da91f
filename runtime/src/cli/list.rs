//! `bulkhead list`: all containers of this root.

use super::{
    Context, print,
    state::{State, print_json},
};
use crate::{
    error::Error,
    sandbox::container::Container,
    store::{StateDir, StateError},
};

/// List containers
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "table", value_enum)]
    format: Format,
    /// Ids only
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    Table,
    Json,
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Result<u8, Error> {
        let ids = StateDir::list(&context.root)?;
        if self.quiet {
            print(&ids.iter().map(|id| format!("{id}\n")).collect::<String>())?;
            return Ok(0);
        }
        let mut states = Vec::new();
        for id in ids {
            let container = match Container::open(&context.root, &id) {
                Ok(container) => container,
                // Deleted since it was listed, or not complete yet: not a container to speak of.
                Err(StateError::Missing { .. } | StateError::Creating { .. }) => continue,
                Err(error) => {
                    context.log.warn(&format!("{id}: {}", crate::error::chain(&error)));
                    continue;
                }
            };
            match container.status() {
                Ok(status) => states.push(State::of(&container, status)),
                Err(error) => context.log.warn(&format!("{id}: {}", error.chain())),
            }
        }
        match self.format {
            Format::Json => print_json(&states)?,
            Format::Table => print(&table(&states))?,
        }
        Ok(0)
    }
}

fn table(states: &[State]) -> String {
    let head = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    let rows = states.iter().map(|state| {
        let bundle = state.bundle.display().to_string();
        [
            state.id.clone(),
            state.pid.to_string(),
            state.status.to_owned(),
            bundle,
            state.created.clone(),
            state.owner.clone(),
        ]
    });
    columns(&[head].into_iter().chain(rows).collect::<Vec<_>>())
}

/// Left-aligned columns, each as wide as its widest cell and three more. A cell is one line.
pub(super) fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let one_line = |cell: &String| cell.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    let rows: Vec<[String; N]> = rows.iter().map(|row| row.each_ref().map(one_line)).collect();
    let mut widths = [0; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let line: String = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}   ")).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests;
