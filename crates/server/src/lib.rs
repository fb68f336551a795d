//! The Loom server: wiring, configuration, command line. No SQL and no feature logic lives here.

mod accept;
pub mod app;
mod backup;
pub mod cli;
mod client_address;
pub mod commands;
pub mod config;
mod console;
mod cron_exec;
mod demo_data;
mod doctor;
pub mod health;
mod layers;
mod live;
pub mod logging;
mod meta;
pub mod otlp;
mod process;
mod service_manager;
mod trace;
mod unread;

pub use meta::metrics;
