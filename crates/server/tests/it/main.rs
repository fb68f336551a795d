//! The whole server, through its public surface.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "these are tests"
)]

mod anonymous;
mod auth_admin;
mod auth_audit;
mod auth_cost;
mod auth_invitation_page;
mod auth_invitations;
mod auth_keys;
mod auth_limits;
mod auth_members;
mod auth_orgs;
mod auth_report;
mod backup;
mod browser;
mod cli;
mod cli_serve;
mod crash_chaos;
mod cron_chaos;
mod cron_exec;
mod dashboard;
mod dev_mode;
mod doctor;
mod document;
mod env_example;
mod health;
mod isolation;
mod jobs;
mod keepsakes;
mod kernel;
mod live;
mod llm;
mod log_events;
mod logs;
mod logs_exits;
mod logs_replicas;
mod manifests;
mod matrix;
mod metrics;
mod native;
mod openapi;
#[cfg(feature = "otlp")]
mod otlp;
mod replicas;
mod service_manager;
mod session_chaos;
mod settings_page;
mod sign_in;
mod thread_search;
mod thread_sync;
mod thread_whole;
mod upgrade;
