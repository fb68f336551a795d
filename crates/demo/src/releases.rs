//! Releases with their commits and deploys, and the sessions that people had with them.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::{
    DAYS, Demo,
    crashes::{Act, Acts, Project, later},
    text,
};

/// Days ago on which a version came; the first is there from the beginning.
const CAME: [f64; 5] = [30.03, 23.1, 15.2, 7.3, 1.4];
/// Parts of each day in which sessions are counted.
const SLICES: i64 = 8;
/// Counts that one item of an envelope may have.
const OF_AN_ITEM: usize = 100;

pub(crate) struct Release {
    pub(crate) version: String,
    pub(crate) at: DateTime<Utc>,
    /// Hashes, the newest first.
    pub(crate) commits: Vec<String>,
}

/// The newest release at that time.
pub(crate) fn current(releases: &[Release], at: DateTime<Utc>) -> &str {
    let current = releases.iter().rfind(|release| release.at <= at).or(releases.first());
    current.map_or("", |release| release.version.as_str())
}

/// How a project's people use it: sessions a day, per mille that crash, how fast they take a new version.
fn habits(slug: &str) -> Option<(f64, f64, f64)> {
    match slug {
        "shop-web" => Some((2400.0, 3.0, 0.4)),
        "mobile-app" => Some((1300.0, 9.0, 6.0)),
        "checkout-api" => Some((900.0, 2.0, 0.1)),
        _ => None,
    }
}

pub(crate) fn plan(
    demo: &mut Demo,
    projects: &mut [Project],
    acts: &mut Acts,
) -> anyhow::Result<()> {
    for (place, project) in (0..).zip(projects.iter_mut()) {
        let slug = project.family.slug;
        for (n, days) in (0_i64..).zip(CAME) {
            let at = demo.days_ago(days) + TimeDelta::minutes(place * if n == 0 { 2 } else { 37 });
            let version =
                format!("{slug}@{}.{}.{}", 2 + place % 3, 11 + n, if n == 3 { 1 } else { 0 });
            let next = CAME.get(usize::try_from(n + 1)?).copied().unwrap_or(0.0);
            let commits = commits(demo, project, days, next, at)?;
            announce(demo, slug, &version, at, &commits, acts)?;
            let commits = commits.into_iter().map(|(sha, _)| sha).collect();
            project.releases.push(Release { version, at, commits });
        }
        if let Some(habits) = habits(slug) {
            sessions(demo, project, habits, acts);
        }
    }
    Ok(())
}

/// What goes into a release: also what brings the issues that begin while it is the newest.
fn commits(
    demo: &mut Demo,
    project: &Project,
    from: f64,
    to: f64,
    at: DateTime<Utc>,
) -> anyhow::Result<Vec<(String, Value)>> {
    const MESSAGES: [&str; 8] = [
        "Cart: keep lines whose offer has ended",
        "Retry what the payment provider did not answer",
        "Show the delivery date in the customer's zone",
        "Read the catalogue in pages",
        "Round totals the way invoices do",
        "Use the new client with a time limit",
        "Split the discount over all lines",
        "Cache images by their digest",
    ];
    let mut files: Vec<&str> = project
        .family
        .issues
        .iter()
        .filter(|sort| sort.first <= from && sort.first > to)
        .map(crate::stacks::Sort::file)
        .collect();
    files.extend(["README.md", "package-lock.json"]);
    let mut commits = Vec::new();
    for (n, file) in (0..).zip(files) {
        let author = demo.team.nth(usize::try_from(demo.chance.number(1, 5))?)?;
        let sha = demo.chance.hex(40);
        let message =
            if file == "README.md" { "Say how to run it" } else { demo.chance.one(&MESSAGES) };
        let json = json!({"sha": sha, "message": message, "author_name": author.name, "author_email": author.email,
            "at": text(at - TimeDelta::minutes(90 + 130 * n)), "repository": format!("acme/{}", project.family.slug),
            "files": [file]});
        commits.push((sha, json));
    }
    Ok(commits)
}

fn announce(
    demo: &mut Demo,
    slug: &str,
    version: &str,
    at: DateTime<Utc>,
    commits: &[(String, Value)],
    acts: &mut Acts,
) -> anyhow::Result<()> {
    let who = &demo.team.nth(1)?.who;
    let releases = format!("/api/crash/projects/{slug}/releases");
    let one = format!("{releases}/{}", version.replace('@', "%40"));
    let head = commits.first().map(|(sha, _)| sha.as_str());
    let body = json!({"version": version, "ref": head, "released_at": text(at),
                      "url": format!("https://git.example.com/acme/{slug}/releases/{version}")});
    acts.push((at, Act::Post { who: who.clone(), path: releases, body }));
    let all: Vec<&Value> = commits.iter().map(|(_, json)| json).collect();
    let body = json!({"commits": all});
    acts.push((
        at + TimeDelta::seconds(2),
        Act::Put { who: who.clone(), path: format!("{one}/commits"), body },
    ));
    for (environment, after) in [("staging", 4), ("production", 55)] {
        let done = at + TimeDelta::minutes(after);
        let body = json!({"environment": environment, "started_at": text(done - TimeDelta::minutes(3)), "finished_at": text(done)});
        if done < demo.now {
            acts.push((done, Act::Post { who: who.clone(), path: format!("{one}/deploys"), body }));
        }
    }
    Ok(())
}

/// Sessions, counted where they ran: an envelope a day.
fn sessions(demo: &mut Demo, project: &Project, habits: (f64, f64, f64), acts: &mut Acts) {
    let (a_day, per_mille, pace) = habits;
    for day in (0..DAYS).rev() {
        let begin = demo.now - TimeDelta::days(day + 1);
        let mut envelope = format!("{}\n", json!({"sent_at": text(begin + TimeDelta::days(1))}));
        for (n, release) in project.releases.iter().enumerate() {
            let mut counted = Vec::new();
            for slice in 0..SLICES {
                #[expect(clippy::cast_precision_loss, reason = "a day's parts")]
                let at = later(begin, slice as f64 / SLICES as f64);
                let part = share(&project.releases, n, at, pace);
                // Fewer at night.
                let hour = f64::from(u32::try_from(at.timestamp() / 3600 % 24).unwrap_or_default());
                let light = 1.0 + 0.7 * ((hour - 15.0) / 24.0 * std::f64::consts::TAU).cos();
                let total = a_day / 8.0 * part * light * demo.chance.between(0.85, 1.15);
                // The last but one crashed more often.
                let bad = per_mille * if n == 3 { 3.5 } else { 1.0 } / 1000.0;
                for person in 0..10 {
                    let many = total / 10.0 * demo.chance.between(0.6, 1.4);
                    let crashed = whole(demo, many * bad);
                    let errored = whole(demo, many * bad * 4.0);
                    let exited = whole(demo, many);
                    let began = text(later(at, f64::from(person) / 80.0));
                    let who = format!("u{}", demo.chance.number(1, 900));
                    if exited + errored > 0 {
                        counted.push(json!({"started": began, "did": who, "exited": exited, "errored": errored}));
                    }
                    // Most of those that crash do not say whose they are.
                    let said = demo.chance.holds(0.07).then_some(who);
                    if crashed > 0 {
                        counted.push(json!({"started": began, "did": said, "crashed": crashed}));
                    }
                }
            }
            let attrs = json!({"release": release.version, "environment": "production"});
            for some in counted.chunks(OF_AN_ITEM) {
                let item = json!({"attrs": attrs, "aggregates": some});
                envelope = format!("{envelope}{}\n{item}\n", json!({"type": "sessions"}));
            }
        }
        let at = (begin + TimeDelta::days(1)).min(demo.now);
        let act =
            Act::Envelope { project: project.number, key: project.key.clone(), items: envelope };
        acts.push((at, act));
    }
}

/// Which part of the sessions a release has.
fn share(releases: &[Release], n: usize, at: DateTime<Utc>, pace: f64) -> f64 {
    let taken = |n: usize| -> f64 {
        let Some(release) = releases.get(n) else { return 0.0 };
        #[expect(clippy::cast_precision_loss, reason = "days")]
        let days = (at - release.at).num_minutes() as f64 / 1440.0;
        if days < 0.0 {
            0.0
        } else if n == 0 {
            1.0
        } else {
            1.0 - (-days / pace).exp()
        }
    };
    taken(n) * (n + 1..releases.len()).map(|later| 1.0 - taken(later)).product::<f64>()
}

/// A whole number that is right on average.
#[expect(clippy::cast_possible_truncation, reason = "sessions of a day")]
fn whole(demo: &mut Demo, number: f64) -> i64 {
    let more = demo.chance.holds(number.fract());
    number.floor() as i64 + i64::from(more)
}
