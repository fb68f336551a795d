//! The job scheduler. PostgreSQL is the truth: which slot was taken, which run is under way, how it
//! ended. tokio-cron-scheduler is the clock, which says "look what is due" and nothing more.

mod admin;
mod alert;
mod cleanup;
mod clockwork;
mod config;
pub mod health;
mod http;
mod lease;
mod model;
mod plan;
mod retry;
mod schedule;
mod scheduler;
mod store;
mod stream;
mod supervise;
mod word;

pub use config::Config;
pub use model::{
    Job, JobContext, JobError, JobReport, JobView, RunDay, RunFn, RunOutcome, RunRecord, RunStatus,
    Trigger,
};
pub use schedule::{CatchUp, Cron, Schedule};
pub use scheduler::{Deps, JobScheduler, Run};
pub use stream::RUNS_CHANNEL;
pub use word::CHANNEL;
