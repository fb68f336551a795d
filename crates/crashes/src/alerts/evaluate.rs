//! When rules speak. What issues did is taken out of its table in the transaction that queues what is said
//! of it: nothing is lost, and nothing is said twice, however many servers look.

use std::collections::{HashMap, hash_map::Entry};

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use loom_core::{
    Result,
    id::{IssueId, OrgId, ProjectId},
    port::ProjectDirectory,
};
use sqlx::PgConnection;

use super::{
    model::{CrashAlertCondition, CrashAlertOf, CrashAlertRule},
    store::{self, Signal, Telling},
    tell::Said,
};
use crate::Crashes;

/// Signals of one transaction.
const BATCH: i64 = 50;
/// Events come this long after the signal's time at most.
const AROUND: TimeDelta = TimeDelta::days(8);
/// The log is kept as long.
const KEPT: TimeDelta = TimeDelta::days(30);

impl Crashes {
    /// Says what is to be said of new and returned issues; gives how many were looked at.
    pub(crate) async fn tell_signals(&self) -> Result<u64> {
        let mut handled = 0;
        loop {
            let mut tx = loom_db::begin(&self.deps.pool).await?;
            let signals = store::take(&mut tx, BATCH).await?;
            if signals.is_empty() {
                return Ok(handled);
            }
            let mut rules: HashMap<ProjectId, Vec<CrashAlertRule>> = HashMap::new();
            for signal in &signals {
                let of_project = match rules.entry(signal.project) {
                    Entry::Occupied(known) => known.into_mut(),
                    Entry::Vacant(place) => {
                        place.insert(store::list(&mut tx, signal.org, signal.project).await?)
                    }
                };
                self.tell_signal(&mut tx, signal, of_project).await?;
                handled += 1;
            }
            tx.commit().await?;
            self.deps.notify.wake();
        }
    }

    async fn tell_signal(
        &self,
        db: &mut PgConnection,
        signal: &Signal,
        rules: &[CrashAlertRule],
    ) -> Result<()> {
        let now = self.deps.clock.now();
        for rule in rules {
            let wanted = match rule.condition {
                CrashAlertCondition::NewIssue => "new",
                CrashAlertCondition::Regression => "regressed",
                _ => continue,
            };
            if signal.kind != wanted || !speaks(rule, now) {
                continue;
            }
            let place = (signal.org, signal.project);
            let since = now - AROUND;
            let matching =
                store::counted(db, place, since, Some(signal.event), (1, None), &rule.filters)
                    .await?;
            if !matching.is_empty() {
                let said = Said::of_condition(rule);
                self.speak(db, signal.org, rule, Some(signal.issue), said).await?;
            }
        }
        Ok(())
    }

    /// Looks at what repeats. What is wrong with one project keeps no other from being told.
    pub(crate) async fn tell_counts(&self) -> Result<u64> {
        let mut handled = 0;
        let mut failed = None;
        for (org, project) in store::with_counting_rules(&self.deps.pool).await? {
            match self.tell_counts_of(org, project).await {
                Ok(rules) => handled += rules,
                Err(error) => {
                    tracing::warn!(%project, %error, "the alerts of a project cannot be looked at");
                    failed = Some(error);
                }
            }
        }
        let before = self.deps.clock.now() - KEPT;
        store::sweep(&self.deps.pool, before).await?;
        failed.map_or(Ok(handled), Err)
    }

    async fn tell_counts_of(&self, org: OrgId, project: ProjectId) -> Result<u64> {
        let mut handled = 0;
        let mut tx = loom_db::begin(&self.deps.pool).await?;
        for rule in store::list(&mut tx, org, project).await? {
            if !speaks(&rule, self.deps.clock.now()) {
                continue;
            }
            match rule.condition {
                CrashAlertCondition::Frequency { events, minutes, of } => {
                    self.frequency(&mut tx, org, &rule, (events, minutes, of)).await?;
                }
                CrashAlertCondition::SessionShare { percent, minutes, min_sessions } => {
                    let of = (percent, minutes, min_sessions);
                    self.session_share(&mut tx, org, &rule, of).await?;
                }
                CrashAlertCondition::NewIssue | CrashAlertCondition::Regression => continue,
            }
            handled += 1;
        }
        tx.commit().await?;
        self.deps.notify.wake();
        Ok(handled)
    }

    async fn frequency(
        &self,
        db: &mut PgConnection,
        org: OrgId,
        rule: &CrashAlertRule,
        (events, minutes, of): (i64, i32, CrashAlertOf),
    ) -> Result<()> {
        let since = self.deps.clock.now() - TimeDelta::minutes(minutes.into());
        let place = (org, rule.project_id);
        match of {
            CrashAlertOf::Issue => {
                let mut after = None;
                loop {
                    let page = store::counted(
                        db,
                        place,
                        since,
                        None,
                        (events, after.as_ref()),
                        &rule.filters,
                    )
                    .await?;
                    for one in &page {
                        let said = Said::frequency(one.events, minutes);
                        self.speak(db, org, rule, Some(one.issue), said).await?;
                    }
                    let is_last = (page.len() as i64) < store::MOST_COUNTED;
                    after = page.into_iter().last();
                    if is_last {
                        break;
                    }
                }
            }
            CrashAlertOf::Project => {
                let all = store::counted_of_project(db, place, since, &rule.filters).await?;
                if all >= events {
                    self.speak(db, org, rule, None, Said::frequency(all, minutes)).await?;
                }
            }
        }
        Ok(())
    }

    async fn session_share(
        &self,
        db: &mut PgConnection,
        org: OrgId,
        rule: &CrashAlertRule,
        (percent, minutes, min_sessions): (f64, i32, i64),
    ) -> Result<()> {
        let now = self.deps.clock.now();
        let since = now - TimeDelta::minutes(minutes.into());
        let named = rule.project_id.to_string();
        let Some(project) = self.deps.directory.find(org, &named).await? else { return Ok(()) };
        let place = (org, rule.project_id);
        let events = store::counted_of_project(db, place, since, &rule.filters).await?;
        if events == 0 {
            return Ok(());
        }
        let mut sessions = 0;
        if rule.filters.environments.is_empty() {
            sessions = self.deps.health.sessions(&project, None, since, now).await?;
        }
        for environment in &rule.filters.environments {
            sessions += self.deps.health.sessions(&project, Some(environment), since, now).await?;
        }
        if sessions < min_sessions {
            return Ok(());
        }
        #[expect(clippy::cast_precision_loss, reason = "nobody has that many")]
        let share = events as f64 * 100.0 / sessions as f64;
        if share > percent {
            let said = Said::share(share, events, sessions, minutes);
            self.speak(db, org, rule, None, said).await?;
        }
        Ok(())
    }

    /// Tells, unless the rule has just spoken of the same or the project has had its alerts of this hour;
    /// of that it is told once.
    async fn speak(
        &self,
        db: &mut PgConnection,
        org: OrgId,
        rule: &CrashAlertRule,
        issue: Option<IssueId>,
        said: Said,
    ) -> Result<()> {
        let now = self.deps.clock.now();
        let hour = now.duration_trunc(TimeDelta::hours(1)).unwrap_or(now);
        let about = match issue {
            Some(id) => match store::issue(db, org, id).await? {
                Some(about) => Some((id, about)),
                None => return Ok(()),
            },
            None => None,
        };
        // Whoever else speaks for this project waits here.
        let used = store::spend(db, org, rule.project_id, hour).await?;
        let since = now - TimeDelta::minutes(rule.min_interval_minutes.into());
        if rule.min_interval_minutes > 0 && store::spoke_since(db, rule.id, issue, since).await? {
            return store::unspend(db, rule.project_id, hour).await;
        }
        let budget = self.config.alerts_per_hour;
        let subject = said.subject(about.as_ref().map(|(_, about)| about));
        let (outcome, deliveries) = if used <= budget {
            let deliveries = self.deliver(db, org, rule, about.as_ref(), &said).await?;
            // None of its places took it: the mail of the organisation's hour is used up, a queue is full.
            (if deliveries.is_empty() { "held_back" } else { "sent" }, deliveries)
        } else if used == budget + 1 {
            ("held_back", self.deliver(db, org, rule, None, &Said::surplus(budget)).await?)
        } else {
            ("held_back", Vec::new())
        };
        metrics::counter!("loom_crash_alerts_total", "outcome" => outcome).increment(1);
        let telling = Telling {
            org,
            rule,
            issue,
            title: &subject,
            outcome,
            deliveries: &deliveries,
            at: now,
        };
        store::log(db, &telling).await
    }
}

fn speaks(rule: &CrashAlertRule, now: DateTime<Utc>) -> bool {
    rule.enabled && rule.snoozed_until.is_none_or(|until| until <= now)
}
