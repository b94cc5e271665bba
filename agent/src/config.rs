//! What an agent is told: flags, and a file for what the flags leave open.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Parser;
use serde::Deserialize;
use shoal_manager::keys::UnlockKey;
use shoal_proto::duration;
use shoal_proto::v1::GenericResource;

use crate::generic;

/// Read when it is there and no other file is named.
const DEFAULT_FILE: &str = "/etc/shoal/agent.toml";
/// Where the state of the usual agent is.
const DEFAULT_DATA_DIR: &str = "/var/lib/shoal";
const DEFAULT_RUN_DIR: &str = "/run/shoal";
const DEFAULT_LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 2377);
const CERTS_DIR: &str = "/etc/shoal/certs.d";

/// The daemon of a Shoal node. Without flags it is a complete cluster of one node.
///
/// It must run as root. Talk to it with `ctl`, through the socket in its run folder. When it is
/// stopped, containers go on; when it is started again, it takes them over.
#[derive(Debug, Parser)]
#[command(name = "agent", version, max_term_width = 100)]
pub(crate) struct Arguments {
    /// Folder for what must survive a reboot: cluster state, images, volumes, logs
    /// [default: /var/lib/shoal]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// Folder for what must not: sockets and the state of running containers; shoal.sock is in it
    /// [default: /run/shoal]
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,

    /// Name of this node in the cluster [default: the host's name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// Address and port to listen on for other nodes [default: 0.0.0.0:2377, or a free port when
    /// another agent of this machine has that one]
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,

    /// Address that other nodes reach this one at [default: the one that packets leave from]
    #[arg(long, value_name = "ADDR[:PORT]")]
    advertise: Option<String>,

    /// Become a node of the cluster whose managers listen there; only at the first start
    #[arg(long, value_name = "ADDR:PORT,…", value_delimiter = ',')]
    join: Vec<String>,

    /// What "ctl cluster join-token" has given out on a manager
    #[arg(long, value_name = "TOKEN", env = "SHOAL_TOKEN", hide_env_values = true)]
    token: Option<String>,

    /// Begin a cluster with what a backup holds ("ctl cluster backup"); only at the first start
    #[arg(long, value_name = "FILE", conflicts_with = "join")]
    restore: Option<PathBuf>,

    /// What a locked manager is unlocked with, or a backup that was made while autolock was on
    #[arg(long, value_name = "KEY", env = "SHOAL_UNLOCK_KEY", hide_env_values = true)]
    unlock_key: Option<String>,

    /// Go on as the only manager when the others are lost for good; the cluster's state stays. Give
    /// it at one start, on one manager
    #[arg(long)]
    force_new_cluster: bool,

    /// Certificate of an authority of your own to begin a cluster with; only at the first start
    #[arg(long, value_name = "FILE", requires = "ca_key", conflicts_with_all = ["join", "restore"])]
    ca_cert: Option<PathBuf>,

    /// Its key
    #[arg(long, value_name = "FILE", requires = "ca_cert")]
    ca_key: Option<PathBuf>,

    /// How long managers wait for a leader before they elect one; give all managers of a wide network
    /// the same, longer time [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    election_timeout: Option<Duration>,

    /// Group whose members may use the socket, besides root [default: shoal, where it exists]
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,

    /// Run containers in user namespaces, as dockerd's option of that name: default, FIRST:COUNT, or
    /// a user whose subordinate ids are taken; --userns host leaves a container out
    #[arg(long, value_name = "IDS")]
    userns_remap: Option<String>,

    /// What this node has that services can reserve: how many, as in gpu=2, or one that has a name,
    /// as in gpu=UUID-1; give it once for each
    #[arg(long = "generic-resource", value_name = "NAME=VALUE")]
    generic_resources: Vec<String>,

    /// Label of this node's that constraints can name, as in engine.labels.disk==ssd; give it once for
    /// each
    #[arg(long = "label", value_name = "NAME=VALUE")]
    labels: Vec<String>,

    /// What to log: error, warn, info, debug, trace, or a filter such as info,shoal_network=debug
    /// [default: info]
    #[arg(long, value_name = "LEVEL")]
    log: Option<String>,

    /// File of settings, in TOML, with the flags' names as keys; flags go before it
    /// [default: /etc/shoal/agent.toml, where it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct File {
    data_dir: Option<PathBuf>,
    run_dir: Option<PathBuf>,
    name: Option<String>,
    listen: Option<SocketAddr>,
    advertise: Option<String>,
    #[serde(default)]
    join: Vec<String>,
    token: Option<String>,
    election_timeout: Option<String>,
    group: Option<String>,
    userns_remap: Option<String>,
    #[serde(default)]
    generic_resources: Vec<String>,
    #[serde(default)]
    labels: Vec<String>,
    log: Option<String>,
    certs_dir: Option<PathBuf>,
    #[serde(default)]
    registries: BTreeMap<String, Registry>,
}

/// How one registry is reached.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Registry {
    /// A file of PEM certificates to trust for it.
    pub(crate) ca: Option<PathBuf>,
    /// Plain HTTP.
    #[serde(default)]
    pub(crate) http: bool,
}

/// All settings, with the defaults filled in.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) data_dir: PathBuf,
    pub(crate) run_dir: PathBuf,
    pub(crate) name: Option<String>,
    pub(crate) listen: SocketAddr,
    /// Another port will do.
    pub(crate) listen_is_default: bool,
    pub(crate) advertise: Option<String>,
    /// Managers to join, with a token.
    pub(crate) join: Option<(Vec<String>, String)>,
    /// A backup to begin with.
    pub(crate) restore: Option<PathBuf>,
    pub(crate) unlock_key: Option<UnlockKey>,
    pub(crate) force_new_cluster: bool,
    /// Certificate and key of the operator's own root.
    pub(crate) root: Option<(PathBuf, PathBuf)>,
    pub(crate) election_timeout: Option<Duration>,
    pub(crate) group: Option<String>,
    pub(crate) userns_remap: Option<String>,
    pub(crate) generic_resources: Vec<GenericResource>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) log: String,
    pub(crate) certs_dir: PathBuf,
    pub(crate) registries: BTreeMap<String, Registry>,
}

impl Arguments {
    pub(crate) fn resolve(self) -> anyhow::Result<Config> {
        let file = match &self.config {
            Some(path) => read(path)?,
            None if Path::new(DEFAULT_FILE).exists() => read(Path::new(DEFAULT_FILE))?,
            None => File::default(),
        };
        let listen = self.listen.or(file.listen);
        let addresses = if self.join.is_empty() { file.join } else { self.join };
        let token = self.token.or(file.token);
        let generic_resources = match self.generic_resources.is_empty() {
            true => file.generic_resources,
            false => self.generic_resources,
        };
        let labels = if self.labels.is_empty() { file.labels } else { self.labels };
        let data_dir = self.data_dir.or(file.data_dir);
        let run_dir = self.run_dir.or(file.run_dir);
        Ok(Config {
            data_dir: absolute(data_dir.unwrap_or_else(|| DEFAULT_DATA_DIR.into()))?,
            run_dir: absolute(run_dir.unwrap_or_else(|| DEFAULT_RUN_DIR.into()))?,
            name: self.name.or(file.name),
            listen: listen.unwrap_or(DEFAULT_LISTEN),
            listen_is_default: listen.is_none(),
            advertise: self.advertise.or(file.advertise),
            join: join(addresses, token)?,
            restore: self.restore,
            unlock_key: self.unlock_key.map(|key| key.parse()).transpose()?,
            force_new_cluster: self.force_new_cluster,
            root: self.ca_cert.zip(self.ca_key),
            election_timeout: election_timeout(self.election_timeout, file.election_timeout)?,
            group: self.group.or(file.group),
            userns_remap: self.userns_remap.or(file.userns_remap),
            generic_resources: generic::parse(&generic_resources)?,
            labels: labels.iter().map(|label| label_of(label)).collect::<anyhow::Result<_>>()?,
            log: self.log.or(file.log).unwrap_or_else(|| "info".to_owned()),
            certs_dir: file.certs_dir.unwrap_or_else(|| CERTS_DIR.into()),
            registries: file.registries,
        })
    }
}

fn label_of(text: &str) -> anyhow::Result<(String, String)> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => {
            bail!("{text:?} is not a label; write it as name=value, with a name that is not empty")
        }
    }
}

fn election_timeout(
    flag: Option<Duration>,
    file: Option<String>,
) -> anyhow::Result<Option<Duration>> {
    let written = file.map(|text| duration::parse(&text)).transpose();
    let timeout = flag.or(written.context("election-timeout")?);
    match timeout.filter(|timeout| *timeout < Duration::from_millis(200)) {
        Some(timeout) => {
            bail!("an election timeout of {timeout:?} is too short; the least is 200ms")
        }
        None => Ok(timeout),
    }
}

/// Addresses without a port have the usual one.
fn join(
    addresses: Vec<String>,
    token: Option<String>,
) -> anyhow::Result<Option<(Vec<String>, String)>> {
    if addresses.is_empty() {
        return Ok(None);
    }
    let token = token.context("join needs a token; get it with \"ctl cluster join-token\"")?;
    let port = DEFAULT_LISTEN.port();
    let with_port = |address: String| match address.parse::<std::net::IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, port).to_string(),
        Err(_) if address.contains(':') => address,
        Err(_) => format!("{address}:{port}"),
    };
    Ok(Some((addresses.into_iter().map(with_port).collect(), token)))
}

fn read(path: &Path) -> anyhow::Result<File> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("can't read the settings {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("the settings {} are wrong", path.display()))
}

fn absolute(path: PathBuf) -> anyhow::Result<PathBuf> {
    std::path::absolute(&path).with_context(|| format!("no such folder: {}", path.display()))
}

impl Config {
    /// Tells this agent's traces on the host from another one's: empty for the usual one.
    pub(crate) fn instance(&self) -> String {
        use std::hash::{DefaultHasher, Hash, Hasher};
        if self.data_dir == Path::new(DEFAULT_DATA_DIR) {
            return String::new();
        }
        let mut hasher = DefaultHasher::new();
        self.data_dir.hash(&mut hasher);
        format!("{:016x}", hasher.finish())[..6].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generic_resources_are_the_flags_else_the_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.toml");
        std::fs::write(&path, "generic-resources = [\"gpu=2\", \"ssd=disk-a\"]\n").unwrap();
        let kinds = |flags: &[&str]| {
            let mut words = vec!["agent", "--config", path.to_str().unwrap()];
            words.extend(flags);
            let config = Arguments::try_parse_from(words).unwrap().resolve().unwrap();
            let kinds = config.generic_resources.into_iter().map(|resource| resource.kind);
            kinds.collect::<Vec<_>>()
        };
        assert_eq!(kinds(&[]), ["gpu", "ssd"]);
        let flags = ["--generic-resource", "fpga=1", "--generic-resource", "gpu=4"];
        assert_eq!(kinds(&flags), ["fpga", "gpu"]);
    }

    #[test]
    fn labels_are_the_flags_else_the_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.toml");
        std::fs::write(&path, "labels = [\"disk=ssd\", \"rack=r1=a\"]\n").unwrap();
        let labels = |flags: &[&str]| {
            let mut words = vec!["agent", "--config", path.to_str().unwrap()];
            words.extend(flags);
            let config = Arguments::try_parse_from(words).unwrap().resolve();
            config.map(|config| Vec::from_iter(config.labels)).map_err(|error| error.to_string())
        };
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(labels(&[]), Ok(vec![pair("disk", "ssd"), pair("rack", "r1=a")]));
        let flags = ["--label", "zone=eu", "--label", "empty="];
        assert_eq!(labels(&flags), Ok(vec![pair("empty", ""), pair("zone", "eu")]));
        for wrong in ["zone", "=eu"] {
            assert!(labels(&["--label", wrong]).unwrap_err().contains(wrong));
        }
    }
}
