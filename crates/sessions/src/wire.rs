//! The items `session` and `sessions` of Sentry's SDKs: read as leniently as SDKs write.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use loom_common_secret::SecretString;
use loom_core::{port::Delivery, text};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{
    session::{Class, Session, UPDATABLE, id_of},
    users,
};

/// Further ahead than this is no clock that is a little fast.
const AHEAD: TimeDelta = TimeDelta::hours(1);
const RELEASE_MAX: usize = 250;
const ENVIRONMENT_MAX: usize = 64;
const ID_MAX: usize = 200;
const USER_MAX: usize = 1000;
/// Minutes of one `sessions` item.
const BUCKETS: usize = 100;
/// What a day has more of than an application has sessions in a minute.
const MOST_IN_A_MINUTE: u64 = 1_000_000_000;
/// Longer than this is no duration.
const LONGEST: f64 = 10.0 * 365.0 * 86_400.0;
/// Where none is named.
pub(crate) const ENVIRONMENT: &str = "production";

/// Why it is not kept.
pub(crate) type Refused = String;

pub(crate) fn release(text: &str) -> Result<Arc<str>, Refused> {
    let text = text.trim();
    if text.is_empty() {
        return Err(
            "the release is missing: a session without one says nothing of a release".to_owned()
        );
    }
    if text.len() > RELEASE_MAX || text.chars().any(char::is_control) || matches!(text, "." | "..")
    {
        return Err(format!("the release is one line of 1 to {RELEASE_MAX} bytes"));
    }
    Ok(text.into())
}

pub(crate) fn environment(text: Option<&str>) -> Arc<str> {
    let text = text.unwrap_or_default().replace(char::is_control, " ");
    match text::cut(text.trim(), ENVIRONMENT_MAX).trim() {
        "" => ENVIRONMENT.into(),
        name => name.into(),
    }
}

/// A session's id as we keep it: its own when it is a UUID, else one made of it.
pub(crate) fn session_id(text: &str) -> Result<Uuid, Refused> {
    if text.is_empty() || text.len() > ID_MAX {
        return Err(format!("the session's id has 1 to {ID_MAX} bytes, best a UUID"));
    }
    match Uuid::try_parse(text) {
        Ok(id) if !id.is_nil() => Ok(id),
        Ok(_) => Err("the session's id is the nil UUID, which is nobody's".to_owned()),
        Err(_) => Ok(id_of(&[b"session", text.as_bytes()])),
    }
}

/// Who it was, if that was said.
pub(crate) fn user(salt: &SecretString, project: Uuid, distinct_id: &str) -> Option<i64> {
    let id = distinct_id.trim();
    if id.is_empty() || Uuid::try_parse(id).is_ok_and(|id| id.is_nil()) {
        return None;
    }
    Some(users::hash(salt, project, text::cut(id, USER_MAX)))
}

/// When it began, by our clock.
pub(crate) fn began(
    at: DateTime<Utc>,
    received_at: DateTime<Utc>,
) -> Result<DateTime<Utc>, Refused> {
    if at > received_at + AHEAD {
        return Err("the session begins in the future; is the clock right?".to_owned());
    }
    if at < received_at - UPDATABLE {
        return Err(
            "the session began more than 5 days ago, which is as long as one may be told of"
                .to_owned(),
        );
    }
    Ok(at.min(received_at))
}

/// The state that a word of an SDK tells of, and whether that is its last.
fn class(status: &str, errors: i32) -> (Class, bool) {
    let by_errors = if errors > 0 { Class::Errored } else { Class::Healthy };
    match status {
        "ok" | "init" | "started" => (by_errors, false),
        "exited" => (by_errors, true),
        "crashed" => (Class::Crashed, true),
        "abnormal" => (Class::Abnormal, true),
        "unhandled" => (Class::Unhandled, true),
        // An end that we do not know is hardly a good one.
        _ => (Class::Errored, true),
    }
}

fn time(value: &Value) -> Option<DateTime<Utc>> {
    match value {
        Value::String(text) => {
            let at = DateTime::parse_from_rfc3339(text).map(|at| at.with_timezone(&Utc)).ok();
            at.or_else(|| {
                let at =
                    chrono::NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f").ok()?;
                Some(at.and_utc())
            })
        }
        Value::Number(number) => {
            let secs = number.as_f64().filter(|secs| secs.abs() < 1e11)?;
            // Bounded right above.
            DateTime::from_timestamp_micros((secs * 1e6) as i64)
        }
        _ => None,
    }
}

fn word(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn count(value: Option<&Value>) -> u64 {
    match value {
        Some(Value::Number(number)) => number
            .as_u64()
            // -1 is no error; 1.0 is one.
            .unwrap_or_else(|| number.as_f64().unwrap_or_default().clamp(0.0, 1e9) as u64),
        Some(Value::Bool(true)) => 1,
        _ => 0,
    }
}

pub(crate) fn duration_ms(secs: f64) -> Option<i64> {
    // Bounded.
    (secs.is_finite() && (0.0..=LONGEST).contains(&secs)).then_some((secs * 1000.0).round() as i64)
}

fn object(payload: &Bytes) -> Result<Map<String, Value>, Refused> {
    match serde_json::from_slice(payload) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err("the payload is no JSON object".to_owned()),
        Err(error) => Err(format!("the payload is no JSON: {error}")),
    }
}

/// Release and environment.
fn attributes(object: &Map<String, Value>) -> Result<(Arc<str>, Arc<str>), Refused> {
    let attributes = object.get("attrs").and_then(Value::as_object);
    let get = |name: &str| word(attributes.and_then(|attributes| attributes.get(name)));
    Ok((release(&get("release").unwrap_or_default())?, environment(get("environment").as_deref())))
}

/// The payload of a `session` item. `weight`: what one that is kept stands for.
pub(crate) fn session(
    delivery: &Delivery,
    payload: &Bytes,
    salt: &SecretString,
    weight: f64,
) -> Result<Session, Refused> {
    let object = object(payload)?;
    let project = &delivery.project;
    let (release, environment) = attributes(&object)?;
    let sid = match word(object.get("sid")) {
        Some(text) if !text.is_empty() => session_id(&text)?,
        // Without an id it is one by itself; sent again it is the same.
        _ => id_of(&[b"payload", payload]),
    };
    let claimed = object.get("started").and_then(time);
    let started = match claimed {
        Some(at) => began(delivery.by_our_clock(at), delivery.received_at)?,
        None if object.contains_key("started") => {
            return Err("`started` is no time; it is one of RFC 3339".to_owned());
        }
        None => delivery.received_at,
    };
    let errors = i32::try_from(count(object.get("errors"))).unwrap_or(i32::MAX);
    let status = word(object.get("status")).unwrap_or_else(|| "ok".to_owned());
    let (class, ended) = class(&status, errors);
    let told = object.get("duration").and_then(Value::as_f64);
    let by_times = || {
        let (from, to) = (claimed?, object.get("timestamp").and_then(time)?);
        ended.then(|| (to - from).as_seconds_f64())
    };
    Ok(Session {
        org: project.org,
        project: project.id,
        sid,
        started,
        guessed: claimed.is_none(),
        release,
        environment,
        class,
        ended,
        errors,
        duration_ms: told.or_else(by_times).and_then(duration_ms),
        user: word(object.get("did")).and_then(|did| user(salt, project.id.0, &did)),
        count: 1,
        weight,
        updated_at: delivery.received_at,
    })
}

/// The payload of a `sessions` item: counts by the minute, a session for each kind of end.
pub(crate) fn aggregates(
    delivery: &Delivery,
    payload: &Bytes,
    salt: &SecretString,
) -> Result<Vec<Session>, Refused> {
    let object = object(payload)?;
    let project = &delivery.project;
    let (release, environment) = attributes(&object)?;
    let buckets = object.get("aggregates").and_then(Value::as_array);
    let buckets = buckets.ok_or_else(|| "`aggregates` is missing".to_owned())?;
    if buckets.len() > BUCKETS {
        return Err(format!("there are more than {BUCKETS} aggregates in one item"));
    }
    let mut sessions = Vec::new();
    let mut wrong = None;
    for (index, bucket) in buckets.iter().enumerate() {
        let began = bucket
            .get("started")
            .and_then(time)
            .ok_or_else(|| "`started` of an aggregate is no time".to_owned())
            .and_then(|at| began(delivery.by_our_clock(at), delivery.received_at));
        let started = match began {
            Ok(started) => started,
            Err(reason) => {
                wrong = Some(reason);
                continue;
            }
        };
        let ends = [
            ("exited", Class::Healthy),
            ("errored", Class::Errored),
            ("unhandled", Class::Unhandled),
            ("abnormal", Class::Abnormal),
            ("crashed", Class::Crashed),
        ];
        for (name, class) in ends {
            let many = count(bucket.get(name)).min(MOST_IN_A_MINUTE);
            let many = i32::try_from(many).unwrap_or_default();
            if many == 0 {
                continue;
            }
            let received = delivery.received_at.timestamp_micros().to_be_bytes();
            sessions.push(Session {
                org: project.org,
                project: project.id,
                sid: id_of(&[
                    b"aggregate",
                    payload,
                    &received,
                    &index.to_be_bytes(),
                    name.as_bytes(),
                ]),
                started,
                guessed: false,
                release: Arc::clone(&release),
                environment: Arc::clone(&environment),
                class,
                ended: true,
                errors: 0,
                duration_ms: None,
                user: word(bucket.get("did")).and_then(|did| user(salt, project.id.0, &did)),
                count: many,
                weight: 1.0,
                updated_at: delivery.received_at,
            });
        }
    }
    match wrong {
        Some(reason) if sessions.is_empty() => Err(reason),
        _ => Ok(sessions),
    }
}
