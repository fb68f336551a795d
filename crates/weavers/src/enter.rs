//! Into a weaver: one command, or a terminal.

pub(crate) mod attach;
pub(crate) mod exec;
mod wire;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::StatusCode;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status as Ended;
use loom_core::{Error, Result};

use crate::{Weavers, model::Row, store};

/// Commands and terminals of one server at the same time.
const MOST: usize = 200;
/// Of them, those of one person or service, and those that have not said yet whose they are.
const MOST_OF_ONE: usize = 50;
/// Until the cluster has opened it.
const OPENING: Duration = Duration::from_secs(15);
/// Of a command, all words together.
const COMMAND: usize = 64 * 1024;
const WORDS: usize = 256;
/// How often what is open gives a sign of life: far more often than the shortest idle timeout.
const SIGN: Duration = Duration::from_secs(20);

/// How many each has that is inside, by the name of their credential's holder.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places(Arc<Mutex<HashMap<String, usize>>>);

/// A place; given back when dropped.
pub(crate) struct Place {
    places: Places,
    who: String,
}

impl Places {
    /// # Errors
    /// 429 when there are too many.
    fn take(&self, who: String) -> Result<Place> {
        let mut by = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_many = by.get(&who).is_some_and(|count| *count >= MOST_OF_ONE);
        if is_many || by.values().sum::<usize>() >= MOST {
            return Err(Error::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_sessions",
                if is_many {
                    "you have too many commands and terminals on this server; end one"
                } else {
                    "too many commands and terminals run on this server; try again later"
                },
            )
            .retry_after(Duration::from_secs(10)));
        }
        *by.entry(who.clone()).or_default() += 1;
        Ok(Place { places: self.clone(), who })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by.get_mut(&self.who) {
            *count -= 1;
            if *count == 0 {
                by.remove(&self.who);
            }
        }
    }
}

/// # Errors
/// 409 when there is nothing to enter.
fn require_running(row: &Row) -> Result<()> {
    if row.started_at.is_some() && row.exited_at.is_none() && row.ending.is_none() {
        return Ok(());
    }
    Err(Error::new(
        StatusCode::CONFLICT,
        "weaver_not_running",
        format!("the weaver is {}; only one that runs can be entered", row.status.as_str()),
    ))
}

/// # Errors
/// 422 for what is no command.
fn require_command(command: &[String]) -> Result<()> {
    let bytes: usize = command.iter().map(String::len).sum();
    if command.first().is_none_or(String::is_empty) {
        return Err(Error::invalid("command", "is a list: a program, and its arguments"));
    }
    if command.len() > WORDS || bytes > COMMAND {
        let text = format!("has at most {WORDS} words and {COMMAND} bytes");
        return Err(Error::invalid("command", text));
    }
    if command.iter().any(|word| word.contains('\0')) {
        return Err(Error::invalid("command", "holds no NUL character"));
    }
    Ok(())
}

/// What the cluster says of the end of a process.
enum Outcome {
    Exited(i32),
    /// It could not be started.
    Refused(String),
    /// Nothing was heard: that is no success.
    Unknown,
}

/// Only what the status says counts: that a stream ended says nothing of the process.
fn outcome(ended: Option<Ended>) -> Outcome {
    let Some(ended) = ended else { return Outcome::Unknown };
    if ended.status.as_deref() == Some("Success") {
        return Outcome::Exited(0);
    }
    let causes = ended.details.as_ref().and_then(|details| details.causes.as_deref());
    let code = causes
        .unwrap_or_default()
        .iter()
        .find(|cause| cause.reason.as_deref() == Some("ExitCode"))
        .and_then(|cause| cause.message.as_deref()?.parse().ok());
    match (code, ended.message) {
        (Some(code), _) => Outcome::Exited(code),
        (None, Some(message)) => Outcome::Refused(message),
        (None, None) => Outcome::Unknown,
    }
}

/// Opening took too long, or was refused.
fn not_opened(error: Option<kube::Error>) -> Error {
    match error {
        Some(kube::Error::Api(status)) if matches!(status.code, 400 | 404) => Error::new(
            StatusCode::CONFLICT,
            "weaver_not_running",
            format!("the weaver cannot be entered: {}", status.message),
        ),
        Some(error) => crate::cluster::failed(error),
        None => Error::new(
            StatusCode::BAD_GATEWAY,
            "kubernetes_error",
            "the cluster has not opened it in time; try again",
        ),
    }
}

/// A sign of life; nobody is stopped by one that is not written down.
async fn mark(weavers: &Weavers, row: &Row) {
    let marked: Result<()> = async {
        let mut db = weavers.deps.pool.acquire().await?;
        store::list::touch(&mut db, row.org_id, row.id, weavers.deps.clock.now()).await
    }
    .await;
    if let Err(error) = marked {
        tracing::debug!(%error, weaver = %row.id, "a sign of life is not written down");
    }
}
