//! Jobs with a schedule: whether a run is due, and whether it may begin.

use std::time::SystemTime;

use shoal_proto::time::{std_duration, system_time, timestamp};
use shoal_proto::v1::ConcurrencyPolicy;

use super::earliest;
use crate::context::Context;
use crate::revision;
use crate::schedule::Schedule;
use crate::store::Service;

/// What comes of the schedule now.
pub(super) enum Look {
    /// Nothing before that time.
    Wait(Option<SystemTime>),
    /// The service is another.
    Changed(Box<Service>),
}

pub(super) fn look(service: &Service, context: &Context<'_>) -> Look {
    let Some(spec) = &service.spec.schedule else { return Look::Wait(None) };
    // One that can't be read was refused when it came.
    let Ok(schedule) = Schedule::of(spec) else { return Look::Wait(None) };
    let mut new = service.clone();
    // What was due before it had this schedule is not made up for.
    let given = service.revisions.iter().rev().take_while(|revision| {
        revision.spec.as_ref().and_then(|spec| spec.schedule.as_ref()) == Some(spec)
    });
    let given = given.last().and_then(|revision| revision.created_at.as_ref()).map(system_time);
    let handled = service.job.due_at.as_ref().map(system_time);
    let from = handled.into_iter().chain(given).max().unwrap_or(context.now);
    let due = schedule.until(context.now).filter(|due| *due > from);
    if let Some(due) = due {
        new.job.due_at = Some(timestamp(due));
        begin(&mut new, due, context);
    }
    let next = schedule.after(context.now).filter(|_| !spec.suspended);
    new.job.next_at = next.map(timestamp);
    match new.job == service.job {
        true => Look::Wait(earliest(None, next)),
        false => Look::Changed(Box::new(new)),
    }
}

/// Begins the run that is due, or says why not.
fn begin(service: &mut Service, due: SystemTime, context: &Context<'_>) {
    let Some(spec) = service.spec.schedule.clone() else { return };
    let is_going = service.job.iteration > 0 && service.job.ended_at.is_none();
    let late = context.now.duration_since(due).unwrap_or_default();
    let deadline = spec.starting_deadline.as_ref().map(std_duration);
    let left_out = if spec.suspended {
        Some("the schedule is suspended".to_owned())
    } else if deadline.is_some_and(|deadline| late > deadline) {
        Some(format!("it was {} s late", late.as_secs()))
    } else if is_going && spec.concurrency() == ConcurrencyPolicy::Forbid {
        Some(format!("run {} still went on", service.job.iteration))
    } else {
        None
    };
    match left_out {
        None => revision::begin_run(service, context),
        Some(why) => service.job.message = format!("the run that was due last was left out: {why}"),
    }
}
