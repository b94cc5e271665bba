//! Work that many ask for at the same time and that is done once.
//!
//! The work runs in a task of its own, so that it outlives the one who began it as long as others
//! wait. When nobody waits any more it is aborted.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::watch;
use tokio::task::AbortHandle;

/// Work under way, by what it makes. `P` is what can be seen of it meanwhile.
pub(crate) struct Flights<K, V, P> {
    open: Mutex<HashMap<K, Weak<Flight<V, P>>>>,
}

/// One piece of work, held by everyone who waits for it.
pub(crate) struct Flight<V, P> {
    pub(crate) progress: Arc<P>,
    result: watch::Receiver<Option<V>>,
    task: AbortHandle,
}

impl<V, P> Drop for Flight<V, P> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<V: Clone + Send + Sync + 'static, P> Flight<V, P> {
    /// The result; nothing when the work has panicked.
    pub(crate) async fn wait(&self) -> Option<V> {
        let mut result = self.result.clone();
        let result = result.wait_for(Option::is_some).await.ok()?;
        result.clone()
    }
}

impl<K: Eq + Hash, V: Send + Sync + 'static, P: Default> Flights<K, V, P> {
    pub(crate) fn new() -> Self {
        Self { open: Mutex::new(HashMap::new()) }
    }

    /// Joins the work for a key, or begins it. Returns whether it was begun here. Work that has
    /// ended is not joined: what it made may be gone.
    pub(crate) fn join<F>(
        &self,
        key: K,
        begin: impl FnOnce(Arc<P>) -> F,
    ) -> (Arc<Flight<V, P>>, bool)
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, flight| flight.strong_count() > 0);
        if let Some(flight) = open.get(&key).and_then(Weak::upgrade)
            && flight.result.borrow().is_none()
            && !flight.task.is_finished()
        {
            return (flight, false);
        }
        let progress = Arc::new(P::default());
        let (sender, result) = watch::channel(None);
        let work = begin(Arc::clone(&progress));
        let task = tokio::spawn(async move {
            sender.send_replace(Some(work.await));
        });
        let flight = Arc::new(Flight { progress, result, task: task.abort_handle() });
        open.insert(key, Arc::downgrade(&flight));
        (flight, true)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn fifty_wait_and_one_works() {
        let flights = Flights::<u8, usize, ()>::new();
        let runs = Arc::new(AtomicUsize::new(0));
        let begin = || {
            let runs = Arc::clone(&runs);
            move |_| async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                runs.fetch_add(1, Ordering::SeqCst) + 1
            }
        };
        let waiters: Vec<_> = (0..50).map(|_| flights.join(7, begin()).0).collect();
        for waiter in waiters {
            assert_eq!(waiter.wait().await, Some(1));
        }
        assert!(flights.join(7, begin()).1, "work that has ended is begun again");
    }

    #[tokio::test]
    async fn work_outlives_its_first_waiter_but_not_its_last() {
        let flights = Flights::<u8, (), ()>::new();
        let (alive, mut done) = tokio::sync::mpsc::channel::<()>(1);
        let work = |_| async move {
            let _alive = alive;
            std::future::pending().await
        };
        let (first, _) = flights.join(1, work);
        let (second, begun) = flights.join(1, |_| std::future::ready(()));
        assert!(!begun);
        drop(first);
        tokio::task::yield_now().await;
        assert!(done.try_recv() == Err(tokio::sync::mpsc::error::TryRecvError::Empty));
        drop(second);
        let ended = tokio::time::timeout(Duration::from_secs(5), done.recv()).await;
        assert_eq!(ended, Ok(None));
    }

    #[tokio::test]
    async fn a_panic_ends_the_wait() {
        let flights = Flights::<u8, (), ()>::new();
        let (flight, _) = flights.join(1, |_| async { panic!("on purpose") });
        assert_eq!(flight.wait().await, None);
    }
}
