//! Monitored jobs with 90 days of runs.

use anyhow::Context as _;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{Demo, crashes::Project, rows, seconds, text};

const DAYS: i64 = 90;
const MINUTE: i64 = 60;
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

struct Monitor {
    slug: &'static str,
    name: &'static str,
    /// A cron expression in UTC, and the same as a period and where in it a run begins, in seconds.
    schedule: &'static str,
    period: i64,
    offset: i64,
    /// In seconds, most often.
    duration: f64,
    /// Of a thousand runs.
    failed: f64,
    missed: f64,
    project: Option<&'static str>,
    tags: &'static [&'static str],
    now: Now,
}

#[derive(Clone, Copy, PartialEq)]
enum Now {
    Well,
    Failing,
    Missed,
    Slow,
    Paused,
    Muted,
}

#[rustfmt::skip]
const MONITORS: [Monitor; 23] = [
    of("nightly-backup", "Nightly backup", "30 2 * * *", DAY, 2 * HOUR + 30 * MINUTE, 1480.0, 8.0, 4.0, None, &["database", "backup"], Now::Well),
    of("verify-backup", "Restore the backup and look", "0 5 * * *", DAY, 5 * HOUR, 2100.0, 25.0, 6.0, None, &["database", "backup"], Now::Failing),
    of("invoice-mails", "Send invoices", "*/15 * * * *", 15 * MINUTE, 0, 21.0, 2.0, 0.6, Some("billing-worker"), &["billing"], Now::Well),
    of("dunning", "Remind of overdue invoices", "10 7 * * *", DAY, 7 * HOUR + 10 * MINUTE, 310.0, 20.0, 4.0, Some("billing-worker"), &["billing"], Now::Well),
    of("statements", "Monthly statements", "0 1 1 * *", 30 * DAY, HOUR, 5400.0, 60.0, 0.0, Some("billing-worker"), &["billing"], Now::Well),
    of("bank-import", "Import bank statements", "5 */4 * * *", 4 * HOUR, 5 * MINUTE, 44.0, 14.0, 3.0, Some("billing-worker"), &["billing", "import"], Now::Failing),
    of("stock-sync", "Stock sync", "0 */1 * * *", HOUR, 0, 520.0, 6.0, 2.0, Some("stock-sync"), &["warehouse"], Now::Slow),
    of("stock-reconcile", "Reconcile counted stock", "40 22 * * *", DAY, 22 * HOUR + 40 * MINUTE, 1900.0, 12.0, 3.0, Some("stock-sync"), &["warehouse"], Now::Well),
    of("search-reindex", "Rebuild the search index", "20 3 * * *", DAY, 3 * HOUR + 20 * MINUTE, 2650.0, 15.0, 5.0, Some("search-service"), &["search"], Now::Well),
    of("search-synonyms", "Load synonyms", "25 */4 * * *", 4 * HOUR, 25 * MINUTE, 6.0, 5.0, 2.0, Some("search-service"), &["search"], Now::Well),
    of("sitemap", "Write the sitemap", "15 4 * * *", DAY, 4 * HOUR + 15 * MINUTE, 95.0, 6.0, 3.0, Some("shop-web"), &["web"], Now::Well),
    of("image-cleanup", "Remove images of nobody", "50 1 * * *", DAY, HOUR + 50 * MINUTE, 730.0, 8.0, 9.0, Some("shop-web"), &["web", "cleanup"], Now::Missed),
    of("cart-reminders", "Remind of carts", "35 */1 * * *", HOUR, 35 * MINUTE, 38.0, 4.0, 2.0, Some("checkout-api"), &["mail"], Now::Well),
    of("expire-orders", "Expire orders nobody pays", "5 */1 * * *", HOUR, 5 * MINUTE, 12.0, 3.0, 1.0, Some("checkout-api"), &["orders"], Now::Well),
    of("exchange-rates", "Fetch exchange rates", "0 6 * * *", DAY, 6 * HOUR, 4.0, 30.0, 8.0, Some("checkout-api"), &["import"], Now::Well),
    of("fraud-model", "Train the fraud model", "0 0 * * 0", 7 * DAY, 3 * DAY, 7300.0, 40.0, 0.0, Some("checkout-api"), &["ml"], Now::Muted),
    of("certificates", "Renew certificates", "30 0 * * *", DAY, 30 * MINUTE, 15.0, 4.0, 2.0, None, &["operations"], Now::Well),
    of("log-rotation", "Rotate logs", "55 23 * * *", DAY, 23 * HOUR + 55 * MINUTE, 7.0, 2.0, 2.0, None, &["operations"], Now::Well),
    of("vacuum", "Vacuum the large tables", "10 0 * * 3", 7 * DAY, 6 * DAY + 10 * MINUTE, 4100.0, 10.0, 0.0, None, &["database"], Now::Well),
    of("dependency-update", "Update dependencies by an agent", "0 8 * * 1", 7 * DAY, 4 * DAY + 8 * HOUR, 1320.0, 70.0, 10.0, None, &["agents"], Now::Well),
    of("review-queue", "Review by an agent", "45 */1 * * *", HOUR, 45 * MINUTE, 160.0, 9.0, 3.0, None, &["agents"], Now::Well),
    of("gdpr-export", "Answer requests for data", "0 9 * * *", DAY, 9 * HOUR, 240.0, 10.0, 2.0, Some("checkout-api"), &["privacy"], Now::Well),
    of("newsletter", "Newsletter", "0 10 * * 4", 7 * DAY, 10 * HOUR, 900.0, 15.0, 10.0, Some("shop-web"), &["mail"], Now::Paused),
];

#[expect(clippy::too_many_arguments, reason = "a line of a table")]
const fn of(
    slug: &'static str,
    name: &'static str,
    schedule: &'static str,
    period: i64,
    offset: i64,
    duration: f64,
    failed: f64,
    missed: f64,
    project: Option<&'static str>,
    tags: &'static [&'static str],
    now: Now,
) -> Monitor {
    Monitor { slug, name, schedule, period, offset, duration, failed, missed, project, tags, now }
}

pub(crate) async fn write(demo: &mut Demo, projects: &[Project]) -> anyhow::Result<()> {
    let admin = demo.team.admin()?.clone();
    let (mut checkins, mut incidents) = (Vec::new(), Vec::new());
    for monitor in MONITORS {
        let project = projects.iter().find(|project| Some(project.family.slug) == monitor.project);
        #[expect(clippy::cast_possible_truncation, reason = "hours")]
        let longest = (monitor.duration * 3.0 / 60.0).ceil() as i64;
        let new = json!({
            "slug": monitor.slug, "name": monitor.name, "project_id": project.map(|project| project.id),
            "schedule": {"type": "crontab", "expression": monitor.schedule}, "timezone": "UTC",
            "checkin_margin_minutes": if monitor.period >= DAY { 30 } else { 5 },
            "max_runtime_minutes": longest.max(2), "tags": monitor.tags,
            "muted_until": (monitor.now == Now::Muted).then(|| text(demo.now + TimeDelta::days(2))),
        });
        let made = demo.api.post(&admin.who, "/api/crons/monitors", &new).await?;
        let id: Uuid =
            made.get("id").and_then(Value::as_str).context("a monitor without an id")?.parse()?;
        // Nobody's mailbox is filled by jobs that there are not.
        let alerts = json!({"emails": [], "webhook_url": null, "issue": false});
        let path = format!("/api/crons/monitors/{}", monitor.slug);
        demo.api.put(&admin.who, &format!("{path}/alerts"), &alerts).await?;
        if monitor.now == Now::Paused {
            demo.api.post(&admin.who, &format!("{path}/pause"), &json!({})).await?;
        }
        let state = history(demo, &monitor, id, &mut checkins, &mut incidents);
        sqlx::query("UPDATE cron_monitors SET created_at = $2 WHERE id = $1")
            .bind(id)
            .bind(demo.days_ago(90.5))
            .execute(&demo.pool)
            .await?;
        sqlx::query(
            "UPDATE cron_environments SET health = $2, last_checkin_id = $3, last_checkin_at = $4, last_status = $5,
                    judged_at = $4, failures = $6, successes = $7, incident_id = $8
              WHERE monitor_id = $1",
        )
        .bind(id)
        .bind(state.health)
        .bind(state.id)
        .bind(state.at)
        .bind(state.status)
        .bind(i32::from(state.incident.is_some()))
        .bind(i32::from(state.incident.is_none()))
        .bind(state.incident)
        .execute(&demo.pool)
        .await?;
    }
    rows::insert(&demo.pool, "cron_checkins", &checkins).await?;
    rows::insert(&demo.pool, "cron_incidents", &incidents).await
}

/// What is known of it at the end.
struct State {
    health: &'static str,
    status: &'static str,
    id: Uuid,
    at: DateTime<Utc>,
    incident: Option<Uuid>,
}

fn history(
    demo: &mut Demo,
    monitor: &Monitor,
    id: Uuid,
    checkins: &mut Vec<Value>,
    incidents: &mut Vec<Value>,
) -> State {
    let end = demo.now.timestamp();
    let first = (end - DAYS * DAY) / monitor.period * monitor.period + monitor.offset;
    let mut state =
        State { health: "unknown", status: "unknown", id, at: demo.now, incident: None };
    let mut open: Option<(Uuid, Value)> = None;
    let runs = (end - first) / monitor.period;
    for n in 0..=runs {
        let expected = DateTime::from_timestamp(first + n * monitor.period, 0).unwrap_or(demo.now);
        let left = runs - n;
        let mut duration = demo.chance.skewed(monitor.duration, 0.16);
        // A run that is due by now, and done.
        if expected + seconds(duration * 2.0) + TimeDelta::minutes(1) > demo.now {
            break;
        }
        let chance = demo.chance.part() * 1000.0;
        let last_ones = if monitor.period < HOUR { 9 } else { 2 };
        let status = match monitor.now {
            Now::Failing if left <= last_ones => "error",
            Now::Missed if left <= 1 => "missed",
            Now::Slow if left <= 1 => "timeout",
            _ if chance < monitor.failed => "error",
            _ if chance < monitor.failed + monitor.missed => "missed",
            _ if chance < monitor.failed + monitor.missed + monitor.failed * 0.2 => "timeout",
            _ => "ok",
        };
        // Some begin later than they should.
        let late = if demo.chance.holds(0.04) {
            demo.chance.between(40.0, 240.0)
        } else {
            demo.chance.between(0.3, 4.0)
        };
        let began = if status == "missed" { expected } else { expected + seconds(late) };
        if status == "timeout" {
            duration = monitor.duration * 3.2;
        }
        let ended = began + seconds(duration);
        let of = demo.chance.id(began);
        let exit = match status {
            "ok" => Some(0),
            "error" => Some(1),
            _ => None,
        };
        let ran = matches!(status, "ok" | "error");
        checkins.push(json!({
            "id": of, "at": millis(began), "org_id": demo.team.org, "monitor_id": id, "environment": "production",
            "status": status,
            "reason": match status { "missed" => Some("not_started"), "timeout" => Some("too_long"), _ => None },
            "source": if status == "missed" { "system" } else { "ping" },
            "expected_at": text(expected),
            "started_at": (status != "missed").then(|| text(began)), "finished_at": ran.then(|| text(ended)),
            "received_at": text(if ran { ended } else { began + TimeDelta::minutes(5) }),
            "duration_ms": ran.then(|| (ended - began).num_milliseconds()),
            "exit_code": exit, "output": output(monitor, status, left), "late": false,
        }));
        if status == "ok" {
            if let Some((_, mut incident)) = open.take() {
                if let Some(members) = incident.as_object_mut() {
                    members.insert("closed_at".to_owned(), json!(text(ended)));
                }
                incidents.push(incident);
            }
        } else if open.is_none() {
            let incident = demo.chance.id(ended);
            let row = json!({"id": incident, "org_id": demo.team.org, "monitor_id": id, "environment": "production",
                "status": status, "checkin_id": of, "began_at": text(began), "opened_at": text(ended.min(demo.now)),
                "closed_at": null, "told_at": null, "told": 0});
            open = Some((incident, row));
        }
        state = State {
            health: match status {
                "ok" => "healthy",
                "error" => "failing",
                other => other,
            },
            status,
            id: of,
            at: began,
            incident: open.as_ref().map(|(incident, _)| *incident),
        };
    }
    incidents.extend(open.map(|(_, incident)| incident));
    state
}

/// Check-ins are kept at whole milliseconds.
fn millis(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

/// The end of what a run said; of those long ago none.
fn output(monitor: &Monitor, status: &str, left: i64) -> Option<String> {
    let slug = monitor.slug;
    match status {
        "error" => Some(format!(
            "{slug}: starting, 4 workers\n{slug}: 1204 items to do\n{slug}: 380 of 1204\nWARN  slow answer from storage-2 (4.1 s)\n\
             {slug}: 761 of 1204\nERROR storage-2: connection reset by peer\nTraceback (most recent call last):\n  \
             File \"/srv/jobs/{slug}.py\", line 88, in main\n    upload(part)\nConnectionResetError: [Errno 104] Connection reset by peer"
        )),
        "ok" if left < 40 => Some(format!(
            "{slug}: starting, 4 workers\n{slug}: 1204 items to do\n{slug}: done, 0 errors"
        )),
        _ => None,
    }
}
