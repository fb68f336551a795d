//! The job scheduler. PostgreSQL is the truth: which slot was taken, which run is under way, how it
//! ended. tokio-cron-scheduler is the clock, which says "look what is due" and nothing more.

mod cleanup;
mod clockwork;
mod health;
mod model;
mod plan;
mod scheduler;
mod slot;
mod store;
mod supervise;

pub use model::{Job, JobContext, JobError, JobReport, RunFn, RunOutcome, RunStatus, Trigger};
pub use scheduler::{JobScheduler, Run};
