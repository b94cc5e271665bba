//! `ctl version` and `ctl info`.

use std::process::ExitCode;

use shoal_proto::ByteSize;
use shoal_proto::v1::{GenericResource, GetInfoRequest};

use super::Listing;
use crate::client::{self, Client, Freshness};
use crate::output::{self, Format};

pub(super) async fn version(host: &str) -> anyhow::Result<ExitCode> {
    output::line(format!("ctl:   {}", env!("CARGO_PKG_VERSION")))?;
    let mut client = client::connect(host, Freshness { stale: true }).await?;
    let info = client.control.get_info(GetInfoRequest {}).await?.into_inner();
    output::line(format!("agent: {}", info.version))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn info(client: &mut Client, listing: &Listing) -> anyhow::Result<ExitCode> {
    let info = client.control.get_info(GetInfoRequest {}).await?.into_inner();
    if listing.format == Format::Json {
        output::json(&info)?;
        return Ok(ExitCode::SUCCESS);
    }
    let host = info.description.unwrap_or_default();
    let resources = host.resources.unwrap_or_default();
    for (name, value) in [
        ("Cluster", info.cluster_id),
        (" Nodes", format!("{} ({} managers)", info.nodes, info.managers)),
        (" Stacks", info.stacks.to_string()),
        (" Services", info.services.to_string()),
        (" Tasks running", info.tasks_running.to_string()),
        (" Raft index", info.raft_index.to_string()),
        ("Node", info.node_name),
        (" ID", info.node_id),
        (" Agent", info.version),
        (" System", host.operating_system),
        (" Kernel", host.kernel_version),
        (" CPUs", (resources.nano_cpus / 1_000_000_000).to_string()),
        (" Memory", ByteSize(resources.memory_bytes.max(0) as u64).to_string()),
        (" Generic resources", declared(&host.generic_resources)),
        (" Cgroups", info.cgroups),
        (" Firewall", info.firewall),
        (" Data folder", info.data_dir),
        (" Listens on", info.listen_address),
        (" Advertises", info.advertise_address),
    ] {
        // Most nodes have no generic resources.
        if !value.is_empty() {
            output::line(format!("{name}: {value}"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// As the agent was told.
fn declared(resources: &[GenericResource]) -> String {
    let mut words = Vec::new();
    for GenericResource { kind, count, names } in resources {
        if names.is_empty() {
            words.push(format!("{kind}={count}"));
        }
        words.extend(names.iter().map(|name| format!("{kind}={name}")));
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generic_resources_are_shown_as_they_were_declared() {
        let resource = |kind: &str, count, names: &[&str]| GenericResource {
            kind: kind.to_owned(),
            count,
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        let resources = [resource("gpu", 2, &[]), resource("ssd", 0, &["disk-a", "disk-b"])];
        assert_eq!(declared(&resources), "gpu=2, ssd=disk-a, ssd=disk-b");
        assert_eq!(declared(&[]), "");
    }
}
