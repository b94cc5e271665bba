//! What one task says of itself.

use shoal_proto::v1::{RestartCondition, Task, TaskState};

pub(crate) fn state(task: &Task) -> TaskState {
    task.status.as_ref().map_or(TaskState::New, |status| status.state())
}

/// The managers want it to run, now or when its time comes.
pub(super) fn is_wanted(task: &Task) -> bool {
    task.desired_state() <= TaskState::Running
}

pub(super) fn is_live(task: &Task) -> bool {
    !state(task).is_terminal()
}

/// Why the task ended although it should run; none when it did not. A node that was lost is not
/// the task's fault.
pub(super) fn setback(task: &Task) -> Option<String> {
    if task.desired_state() == TaskState::Remove {
        return None;
    }
    let status = task.status.as_ref()?;
    let policy = task.spec.as_ref().and_then(|spec| spec.restart).unwrap_or_default();
    match status.state() {
        TaskState::Failed | TaskState::Rejected if !status.error.is_empty() => {
            Some(status.error.clone())
        }
        TaskState::Failed | TaskState::Rejected => Some(match status.exit_code {
            Some(code) => format!("exit code {code}"),
            None => status.state().to_string(),
        }),
        TaskState::Complete if policy.condition() == RestartCondition::Any => Some(
            "ended with exit code 0 and would be started again for ever; for a program that ends \
             set deploy.restart_policy.condition to on-failure or none"
                .to_owned(),
        ),
        _ => None,
    }
}

/// What it does or waits for.
pub(super) fn reason(task: &Task) -> String {
    let status = task.status.clone().unwrap_or_default();
    let texts = [&task.waiting_for, &status.error, &status.message];
    match texts.into_iter().find(|text| !text.is_empty()) {
        Some(text) => text.clone(),
        None => status.state().to_string(),
    }
}
