//! What containers use, once or every second.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use shoal_proto::v1::{
    ContainerStatsEntry, ContainerStatsRequest, ContainerStatsResponse, ContainerSummary,
};
use shoal_runtime::{ContainerState, Runtime, Usage};
use tonic::Status;

use super::{ContainersApi, Events, show};
use crate::single::Singles;

const PERIOD: Duration = Duration::from_secs(1);

/// CPU time when it was last looked at.
type Seen = BTreeMap<String, (Instant, u64)>;

pub(super) fn stream(
    api: &ContainersApi,
    request: ContainerStatsRequest,
) -> Result<Events<ContainerStatsResponse>, Status> {
    let mut chosen = Vec::new();
    for name in &request.containers {
        chosen.push(api.target(name)?.id().to_owned());
    }
    let singles = api.singles.clone();
    Ok(Box::pin(async_stream::stream! {
        let mut seen = Seen::new();
        look(&singles, &chosen, &mut seen).await;
        loop {
            // A share of time needs two looks.
            tokio::time::sleep(PERIOD).await;
            let containers = look(&singles, &chosen, &mut seen).await;
            yield Ok(ContainerStatsResponse { containers });
            if !request.stream {
                return;
            }
        }
    }))
}

async fn look(singles: &Singles, chosen: &[String], seen: &mut Seen) -> Vec<ContainerStatsEntry> {
    let singles = singles.clone();
    let chosen = chosen.to_vec();
    let measured = tokio::task::spawn_blocking(move || {
        let runtime = &singles.node().runtime;
        let listed = show::list(&singles, !chosen.is_empty()).into_iter();
        let wanted = listed.filter(|one| chosen.is_empty() || chosen.contains(&one.id));
        wanted
            .map(|one| {
                let (usage, network) = (runtime.usage(&one.id), network(runtime, &one.id));
                (one, Instant::now(), usage, network)
            })
            .collect::<Vec<_>>()
    });
    let mut entries = Vec::new();
    for (container, at, usage, network) in measured.await.unwrap_or_default() {
        let before = seen.insert(container.id.clone(), (at, usage.cpu));
        let share = before.map_or(0.0, |(then, cpu)| {
            let wall = at.duration_since(then).as_nanos().max(1);
            usage.cpu.saturating_sub(cpu) as f64 * 100.0 / wall as f64
        });
        entries.push(entry(container, &usage, share, network));
    }
    entries
}

fn entry(
    container: ContainerSummary,
    usage: &Usage,
    cpu_percent: f64,
    (received_bytes, sent_bytes): (u64, u64),
) -> ContainerStatsEntry {
    ContainerStatsEntry {
        id: container.id,
        name: container.name,
        cpu_percent,
        memory_bytes: usage.memory,
        memory_limit_bytes: match usage.memory_limit {
            0 => host_memory(),
            limit => limit,
        },
        received_bytes,
        sent_bytes,
        read_bytes: usage.devices.iter().map(|device| device.read).sum(),
        written_bytes: usage.devices.iter().map(|device| device.written).sum(),
        pids: usage.pids,
    }
}

fn host_memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kilobytes = total.and_then(|total| total.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

/// Bytes received and sent by all interfaces but the loopback.
fn network(runtime: &Runtime, id: &str) -> (u64, u64) {
    let Ok(ContainerState::Running { pid, .. }) = runtime.state(id) else { return (0, 0) };
    let text = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    let interfaces = text.lines().filter_map(|line| line.split_once(':'));
    let mut sum = (0, 0);
    for (_, counts) in interfaces.filter(|(name, _)| name.trim() != "lo") {
        let fields: Vec<u64> =
            counts.split_whitespace().map(|text| text.parse().unwrap_or(0)).collect();
        sum.0 += fields.first().copied().unwrap_or(0);
        sum.1 += fields.get(8).copied().unwrap_or(0);
    }
    sum
}
