//! Whether the database's clock and ours agree.

use std::time::{Duration, Instant};

use loom_core::{
    Clock,
    health::{Component, Status},
};
use sqlx::{PgPool, Row as _};

const COMPARED: Duration = Duration::from_millis(900);
const CLOCK_DEGRADED: f64 = 2.0;
const CLOCK_UNHEALTHY: f64 = 30.0;

/// How far our clock is ahead in seconds, and by how much that may be wrong.
async fn compare(clock: &Clock, probes: &PgPool) -> sqlx::Result<(f64, f64)> {
    let mut connection = probes.acquire().await?;
    let asked = Instant::now();
    // One round trip, without preparing.
    let query = "SELECT extract(epoch FROM clock_timestamp())::float8";
    let row = sqlx::raw_sql(query).fetch_one(&mut *connection).await?;
    let (ours, took) = (clock.now(), asked.elapsed());
    let theirs: f64 = row.try_get(0)?;
    #[expect(clippy::cast_precision_loss, reason = "microseconds since 1970, below 2^52")]
    let ours = ours.timestamp_micros() as f64 / 1e6;
    // It looked at its clock about half-way.
    let halved = took.as_secs_f64() / 2.0;
    Ok((ours - halved - theirs, halved))
}

pub(super) async fn probe(clock: &Clock, probes: &PgPool) -> Component {
    let compared = tokio::time::timeout(COMPARED, compare(clock, probes)).await;
    let (skew, halved) = match compared.unwrap_or(Err(sqlx::Error::PoolTimedOut)) {
        Ok(compared) => compared,
        Err(error) => {
            return Component::new(Status::Degraded)
                .error("the clock cannot be compared")
                .code("CLOCK_UNKNOWN", "The database does not answer; see its component.")
                .detail(error.to_string());
        }
    };
    metrics::gauge!("loom_clock_skew_seconds").set(skew);
    // The half that may be wrong is not held against the clock.
    let certain = (skew.abs() - halved).max(0.0);
    let status = if certain > CLOCK_UNHEALTHY {
        Status::Unhealthy
    } else if certain > CLOCK_DEGRADED {
        Status::Degraded
    } else {
        Status::Healthy
    };
    let component = Component::new(status).with("skew_ms", (skew * 1e3).round());
    if status == Status::Healthy {
        return component;
    }
    component
        .error("this machine's clock and the database's differ")
        .code(
            "CLOCK_SKEW",
            "Schedules, expiry and sign-in codes go by this machine's clock. See that NTP runs here and \
             on the database's machine (chronyc tracking, timedatectl).",
        )
        .detail(format!("{skew:+.3} s against the database"))
}
