//! A member of the raft group on a thread of its own: the log's library keeps the last block that it
//! read of a log by thread, and takes one log's for another's where several share one. Calls wait
//! for their answer, so that everything stays in one order.

use std::sync::mpsc::{Sender, channel, sync_channel};
use std::thread::JoinHandle;

use shoal_manager::raft::{Member, Outbox, Published, RaftConfig, RaftError, Random};

type Work = Box<dyn FnOnce(&mut Member) + Send>;

pub(super) struct MemberThread {
    work: Option<Sender<Work>>,
    thread: Option<JoinHandle<()>>,
}

impl MemberThread {
    pub(super) fn open(
        config: RaftConfig,
        outbox: Outbox,
        random: Random,
    ) -> Result<(Self, Published), RaftError> {
        let (work, inbox) = channel::<Work>();
        let (opened, answer) = sync_channel(1);
        let thread = std::thread::spawn(move || match Member::open(config, outbox, random) {
            Ok((mut member, published)) => {
                opened.send(Ok(published)).unwrap();
                for work in inbox {
                    work(&mut member);
                }
            }
            Err(error) => opened.send(Err(error)).unwrap(),
        });
        let published = answer.recv().unwrap()?;
        Ok((Self { work: Some(work), thread: Some(thread) }, published))
    }

    pub(super) fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Member) -> T + Send + 'static,
    ) -> T {
        let (done, answer) = sync_channel(1);
        // How long a snapshot takes to write decides nothing.
        let work: Work = Box::new(move |member| {
            let result = work(member);
            member.let_snapshot_finish();
            done.send(result).unwrap();
        });
        self.work.as_ref().unwrap().send(work).unwrap();
        answer.recv().expect("raft did not panic")
    }
}

impl Drop for MemberThread {
    fn drop(&mut self) {
        self.work = None;
        if let Some(thread) = self.thread.take() {
            // It has said itself why it panicked.
            let _ = thread.join();
        }
    }
}
