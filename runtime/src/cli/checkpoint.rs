//! `bulkhead checkpoint` and `restore`: commands of runc's that callers may try, refused in clear words.

use crate::error::Error;

/// Not supported: the processes of a microVM cannot be checkpointed from outside
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Whatever runc takes
    #[arg(value_name = "ARGUMENTS", trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

impl Args {
    pub(super) fn run(self, command: &str) -> Result<u8, Error> {
        let _ = self.arguments;
        let message = format!("{command} is not supported: CRIU cannot see the processes inside a microVM");
        Err(Error::Usage { message, hint: None })
    }
}
