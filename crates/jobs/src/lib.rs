//! The job scheduler: PostgreSQL is the truth, tokio-cron-scheduler the clock.
