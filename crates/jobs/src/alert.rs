//! What the admins are told: once that a job keeps failing, and once that it is well again.

use chrono::{DateTime, SecondsFormat, Utc};
use loom_core::{Result, text};
use loom_notify::{Alert, Notify};
use sqlx::PgConnection;

/// This many failures in a row are more than bad luck.
pub(crate) const UNHEALTHY_FAILURES: i32 = 3;
/// Bytes of the error that are sent; the history has more.
const ERROR_LEN: usize = 1000;

/// What a run made of its job.
pub(crate) struct Turn<'a> {
    pub(crate) job: &'a str,
    pub(crate) name: &'a str,
    pub(crate) failures: i32,
    pub(crate) error: Option<&'a str>,
    /// Since when the admins know that it fails, before this run and after it.
    pub(crate) alerted_before: Option<DateTime<Utc>>,
    pub(crate) alerted_at: Option<DateTime<Utc>>,
}

impl Turn<'_> {
    /// Queues what is to be told, if anything, in the transaction that records it. True: it did.
    pub(crate) async fn tell(&self, notify: &Notify, db: &mut PgConnection) -> Result<bool> {
        let Some(alert) = self.alert() else { return Ok(false) };
        notify.alert(db, &alert).await?;
        Ok(true)
    }

    fn alert(&self) -> Option<Alert> {
        let Self { job, name, failures, .. } = self;
        let (kind, title, text) = match (self.alerted_before, self.alerted_at) {
            (None, Some(_)) => {
                let error = text::cut(self.error.unwrap_or("it did not say why"), ERROR_LEN);
                let text = format!(
                    "The background job {job} ({name}) has failed {failures} times in a row, most \
                     recently with:\n\n{error}\n\nYou will hear of it again when a run succeeds. \
                     Its history:\n"
                );
                ("job.failing", format!("Job {job} keeps failing"), text)
            }
            (Some(since), None) => {
                let since = since.to_rfc3339_opts(SecondsFormat::Secs, true);
                let text = format!(
                    "The background job {job} ({name}) has succeeded; it had kept failing, as you \
                     were told at {since}.\n"
                );
                ("job.recovered", format!("Job {job} is well again"), text)
            }
            _ => return None,
        };
        Some(Alert { kind, key: (*job).to_owned(), title, text, page: format!("/jobs?job={job}") })
    }
}
