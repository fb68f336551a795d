//! The job scheduler. PostgreSQL is the truth: which slot was taken, which run is under way, how it
//! ended. tokio-cron-scheduler is the clock, which says "look what is due" and nothing more.

mod admin;
mod cleanup;
mod clockwork;
mod health;
mod http;
mod model;
mod plan;
mod retry;
mod scheduler;
mod slot;
mod store;
mod supervise;

pub use model::{
    Job, JobContext, JobError, JobReport, JobView, RunFn, RunOutcome, RunRecord, RunStatus, Trigger,
};
pub use scheduler::{JobScheduler, Run};
