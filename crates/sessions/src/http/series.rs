//! Sessions over time.

use std::collections::BTreeMap;

use axum::extract::State;
use chrono::{DateTime, TimeDelta, Utc};
use loom_core::{
    Error, Json, Principal, Query, Result,
    authorize::{Action, authorize},
    clock::is_storable,
    error::Problem,
    principal::Scope,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::OfProject;
use crate::{
    Sessions, calendar, durations,
    statistics::crash_free,
    store::read::{self, Counts, Filter},
    users::Users,
};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = AppSessionField)]
pub(crate) enum Field {
    #[default]
    Sessions,
    /// Distinct users.
    Users,
    CrashFreeSessions,
    CrashFreeUsers,
    /// In milliseconds: the mean, with quantiles.
    Duration,
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct SeriesQuery {
    #[serde(default)]
    field: Field,
    /// `1h`, `1d`, or any number of `m` (a multiple of 30), `h`, `d` or `w`; `1d` when absent.
    interval: Option<String>,
    /// Whose days, as `Europe/Berlin`; UTC when absent.
    timezone: Option<String>,
    /// 30 days ago when absent, a day for hours.
    from: Option<DateTime<Utc>>,
    /// Now when absent.
    to: Option<DateTime<Utc>>,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = AppSessionPoint)]
pub(crate) struct Point {
    /// Where it begins; it ends where the next begins.
    #[serde(serialize_with = "loom_core::clock::millis")]
    at: DateTime<Utc>,
    /// Rates and durations are null where there is nothing to tell.
    value: Option<f64>,
    /// Of `sessions` and `crash_free_sessions`.
    #[serde(skip_serializing_if = "Option::is_none")]
    counts: Option<Counts>,
    /// Of `duration`, within two per cent.
    #[serde(skip_serializing_if = "Option::is_none")]
    p50: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p95: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p99: Option<f64>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = AppSessionSeries)]
pub(crate) struct Series {
    field: Field,
    interval: String,
    timezone: String,
    points: Vec<Point>,
    /// Where the last point ends.
    #[serde(serialize_with = "loom_core::clock::millis")]
    end: DateTime<Utc>,
    /// Of users: none of the numbers is an estimate.
    exact: bool,
}

/// A series of one field.
///
/// Half hours are what sessions are added up by: in the three zones that are off UTC by a quarter of an hour,
/// days begin and end at the half hour next before.
#[utoipa::path(
    get,
    path = "/api/app-sessions/series",
    operation_id = "app_session_series",
    tag = "app-sessions",
    params(OfProject, SeriesQuery),
    responses(
        (status = 200, body = Series),
        (status = 400, description = "`invalid_query`", body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`sessions:read` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such project", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "No such interval or time zone, or too many points", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn app_session_series(
    State(sessions): State<Sessions>,
    principal: Principal,
    Query(of): Query<OfProject>,
    Query(query): Query<SeriesQuery>,
) -> Result<Json<Series>> {
    authorize(&principal, Action::Use(Scope::SessionsRead))?;
    let project = sessions.project(&principal, &of.project).await?;
    let interval = query.interval.unwrap_or_else(|| "1d".to_owned());
    let step = calendar::Step::parse(&interval)?;
    let zone = calendar::zone(query.timezone.as_deref())?;
    let to = query.to.unwrap_or_else(|| sessions.now());
    let back = match step {
        calendar::Step::Time(_) => TimeDelta::hours(24),
        calendar::Step::Days(_) => TimeDelta::days(30),
    };
    let from = query.from.unwrap_or(to - back);
    if !is_storable(from) || !is_storable(to) {
        return Err(Error::invalid("from", "and `to` are of the years 1970 to 9999"));
    }
    let edges = calendar::edges(zone, step, from, to)?;
    let filter = of.filter(&project);
    let (points, exact) = match query.field {
        Field::Sessions | Field::CrashFreeSessions => {
            (sessions.counts(filter, query.field, &edges).await?, true)
        }
        Field::Users | Field::CrashFreeUsers => sessions.users(filter, query.field, &edges).await?,
        Field::Duration => (sessions.durations(filter, &edges).await?, true),
    };
    Ok(Json(Series {
        field: query.field,
        interval,
        timezone: zone.name().to_owned(),
        points,
        end: edges.last().copied().unwrap_or(to),
        exact,
    }))
}

fn point(at: DateTime<Utc>, value: Option<f64>) -> Point {
    Point { at, value, counts: None, p50: None, p95: None, p99: None }
}

/// The beginnings of the points, each with its number from 0.
fn starts(edges: &[DateTime<Utc>]) -> impl Iterator<Item = (usize, DateTime<Utc>)> {
    edges.iter().copied().take(edges.len().saturating_sub(1)).enumerate()
}

/// In which point a time is.
fn place(edges: &[DateTime<Utc>], at: DateTime<Utc>) -> usize {
    edges.partition_point(|edge| *edge <= at).saturating_sub(1)
}

/// Users of one point, while they are gathered.
#[derive(Default)]
struct Gathered {
    listed: Vec<i64>,
    sketch: Option<Users>,
}

impl Gathered {
    fn add(&mut self, listed: Vec<i64>, sketch: Option<&[u8]>) {
        self.listed.extend(listed);
        if let Some(bytes) = sketch {
            self.sketch.get_or_insert_default().unite(&Users::from_bytes(bytes));
        }
    }

    fn finish(self) -> Users {
        let mut users = Users::exact(self.listed);
        if let Some(sketch) = self.sketch {
            users.unite(&sketch);
        }
        users
    }
}

impl Sessions {
    async fn counts(
        &self,
        filter: Filter<'_>,
        field: Field,
        edges: &[DateTime<Utc>],
    ) -> Result<Vec<Point>> {
        let buckets = read::series(&self.deps.pool, filter, edges).await?;
        let counts: BTreeMap<i32, Counts> =
            buckets.into_iter().map(|bucket| (bucket.number, bucket.counts)).collect();
        let point = |(number, at)| {
            let counts =
                i32::try_from(number).ok().and_then(|number: i32| counts.get(&(number + 1)));
            let counts = counts.copied().unwrap_or_default();
            let value = match field {
                Field::CrashFreeSessions => crash_free(counts.total(), counts.crashed),
                _ => Some(counts.total() as f64),
            };
            Point { counts: Some(counts), ..point(at, value) }
        };
        Ok(starts(edges).map(point).collect())
    }

    async fn users(
        &self,
        filter: Filter<'_>,
        field: Field,
        edges: &[DateTime<Utc>],
    ) -> Result<(Vec<Point>, bool)> {
        let (Some(from), Some(to)) = (edges.first(), edges.last()) else {
            return Ok((Vec::new(), true));
        };
        let mut gathered: BTreeMap<usize, (Gathered, Gathered)> = BTreeMap::new();
        read::sets(&self.deps.pool, filter, (*from, *to), false, |set| {
            let (all, crashed) = gathered.entry(place(edges, set.at)).or_default();
            all.add(set.users, set.users_sketch.as_deref());
            crashed.add(set.crashed_users, set.crashed_sketch.as_deref());
        })
        .await?;
        let mut exact = true;
        let mut points = Vec::with_capacity(edges.len());
        for (number, at) in starts(edges) {
            let (all, crashed) = gathered.remove(&number).unwrap_or_default();
            let (all, crashed) = (all.finish(), crashed.finish());
            exact &= all.is_exact() && crashed.is_exact();
            let (all, crashed) = (all.count(), crashed.count());
            let value = match field {
                Field::CrashFreeUsers => crash_free(all, crashed.min(all)),
                _ => Some(all as f64),
            };
            points.push(point(at, value));
        }
        Ok((points, exact))
    }

    async fn durations(&self, filter: Filter<'_>, edges: &[DateTime<Utc>]) -> Result<Vec<Point>> {
        let (Some(from), Some(to)) = (edges.first(), edges.last()) else { return Ok(Vec::new()) };
        let sums = read::series(&self.deps.pool, filter, edges).await?;
        let mut histograms: BTreeMap<usize, BTreeMap<i16, f64>> = BTreeMap::new();
        read::sets(&self.deps.pool, filter, (*from, *to), true, |set| {
            let histogram = histograms.entry(place(edges, set.at)).or_default();
            for (bucket, count) in set.buckets.into_iter().zip(set.counts) {
                *histogram.entry(bucket).or_default() += count;
            }
        })
        .await?;
        let mut points: Vec<Point> = starts(edges).map(|(_, at)| point(at, None)).collect();
        for sum in sums {
            let number = usize::try_from(sum.number - 1).unwrap_or(usize::MAX);
            let Some(point) = points.get_mut(number) else { continue };
            point.value = (sum.timed > 0.0).then(|| sum.duration_ms / sum.timed);
        }
        for (number, histogram) in histograms {
            let Some(point) = points.get_mut(number) else { continue };
            let quantile =
                |q| durations::quantile(histogram.iter().map(|(bucket, n)| (*bucket, *n)), q);
            (point.p50, point.p95, point.p99) = (quantile(0.5), quantile(0.95), quantile(0.99));
        }
        Ok(points)
    }
}
