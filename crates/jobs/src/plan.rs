//! What is due when, held in memory, so that an idle scheduler asks the database nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use chrono::{DateTime, Utc};

use crate::{scheduler::Known, store::JobRow};

/// The plan is read again this often, whatever happened: a word of another replica may be lost.
const RE_READ: Duration = Duration::from_secs(60);
/// After a failure of the database.
const QUIET: Duration = Duration::from_secs(5);

#[derive(Default)]
pub(crate) struct Plan {
    /// Of each job that is on.
    next: BTreeMap<&'static str, DateTime<Utc>>,
    /// The newest slot of each that is known to be taken.
    taken: BTreeMap<&'static str, DateTime<Utc>>,
    /// Jobs whose slot could not be taken; perhaps because the run before is still under way.
    postponed: BTreeSet<&'static str>,
    /// When the next attempts are due.
    retries: BTreeMap<&'static str, DateTime<Utc>>,
    /// None: is to be read.
    read_at: Option<DateTime<Utc>>,
    /// Counts how often it was to be read again, so that a reading under way knows that it is old.
    expired: u64,
    /// When the first lease of another replica's run may end.
    lease_ends: Option<DateTime<Utc>>,
    /// Until then no run is thought abandoned.
    patient_until: Option<DateTime<Utc>>,
    /// Nobody can tell us anything.
    cut_off: bool,
    quiet_until: Option<DateTime<Utc>>,
}

impl Plan {
    pub(crate) fn is_stale(&self, now: DateTime<Utc>) -> bool {
        // A clock that went back makes it stale too.
        self.read_at.is_none_or(|at| now >= at + RE_READ || now < at)
            || self.lease_ends.is_some_and(|at| now >= at)
    }

    /// Is there a reason to ask the database?
    pub(crate) fn wants_a_look(&self, now: DateTime<Utc>) -> bool {
        let quiet = self.quiet_until.is_some_and(|until| now < until && now + QUIET >= until);
        let mut due = self.next.values().chain(self.retries.values());
        !quiet && (self.is_stale(now) || due.any(|at| *at <= now))
    }

    /// To be read again at the next look. Whoever says so has had word from the database.
    pub(crate) fn expire(&mut self) {
        self.read_at = None;
        self.expired += 1;
        self.quiet_until = None;
    }

    /// How often it had expired; for [`Plan::read`].
    pub(crate) fn expired(&self) -> u64 {
        self.expired
    }

    pub(crate) fn failed(&mut self, now: DateTime<Utc>) {
        // What was to be done may be half done.
        self.read_at = None;
        self.quiet_until = Some(now + QUIET);
    }

    /// Takes over what the database knew when it had `expired` so often.
    pub(crate) fn read<'a>(
        &mut self,
        rows: &[JobRow],
        jobs: impl Iterator<Item = &'a Known>,
        now: DateTime<Utc>,
        expired: u64,
    ) {
        self.next.clear();
        self.retries.clear();
        for job in jobs {
            if let Some(row) = rows.iter().find(|row| row.id == job.id && row.enabled) {
                self.next.insert(job.id, job.next(row.last_slot, now));
                self.taken.insert(job.id, row.last_slot);
                self.retries.extend(row.retry_at.map(|at| (job.id, at)));
            }
        }
        self.read_at = (self.expired == expired).then_some(now);
        self.lease_ends = None;
        self.quiet_until = None;
    }

    /// A run of another replica is under way, and its lease may end then: to be looked at.
    pub(crate) fn watch(&mut self, at: DateTime<Utc>) {
        self.lease_ends = Some(self.lease_ends.map_or(at, |first| first.min(at)));
    }

    /// We were cut off from the database, and so may others have been: what they could not renew or
    /// record they do now.
    pub(crate) fn be_patient(&mut self, until: DateTime<Utc>) {
        self.patient_until = Some(until);
    }

    /// May a run whose lease has ended be thought abandoned? If not, it is looked at again. `cut_off`:
    /// nobody can tell us anything, and since when is unknown.
    pub(crate) fn may_abandon(
        &mut self,
        now: DateTime<Utc>,
        cut_off: bool,
        patience: Duration,
    ) -> bool {
        if cut_off && !self.cut_off {
            self.be_patient(now + patience);
        }
        self.cut_off = cut_off;
        let patient_until = self.patient_until.filter(|until| now < *until);
        if let Some(until) = patient_until {
            self.watch(until);
        }
        patient_until.is_none()
    }

    pub(crate) fn due(&self, now: DateTime<Utc>) -> Vec<&'static str> {
        self.next.iter().filter(|(_, at)| **at <= now).map(|(id, _)| *id).collect()
    }

    /// The slot to be taken now. None: none is due (any more).
    pub(crate) fn slot(&mut self, job: &Known, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let slot = job.next(*self.taken.get(job.id)?, now);
        if slot > now {
            self.next.insert(job.id, slot);
            return None;
        }
        Some(slot)
    }

    /// A slot was taken here. If there are more to be made up for, the next is due at once.
    pub(crate) fn took(&mut self, job: &Known, slot: DateTime<Utc>, now: DateTime<Utc>) {
        self.taken.insert(job.id, slot);
        self.next.insert(job.id, job.next(slot, now));
        self.retries.remove(job.id);
        self.postponed.remove(job.id);
    }

    /// A slot was taken elsewhere, or has to wait for the run or the attempt before.
    pub(crate) fn postpone(&mut self, job: &Known, now: DateTime<Utc>) {
        self.next.insert(job.id, job.slots.after(now));
        self.postponed.insert(job.id);
    }

    pub(crate) fn retry(&mut self, job: &'static str, at: DateTime<Utc>) {
        self.retries.insert(job, at);
    }

    /// The jobs whose next attempt is due; asked once, as what comes of it is read again anyhow.
    pub(crate) fn take_due_retries(&mut self, now: DateTime<Utc>) -> Vec<&'static str> {
        self.retries.extract_if(.., |_, at| *at <= now).map(|(id, _)| id).collect()
    }

    /// A run has ended: a slot that had to wait for it is due now. (If it was taken elsewhere, the
    /// database will say so.)
    pub(crate) fn ended(&mut self, job: &str, now: DateTime<Utc>) {
        if let Some(id) = self.postponed.take(job) {
            self.next.entry(id).and_modify(|at| *at = now);
        }
    }
}
