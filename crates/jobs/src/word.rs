//! What replicas tell each other through PostgreSQL. Only what another cannot know by the schedule is
//! said: that a job was switched, run by hand, is to be tried again, or is to stop.

use std::sync::{Arc, atomic::Ordering};

use loom_core::id::RunId;
use loom_db::Signal;

use crate::scheduler::Inner;

/// On which it is said: `cancel:<run>`, or anything else for "read the plan again".
pub const CHANNEL: &str = "loom_jobs";

impl Inner {
    /// Begins to listen, if that was not done. Call it before the plan is read: what is said in
    /// between is in neither.
    pub(crate) fn listen(self: &Arc<Self>) {
        if self.listening.swap(true, Ordering::SeqCst) {
            return;
        }
        let mut words = self.hub.subscribe(CHANNEL);
        // Weak, or the task would keep alive what ends it.
        let (scheduler, stop) = (Arc::downgrade(self), self.stop.clone());
        let listening = async move {
            while let Some(signal) = words.next().await {
                let Some(scheduler) = scheduler.upgrade() else { return };
                scheduler.hear(&signal);
            }
        };
        tokio::spawn(stop.run_until_cancelled_owned(listening));
    }

    fn hear(self: &Arc<Self>, signal: &Signal) {
        if let Signal::Said(word) = signal
            && let Some(run) = word.strip_prefix("cancel:")
        {
            if let Ok(run) = run.parse::<RunId>() {
                self.cancel(run);
            }
            return;
        }
        let mut plan = self.plan();
        if *signal == Signal::ReadAgain {
            self.heard.store(true, Ordering::SeqCst);
            plan.be_patient(self.clock.now() + self.lease / 2);
        }
        plan.expire();
        drop(plan);
        self.look_soon();
    }
}
