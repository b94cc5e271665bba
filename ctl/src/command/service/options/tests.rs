//! What options make of a spec.

use clap::Parser;
use shoal_proto::v1::{
    ContainerSpec, GlobalMode, ReplicatedMode, Resources, RestartCondition, RestartPolicy,
    ServiceMode, TaskSpec,
};

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    options: Options,
}

fn service(mode: Mode) -> ServiceSpec {
    ServiceSpec {
        mode: Some(ServiceMode { mode: Some(mode) }),
        task: Some(TaskSpec {
            container: Some(ContainerSpec::default()),
            limits: Some(Resources::default()),
            reservations: Some(Resources::default()),
            restart: Some(RestartPolicy::default()),
            ..TaskSpec::default()
        }),
        ..ServiceSpec::default()
    }
}

fn replicated() -> ServiceSpec {
    service(Mode::Replicated(ReplicatedMode { replicas: 1 }))
}

fn apply(spec: &mut ServiceSpec, words: &str) -> anyhow::Result<()> {
    let line = Line::try_parse_from(std::iter::once("ctl").chain(words.split_whitespace()))?;
    line.options.apply(spec, &Networks::from([("front".to_owned(), "id1".to_owned())]))
}

#[test]
fn without_options_nothing_changes() {
    let mut spec = replicated();
    apply(&mut spec, "").unwrap();
    assert_eq!(spec, replicated());
}

#[test]
fn only_what_is_given_changes() {
    let mut spec = replicated();
    apply(&mut spec, "--replicas 3 -e A=1 -e B=2 --limit-memory 64m -p 8080:80").unwrap();
    apply(&mut spec, "--env-add A=3 --restart-condition on-failure -p 9090:80 -p 53:53/udp")
        .unwrap();
    apply(&mut spec, "--update-order start-first --network front --cap-drop ALL").unwrap();
    let task = spec.task.clone().unwrap();
    let container = task.container.unwrap();
    assert_eq!(container.env, ["A=3", "B=2"]);
    assert_eq!(container.cap_drop, ["ALL"]);
    assert_eq!(task.limits.unwrap().memory_bytes, 64 << 20);
    assert_eq!(task.restart.unwrap().condition(), RestartCondition::OnFailure);
    assert_eq!(task.networks[0].network_id, "id1");
    assert_eq!(task.placement, None);
    let ports: Vec<u32> = spec.ports.iter().map(|port| port.published_port).collect();
    assert_eq!(ports, [9090, 53]);
    assert_eq!(spec.mode.unwrap().mode, Some(Mode::Replicated(ReplicatedMode { replicas: 3 })));
    assert!(spec.update.is_some() && spec.rollback.is_none());
}

#[test]
fn what_the_mode_has_no_use_for_is_refused() {
    let mut global = service(Mode::Global(GlobalMode {}));
    assert!(apply(&mut global, "--replicas 3").is_err());
    assert!(apply(&mut replicated(), "--max-concurrent 3").is_err());
    assert!(apply(&mut replicated(), "--time-zone Europe/Berlin").is_err());
}
