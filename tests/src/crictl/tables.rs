//! What `crictl ps` and `crictl pods` print: columns of 20 characters, or as wide as their text and three more.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::host::cri_api as api;

const WIDTH: usize = 20;
const GAP: usize = 3;
/// Characters of an id that are shown.
const ID: usize = 13;

/// Lists containers, those that run unless all are asked for, the newest first.
pub(super) fn containers(mut all: Vec<api::Container>, pods: &[api::PodSandbox], ended: bool, quiet: bool) {
    let running = api::ContainerState::CONTAINER_RUNNING.into();
    all.retain(|container| ended || container.state == running);
    all.sort_by_key(|container| -container.created_at);
    let pod = |container: &api::Container| {
        let pod = pods.iter().find(|pod| pod.id == container.pod_sandbox_id);
        pod.map_or_else(|| "unknown".to_owned(), |pod| pod.metadata.name.clone())
    };
    let head = ["CONTAINER", "IMAGE", "CREATED", "STATE", "NAME", "ATTEMPT", "POD ID", "POD"];
    print(
        quiet,
        head,
        all.iter().map(|container| {
            let state = match container.state.enum_value_or_default() {
                api::ContainerState::CONTAINER_CREATED => "Created",
                api::ContainerState::CONTAINER_RUNNING => "Running",
                api::ContainerState::CONTAINER_EXITED => "Exited",
                api::ContainerState::CONTAINER_UNKNOWN => "Unknown",
            };
            let row = [
                short(&container.id),
                container.image.image.clone(),
                ago(container.created_at),
                state.to_owned(),
                container.metadata.name.clone(),
                container.metadata.attempt.to_string(),
                short(&container.pod_sandbox_id),
                pod(container),
            ];
            (container.id.as_str(), row)
        }),
    );
}

/// Lists pods, the newest first.
pub(super) fn pods(mut all: Vec<api::PodSandbox>, quiet: bool) {
    all.sort_by_key(|pod| -pod.created_at);
    let head = ["POD ID", "CREATED", "STATE", "NAME", "NAMESPACE", "ATTEMPT", "RUNTIME"];
    print(
        quiet,
        head,
        all.iter().map(|pod| {
            let state = match pod.state.enum_value_or_default() {
                api::PodSandboxState::SANDBOX_READY => "Ready",
                api::PodSandboxState::SANDBOX_NOTREADY => "NotReady",
            };
            let runtime = if pod.runtime_handler.is_empty() { "(default)" } else { &pod.runtime_handler };
            let row = [
                short(&pod.id),
                ago(pod.created_at),
                state.to_owned(),
                pod.metadata.name.clone(),
                pod.metadata.namespace.clone(),
                pod.metadata.attempt.to_string(),
                runtime.to_owned(),
            ];
            (pod.id.as_str(), row)
        }),
    );
}

fn print<'a, const COLUMNS: usize>(
    quiet: bool,
    head: [&str; COLUMNS],
    rows: impl Iterator<Item = (&'a str, [String; COLUMNS])>,
) {
    if quiet {
        rows.for_each(|(id, _)| println!("{id}"));
        return;
    }
    let head = head.map(str::to_owned);
    let rows: Vec<_> = [head].into_iter().chain(rows.map(|(_, row)| row)).collect();
    lines(&rows).iter().for_each(|line| println!("{line}"));
}

/// The last column has no width.
fn lines<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> Vec<String> {
    let width = |column: usize| rows.iter().map(|row| row[column].len() + GAP).max().unwrap_or(0).max(WIDTH);
    let padded = |row: &[String; COLUMNS]| {
        let cell = |column: usize| {
            let width = if column + 1 == COLUMNS { 0 } else { width(column) };
            format!("{:width$}", row[column])
        };
        (0..COLUMNS).map(cell).collect()
    };
    rows.iter().map(padded).collect()
}

fn short(id: &str) -> String {
    id.get(..ID).unwrap_or(id).to_owned()
}

/// In the largest unit, of a time in nanoseconds since 1970.
fn ago(created: i64) -> String {
    let created = UNIX_EPOCH + Duration::from_nanos(created.unsigned_abs());
    let seconds = SystemTime::now().duration_since(created).unwrap_or_default().as_secs();
    match seconds {
        0 => "Less than a second ago".to_owned(),
        1 => "1 second ago".to_owned(),
        2..60 => format!("{seconds} seconds ago"),
        60..120 => "About a minute ago".to_owned(),
        120..3600 => format!("{} minutes ago", seconds / 60),
        _ => format!("{} hours ago", seconds / 3600),
    }
}

#[cfg(test)]
mod tests;
