//! `ctl cluster`.

mod backup;
mod ca;

use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand, ValueEnum};
use shoal_proto::time::{proto_duration, std_duration};
use shoal_proto::v1::{
    ClusterSpec, GetClusterRequest, GetJoinTokenRequest, GetUnlockKeyRequest, NodeRole,
    UnlockRequest, UpdateClusterRequest,
};
use shoal_proto::{ProtoDuration, duration};

use crate::client::Client;
use crate::output;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show what a host is started with to become a node of this cluster
    JoinToken(JoinToken),
    /// Show the cluster's settings and its root certificate, as JSON
    Inspect,
    /// Change the cluster's settings
    Update(Update),
    /// Show the cluster's root certificate, or replace it
    Ca(ca::Ca),
    /// Give a manager that was locked its key
    Unlock(Unlock),
    /// Show the key that locked managers are unlocked with
    UnlockKey(UnlockKey),
    /// Write everything that the managers keep into a file; "agent --restore FILE" begins with it
    Backup(backup::Backup),
}

#[derive(Debug, Args)]
pub(crate) struct JoinToken {
    /// As what the host is to join
    #[arg(value_enum, default_value = "worker")]
    role: Role,
    /// Make a new token first: the old one is worth nothing from then on; nodes that have joined
    /// with it stay
    #[arg(long)]
    rotate: bool,
    /// Print the token alone
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Role {
    Worker,
    Manager,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Update {
    /// Whether managers that are stopped need the unlock key to start again
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "true|false")]
    autolock: Option<bool>,
    /// How long a node may be silent before it is down and its tasks are made anew elsewhere
    #[arg(long, value_name = "TIME", value_parser = time)]
    node_down_after: Option<ProtoDuration>,
    /// How long certificates of nodes are good for; each is renewed long before
    #[arg(long, value_name = "TIME", value_parser = time)]
    cert_expiry: Option<ProtoDuration>,
    /// How long a node that no manager reaches goes on with tasks of services that ask for fencing
    #[arg(long, value_name = "TIME", value_parser = time)]
    fencing_lease: Option<ProtoDuration>,
    /// Whether tasks are moved to nodes that come or return, so that services are spread evenly
    #[arg(long, value_name = "on|off", value_parser = clap::builder::BoolishValueParser::new())]
    rebalance: Option<bool>,
    /// The least time between two tasks that are moved
    #[arg(long, value_name = "TIME", value_parser = time)]
    rebalance_interval: Option<ProtoDuration>,
}

#[derive(Debug, Args)]
pub(crate) struct Unlock {
    /// The key; read from the standard input when it is not given
    #[arg(env = "SHOAL_UNLOCK_KEY", hide_env_values = true)]
    key: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct UnlockKey {
    /// Make a new key first: managers that are down need the old one until they have started again
    #[arg(long)]
    rotate: bool,
    /// Print the key alone
    #[arg(short, long)]
    quiet: bool,
}

fn time(text: &str) -> Result<ProtoDuration, duration::DurationError> {
    duration::parse(text).map(proto_duration)
}

pub(super) async fn run(client: &mut Client, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::JoinToken(command) => join_token(client, command).await?,
        Command::Inspect => {
            let cluster = client.control.get_cluster(GetClusterRequest {}).await?.into_inner();
            output::json(&[cluster])?;
        }
        Command::Update(command) => update(client, command).await?,
        Command::Ca(command) => ca::run(client, command).await?,
        Command::Unlock(Unlock { key }) => {
            let key = match key {
                Some(key) => key,
                None => std::io::read_to_string(std::io::stdin())?,
            };
            client.lock.unlock(UnlockRequest { key: key.trim().to_owned() }).await?;
        }
        Command::UnlockKey(command) => unlock_key(client, command).await?,
        Command::Backup(command) => backup::run(client, &command).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn join_token(client: &mut Client, command: JoinToken) -> anyhow::Result<()> {
    let JoinToken { role, rotate, quiet } = command;
    let role = match role {
        Role::Worker => NodeRole::Worker,
        Role::Manager => NodeRole::Manager,
    };
    let request = GetJoinTokenRequest { rotate, role: role.into() };
    let answer = client.control.get_join_token(request).await?.into_inner();
    if quiet {
        return output::line(answer.token);
    }
    output::line(format!("To make a host a {role} of this cluster, run on it, as root:"))?;
    output::line("")?;
    let addresses = answer.addresses.join(",");
    output::line(format!("    agent --join {addresses} --token {}", answer.token))?;
    output::line("")
}

async fn update(client: &mut Client, command: Update) -> anyhow::Result<()> {
    let request = UpdateClusterRequest {
        autolock: command.autolock,
        node_down_after: command.node_down_after,
        certificate_validity: command.cert_expiry,
        fencing_lease: command.fencing_lease,
        rebalance: command.rebalance,
        rebalance_interval: command.rebalance_interval,
    };
    let answer = client.control.update_cluster(request).await?.into_inner();
    show(&answer.spec.unwrap_or_default())?;
    match answer.unlock_key.as_str() {
        "" => Ok(()),
        key => tell_key(key),
    }
}

fn show(spec: &ClusterSpec) -> anyhow::Result<()> {
    let time = |time: &Option<ProtoDuration>| {
        format!("{:?}", std_duration(time.as_ref().unwrap_or(&ProtoDuration::default())))
    };
    output::line(format!("autolock: {}", spec.autolock))?;
    output::line(format!("node-down-after: {}", time(&spec.node_down_after)))?;
    output::line(format!("cert-expiry: {}", time(&spec.certificate_validity)))?;
    output::line(format!("fencing-lease: {}", time(&spec.fencing_lease)))?;
    output::line(format!("rebalance: {}", if spec.rebalance { "on" } else { "off" }))?;
    output::line(format!("rebalance-interval: {}", time(&spec.rebalance_interval)))
}

fn tell_key(key: &str) -> anyhow::Result<()> {
    output::line("")?;
    output::line(
        "A manager that is stopped is locked from now on. After its next start, run on it:",
    )?;
    output::line("")?;
    output::line("    ctl cluster unlock")?;
    output::line("")?;
    output::line("and give it this key, which you should keep in a safe place:")?;
    output::line("")?;
    output::line(format!("    {key}"))?;
    output::line("")
}

async fn unlock_key(client: &mut Client, command: UnlockKey) -> anyhow::Result<()> {
    let request = GetUnlockKeyRequest { rotate: command.rotate };
    let key = client.control.get_unlock_key(request).await?.into_inner().key;
    match (key.as_str(), command.quiet) {
        ("", _) => bail!("autolock is off: no key is needed"),
        (key, true) => output::line(key),
        (key, false) => tell_key(key),
    }
}
