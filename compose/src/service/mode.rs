//! How many tasks a service has: `scale`, `deploy.mode` and what goes with it.

use shoal_proto::v1::service_mode::Mode;
use shoal_proto::v1::{GlobalJobMode, GlobalMode, ReplicatedJobMode, ReplicatedMode, ServiceMode};

use crate::diagnostic::{Log, Place};
use crate::section::{Section, whole};

/// `deploy.mode`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Replicated,
    Global,
    ReplicatedJob,
    GlobalJob,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Replicated, Self::Global, Self::ReplicatedJob, Self::GlobalJob];

    fn name(self) -> &'static str {
        match self {
            Self::Replicated => "replicated",
            Self::Global => "global",
            Self::ReplicatedJob => "replicated-job",
            Self::GlobalJob => "global-job",
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| {
            let all = "replicated, global, replicated-job or global-job";
            format!("{text:?} is no mode; want {all}")
        })
    }
}

/// A number and where it stands.
struct Number {
    path: String,
    place: Place,
    value: u64,
}

/// Takes the keys that say how many tasks there are, and looks whether they fit together.
/// `deploy.replicas` goes before `scale`.
pub(super) fn read(
    service: &mut Section<'_>,
    deploy: Option<&mut Section<'_>>,
    log: &mut Log<'_>,
) -> ServiceMode {
    let schedule = service.place_of("x-shoal-schedule");
    let usual = if schedule.is_some() { Kind::ReplicatedJob } else { Kind::Replicated };
    let mut replicas: Vec<Number> = number(service, "scale", log).into_iter().collect();
    let mut concurrent = None;
    let mut kind = Some(usual);
    if let Some(deploy) = deploy {
        if deploy.has("mode") {
            kind = deploy.parsed("mode", log, Kind::parse);
        }
        replicas.extend(number(deploy, "replicas", log));
        concurrent = number(deploy, "x-shoal-max-concurrent", log);
    }
    if let Some(kind) = kind {
        check(kind, &replicas, concurrent.as_ref(), log);
        if let (Some(place), Kind::Replicated | Kind::Global) = (schedule, kind) {
            let path = service.at("x-shoal-schedule");
            let rule = "only a job has a schedule; want mode replicated-job or global-job, not";
            log.error(place, format!("{path}: {rule} {}", kind.name()));
        }
    }
    let count = replicas.last().map_or(1, |replicas| replicas.value);
    let mode = match kind.unwrap_or(usual) {
        Kind::Replicated => Mode::Replicated(ReplicatedMode { replicas: count }),
        Kind::Global => Mode::Global(GlobalMode {}),
        Kind::ReplicatedJob => Mode::ReplicatedJob(ReplicatedJobMode {
            max_concurrent: concurrent.map_or(0, |concurrent| concurrent.value),
            total_completions: count,
        }),
        Kind::GlobalJob => Mode::GlobalJob(GlobalJobMode {}),
    };
    ServiceMode { mode: Some(mode) }
}

fn number(section: &mut Section<'_>, key: &str, log: &mut Log<'_>) -> Option<Number> {
    let (path, place) = (section.at(key), section.place_of(key));
    let value = section.parsed(key, log, whole::<u64>)?;
    Some(Number { path, place: place?, value })
}

fn check(kind: Kind, replicas: &[Number], concurrent: Option<&Number>, log: &mut Log<'_>) {
    let mut refuse = |number: &Number, rule: &str| {
        log.error(number.place, format!("{}: {rule}", number.path));
    };
    if let Kind::Global | Kind::GlobalJob = kind {
        let rule = format!("mode {} has one task on each node; leave it out", kind.name());
        replicas.iter().for_each(|number| refuse(number, &rule));
    }
    if let (Some(number), false) = (concurrent, kind == Kind::ReplicatedJob) {
        let rule = format!("only mode replicated-job has it, not {}", kind.name());
        refuse(number, &rule);
    }
}
