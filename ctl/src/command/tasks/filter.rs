//! Which tasks a listing shows.

use shoal_proto::v1::{Health, Task, TaskState};

use super::name_of;
use crate::command::filter::{Filter, pass};
use crate::progress;

const KEYS: [&str; 6] = ["name", "id", "node", "desired-state", "state", "health"];

const STATES: [TaskState; 13] = [
    TaskState::New,
    TaskState::Pending,
    TaskState::Assigned,
    TaskState::Accepted,
    TaskState::Preparing,
    TaskState::Ready,
    TaskState::Starting,
    TaskState::Running,
    TaskState::Complete,
    TaskState::Shutdown,
    TaskState::Failed,
    TaskState::Rejected,
    TaskState::Orphaned,
];

/// What managers want of tasks; Docker knows running, shutdown and accepted.
const DESIRED: [TaskState; 5] = [
    TaskState::Running,
    TaskState::Shutdown,
    TaskState::Accepted,
    TaskState::Ready,
    TaskState::Remove,
];

const HEALTH: [Health; 4] = [Health::None, Health::Starting, Health::Healthy, Health::Unhealthy];

fn health_word(health: Health) -> String {
    match health {
        Health::None => "none".to_owned(),
        known => known.to_string(),
    }
}

/// # Errors
/// A key that is unknown, or a state that there is not.
pub(super) fn parse(text: &str) -> Result<Filter, String> {
    let filter = Filter::parse(text, &KEYS)?;
    let words: Vec<String> = match filter.key {
        "desired-state" => DESIRED.iter().map(ToString::to_string).collect(),
        "state" => STATES.iter().map(ToString::to_string).collect(),
        "health" => HEALTH.into_iter().map(health_word).collect(),
        _ => return Ok(filter),
    };
    match words.contains(&filter.value) {
        true => Ok(filter),
        false => {
            let Filter { key, value } = filter;
            Err(format!("{key}: {value:?} is unknown; there are {}", words.join(", ")))
        }
    }
}

/// `node`: the name of its node.
pub(super) fn matches(filters: &[Filter], task: &Task, node: &str) -> bool {
    pass(filters, |Filter { key, value }| match *key {
        "name" => name_of(task).starts_with(value.as_str()),
        "id" => task.id.starts_with(value.as_str()),
        "node" => node == value || (!value.is_empty() && task.node_id.starts_with(value.as_str())),
        "desired-state" => task.desired_state().to_string() == *value,
        "state" => progress::state(task).to_string() == *value,
        _ => {
            let health = task.status.as_ref().map_or(Health::None, |status| status.health());
            health_word(health) == *value
        }
    })
}

#[cfg(test)]
mod tests {
    use shoal_proto::v1::TaskStatus;

    use super::*;

    fn task() -> Task {
        let mut status = TaskStatus::default();
        status.set_state(TaskState::Running);
        status.set_health(Health::Healthy);
        Task {
            id: "abc".to_owned(),
            service_name: "shop_web".to_owned(),
            slot: 2,
            node_id: "n1".to_owned(),
            desired_state: TaskState::Shutdown.into(),
            status: Some(status),
            ..Task::default()
        }
    }

    fn shows(filters: &[&str]) -> bool {
        let filters: Vec<Filter> = filters.iter().map(|text| parse(text).unwrap()).collect();
        matches(&filters, &task(), "w1")
    }

    #[test]
    fn each_key_looks_at_its_field() {
        for text in [
            "name=shop_w",
            "name=shop_web.2",
            "id=ab",
            "node=w1",
            "node=n1",
            "desired-state=shutdown",
            "state=running",
            "health=healthy",
        ] {
            assert!(shows(&[text]), "{text}");
        }
        for text in [
            "name=web",
            "id=b",
            "node=w",
            "node=",
            "desired-state=running",
            "state=failed",
            "health=none",
        ] {
            assert!(!shows(&[text]), "{text}");
        }
        assert!(shows(&[]) && shows(&["state=failed", "state=running"]));
        assert!(!shows(&["state=running", "node=w2"]));
    }

    #[test]
    fn what_is_unknown_is_refused_with_what_is_known() {
        for (text, known) in [
            ("service=web", "desired-state"),
            ("desired-state=up", "shutdown"),
            ("state=up", "preparing"),
            ("health=ill", "unhealthy"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(known), "{error}");
        }
    }
}
