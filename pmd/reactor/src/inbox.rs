//! The queue of closures that other threads send to a poller; waking the poller is the sender's business (`handle`).

use crate::sources::Sources;
use crossbeam::queue::SegQueue;
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// A closure for the thread that owns the sources.
pub(crate) type Job = Box<dyn FnOnce(&mut Sources) + Send>;

/// Jobs in the order they were posted. Once closed, a job is dropped instead of kept, so that whoever waits for its answer
/// (a channel that the job owns the other end of) learns that none will come.
pub(crate) struct Inbox {
    jobs: SegQueue<Job>,
    closed: AtomicBool,
}

impl Inbox {
    pub(crate) fn new() -> Self {
        Self { jobs: SegQueue::new(), closed: AtomicBool::new(false) }
    }

    /// Any thread.
    pub(crate) fn post(&self, job: Job) {
        self.jobs.push(job);
        // Against `close`: either its last look finds this job, or this look finds it closed.
        fence(Ordering::SeqCst);
        if self.closed.load(Ordering::Relaxed) {
            self.discard();
        }
    }

    /// The oldest job. Poller only. Two loads of an empty inbox.
    #[inline]
    pub(crate) fn take(&self) -> Option<Job> {
        if self.jobs.is_empty() { None } else { self.jobs.pop() }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// The poller ends: nobody takes jobs any more.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.discard();
    }

    fn discard(&self) {
        while let Some(job) = self.jobs.pop() {
            drop(job);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// A job that only shows, by the count of its tokens, whether it still exists.
    fn job(token: &Arc<()>) -> Job {
        let token = Arc::clone(token);
        Box::new(move |_| drop(token))
    }

    #[test]
    fn inbox_closed_drops_what_it_holds() {
        let (inbox, token) = (Inbox::new(), Arc::new(()));
        inbox.post(job(&token));
        assert_eq!((Arc::strong_count(&token), inbox.is_empty()), (2, false));
        inbox.close();
        assert_eq!((Arc::strong_count(&token), inbox.is_empty()), (1, true));
    }

    #[test]
    fn inbox_posted_to_when_closed_drops_the_job() {
        let (inbox, token) = (Inbox::new(), Arc::new(()));
        inbox.close();
        inbox.post(job(&token));
        assert_eq!(Arc::strong_count(&token), 1);
        assert!(inbox.take().is_none());
    }

    #[test]
    fn inbox_closed_while_posted_to_keeps_no_job() {
        let (inbox, token) = (Inbox::new(), Arc::new(()));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| (0..1_000).for_each(|_| inbox.post(job(&token))));
            }
            while inbox.take().is_none() {
                std::hint::spin_loop();
            }
            inbox.close();
        });
        assert_eq!((Arc::strong_count(&token), inbox.is_empty()), (1, true));
    }
}
