//! The job scheduler. PostgreSQL is the truth: which slot was taken, which run is under way, how it
//! ended. tokio-cron-scheduler is the clock, which says "look what is due" and nothing more.

mod admin;
mod cleanup;
mod clockwork;
pub mod health;
mod http;
mod model;
mod plan;
mod retry;
mod schedule;
mod scheduler;
mod store;
mod supervise;

pub use model::{
    Job, JobContext, JobError, JobReport, JobView, RunFn, RunOutcome, RunRecord, RunStatus, Trigger,
};
pub use schedule::{CatchUp, Schedule};
pub use scheduler::{JobScheduler, Run};
