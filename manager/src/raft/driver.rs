//! The thread of a member: gives it ticks and commands, and waits for a disk that is full.

use std::mem;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::member::{Command, Member, Stuck};
use super::waiting::answer;
use super::{ProposeError, Pulse};

/// Commands taken in before the log is written, so that a flood can't starve it.
const MAX_BATCH: usize = 4096;
/// Between two tries to write a log that could not be written.
const RETRY: Duration = Duration::from_millis(500);

pub(super) enum Order {
    Do(Command),
    Shutdown { reply: oneshot::Sender<()> },
}

pub(super) struct Driver {
    tick: Duration,
    /// Before the inbox: whoever waits for a command that was not taken any more finds the log
    /// closed.
    member: Member,
    inbox: Receiver<Order>,
    pulse: Pulse,
    stopping: Vec<oneshot::Sender<()>>,
}

impl Driver {
    pub(super) fn new(
        tick: Duration,
        member: Member,
        inbox: Receiver<Order>,
        pulse: Pulse,
    ) -> Self {
        Self { tick, member, inbox, pulse, stopping: Vec::new() }
    }

    /// Works until it is told to stop, nobody is left to tell it, or the log fails for good.
    pub(super) fn run(mut self) {
        self.serve();
        self.member.wait_for_snapshot();
        let stopping = mem::take(&mut self.stopping);
        // Closes the log: its lock is free when the answer comes.
        drop(self);
        for done in stopping {
            // The caller may have gone; the thread ends all the same.
            let _ = done.send(());
        }
    }

    fn serve(&mut self) {
        let mut next_tick = Instant::now() + self.tick;
        while self.stopping.is_empty() {
            let wait = next_tick.saturating_duration_since(Instant::now());
            match self.inbox.recv_timeout(wait) {
                Ok(order) => {
                    self.take(order);
                    for _ in 0..MAX_BATCH {
                        let Ok(order) = self.inbox.try_recv() else { break };
                        self.take(order);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if Instant::now() >= next_tick {
                self.member.tick();
                next_tick = Instant::now() + self.tick;
            }
            loop {
                match self.member.settle() {
                    Ok(()) => {
                        self.pulse.beat();
                        break;
                    }
                    Err(Stuck::Disk(error)) => {
                        tracing::error!(%error, "the raft log can't be written; trying again");
                        if !self.wait_for_retry(&ProposeError::Storage(error.to_string())) {
                            return;
                        }
                    }
                    Err(Stuck::Broken(error)) => {
                        // End this manager rather than acknowledge what may be lost.
                        tracing::error!(%error, "raft stops");
                        return;
                    }
                }
            }
        }
        self.member.refuse_all(&ProposeError::Stopped);
    }

    fn take(&mut self, order: Order) {
        match order {
            Order::Do(command) => self.member.take(command),
            Order::Shutdown { reply } => self.stopping.push(reply),
        }
    }

    /// Refuses what comes in while the log can't be written; false when raft is to stop.
    fn wait_for_retry(&mut self, refusal: &ProposeError) -> bool {
        let until = Instant::now() + RETRY;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.inbox.recv_timeout(left) {
                Ok(Order::Do(command)) => refuse(command, refusal),
                Ok(Order::Shutdown { reply }) => {
                    self.stopping.push(reply);
                    return false;
                }
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }
}

fn refuse(command: Command, refusal: &ProposeError) {
    match command {
        Command::Propose { reply, .. } => answer(reply, Err(refusal.clone())),
        Command::Read { reply } => answer(reply, Err(refusal.clone())),
        Command::ChangeMembers { reply, .. } => answer(reply, Err(refusal.clone())),
        Command::CaughtUp { reply } => answer(reply, Err(refusal.clone())),
        // Messages may be lost: the others try again.
        Command::Step { .. }
        | Command::SentSnapshot { .. }
        | Command::Unreachable { .. }
        | Command::Transfer { .. } => {}
    }
}
