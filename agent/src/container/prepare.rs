//! What every first container needs and no request has to say, done while the host still prepares that request.

use super::{cgroup::Cgroup, layout::Layout};
use crate::{say, warm};

/// Does it. What fails is said on the console alone: the request does it again, and answers why.
pub fn prepare(layout: &Layout) {
    if let Err(error) = layout.launcher.start_ahead() {
        say!("{}", error.chain());
    }
    if let Err(error) = Cgroup::make_parent(&layout.cgroups) {
        say!("{}", error.chain());
    }
    warm::map_own_code();
}
