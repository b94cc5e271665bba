//! What a service is, in words: its mode, and how many of its tasks run.

use shoal_proto::v1::service_mode::Mode;
use shoal_proto::v1::{Service, ServiceCounts, ServiceSpec};

fn mode(spec: &ServiceSpec) -> Option<&Mode> {
    spec.mode.as_ref().and_then(|mode| mode.mode.as_ref())
}

pub(super) fn word(spec: &ServiceSpec) -> &'static str {
    match mode(spec) {
        Some(Mode::Replicated(_)) | None => "replicated",
        Some(Mode::Global(_)) => "global",
        Some(Mode::ReplicatedJob(_)) => "replicated job",
        Some(Mode::GlobalJob(_)) => "global job",
    }
}

/// The mode, or when it runs: `cron */5 * * * *`.
pub(super) fn describe(spec: &ServiceSpec) -> String {
    match &spec.schedule {
        None => word(spec).to_owned(),
        Some(schedule) => {
            let suspended = if schedule.suspended { " (suspended)" } else { "" };
            format!("cron {}{suspended}", schedule.cron)
        }
    }
}

/// `2/3`, in Docker's words: `1/1 (4/5 completed)` for jobs, `3/3 (max 1 per node)`.
pub(super) fn replicas(service: &Service, counts: &ServiceCounts) -> String {
    let spec = service.spec.clone().unwrap_or_default();
    let running = format!("{}/{}", counts.running, counts.desired);
    match mode(&spec) {
        Some(Mode::ReplicatedJob(_) | Mode::GlobalJob(_)) => {
            format!("{running} ({}/{} completed)", counts.completed, counts.completions)
        }
        Some(Mode::Replicated(_) | Mode::Global(_)) | None => {
            let placement = spec.task.unwrap_or_default().placement.unwrap_or_default();
            match placement.max_replicas_per_node {
                0 => running,
                most => format!("{running} (max {most} per node)"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use shoal_proto::v1::{ReplicatedJobMode, Schedule, ServiceMode};

    use super::*;

    #[test]
    fn jobs_show_how_far_they_are() {
        let mode =
            Mode::ReplicatedJob(ReplicatedJobMode { max_concurrent: 1, total_completions: 5 });
        let mut spec =
            ServiceSpec { mode: Some(ServiceMode { mode: Some(mode) }), ..ServiceSpec::default() };
        assert_eq!(describe(&spec), "replicated job");
        let cron = "*/5 * * * *".to_owned();
        spec.schedule = Some(Schedule { cron, ..Schedule::default() });
        assert_eq!(describe(&spec), "cron */5 * * * *");
        let service = Service { spec: Some(spec), ..Service::default() };
        let counts = ServiceCounts {
            running: 1,
            desired: 1,
            completed: 4,
            completions: 5,
            ..ServiceCounts::default()
        };
        assert_eq!(replicas(&service, &counts), "1/1 (4/5 completed)");
        assert_eq!(replicas(&Service::default(), &ServiceCounts::default()), "0/0");
    }
}
