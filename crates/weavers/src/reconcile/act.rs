//! Does what was decided about one weaver, until nothing more is to be done now.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Preconditions};
use loom_core::{Result, id::WeaverId};
use metrics::{counter, gauge};

use super::{
    create::{Made, Refusal, gone},
    decide::{Action, decide, end_with},
    lead::{Lead, Next, ROW, STRAY},
};
use crate::{
    Weavers,
    cluster::{ask, failed},
    model::{Change, Event, Row, Status, Trouble},
    network,
    pod::{CONTAINER, seen},
    store,
    tell::Kind,
};

/// More than any life has steps.
const STEPS: usize = 16;
/// Between SIGTERM and SIGKILL when a weaver is taken down.
const GRACE_SECS: u32 = 5;
/// A pod that was not taken is tried again after so long, and less often the longer it goes on.
const RETRY: TimeDelta = TimeDelta::seconds(2);
const LONGEST_RETRY: TimeDelta = TimeDelta::seconds(30);

/// How it goes on after an action.
enum Then {
    /// As was decided.
    On,
    /// The row or the pod is another now.
    Again,
    At(DateTime<Utc>),
}

impl Weavers {
    /// `stray`: since when there is a pod and nobody knows its weaver.
    pub(super) async fn see_to(
        &self,
        lead: &Lead,
        id: WeaverId,
        stray: Option<DateTime<Utc>>,
    ) -> Result<Next> {
        for _ in 0..STEPS {
            let row = store::of_installation(&self.deps.pool, &self.installation, id).await?;
            let Some(row) = row.filter(|row| row.ended_at.is_none()) else {
                return self.stray(lead, id, stray).await;
            };
            let mut pod = lead.pod(id);
            let is_known =
                |pod: &Pod| row.pod_uid.is_none() || row.pod_uid.as_deref() == seen::uid(pod);
            let is_expected = row.pod_uid.is_some() || row.ending.is_some();
            if is_expected && !pod.as_deref().is_some_and(is_known) {
                // The watch may be behind: only the cluster itself says that there is none.
                pod = self.look_up(lead, &row).await?.map(Arc::new);
                lead.saw(id, pod.clone());
                if pod.is_none() && row.ending.is_none() {
                    pod = lead.last_seen(id).filter(|pod| is_known(pod));
                }
            }
            let now = self.deps.clock.now();
            let mut next = Next::Nothing;
            let mut again = false;
            for action in decide(&row, pod.as_deref(), now) {
                match self.act(lead, &row, action, now).await? {
                    Then::On => {}
                    Then::Again => again = true,
                    Then::At(at) => next = Next::At(at),
                }
            }
            if !again {
                if pod.as_deref().is_some_and(seen::is_running) {
                    self.follow(&row);
                }
                return Ok(next);
            }
        }
        // It goes on changing under our hands: let others have their turn.
        Ok(Next::At(self.deps.clock.now()))
    }

    async fn act(
        &self,
        lead: &Lead,
        row: &Row,
        action: Action,
        now: DateTime<Utc>,
    ) -> Result<Then> {
        match action {
            Action::CreatePod => match self.create_pod(lead, row).await? {
                Made::Pod(pod) => {
                    let change = Change {
                        pod_uid: pod.metadata.uid.clone(),
                        trouble: row.trouble.is_some().then_some(None),
                        ..Change::default()
                    };
                    self.write(lead, row, &change, &[]).await?;
                    self.own_secret(lead, row, &pod).await;
                    // The watch may have seen more of it by now.
                    if lead.pod(row.id).is_none() {
                        lead.saw(row.id, Some(Arc::new(*pod)));
                    }
                    Ok(Then::Again)
                }
                Made::Refused(refusal) => self.refused(lead, row, refusal, now).await,
            },
            Action::Write(change) => {
                let kinds: &[Kind] = if change.ready_at.is_some() { &[Kind::Ready] } else { &[] };
                self.write(lead, row, &change, kinds).await?;
                Ok(Then::Again)
            }
            Action::ReadLogsThenDelete { uid } => {
                self.learn_env(row);
                if let Err(error) = self.logs.read_rest(row).await {
                    tracing::warn!(%error, weaver = %row.id, "the last lines of a weaver could not be read");
                }
                self.delete_pod(lead, row.id, &row.pod_name, &uid, GRACE_SECS).await?;
                Ok(Then::Again)
            }
            Action::DeleteNow { uid } => {
                self.delete_pod(lead, row.id, &row.pod_name, &uid, 0).await?;
                Ok(Then::At(now + TimeDelta::seconds(10)))
            }
            Action::End(status) => {
                self.end(lead, row, status, now).await?;
                Ok(Then::On)
            }
            Action::Relabel => {
                let pods = self.cluster()?.pods();
                network::relabel(&pods, &self.installation, row).await.map_err(failed)?;
                Ok(Then::On)
            }
            Action::Warn => {
                let left = (row.expires_at - now).num_seconds().max(0);
                let text = format!("it ends in {left} s unless it is given more time");
                let change = Change {
                    warned_at: Some(now),
                    events: vec![Event::new(now, "warning").because("expiring", text)],
                    ..Change::default()
                };
                self.write(lead, row, &change, &[Kind::Expiring]).await?;
                Ok(Then::On)
            }
            Action::LookAgain(at) => Ok(Then::At(at)),
        }
    }

    async fn refused(
        &self,
        lead: &Lead,
        row: &Row,
        refusal: Refusal,
        now: DateTime<Utc>,
    ) -> Result<Then> {
        let Refusal { code, text, is_final } = refusal;
        if is_final {
            let warning = Event::new(now, "warning").because(code, text.clone());
            let change = end_with(Status::Failed, code, text, vec![warning]);
            self.write(lead, row, &change, &[]).await?;
            return Ok(Then::Again);
        }
        let known = row.trouble.as_ref();
        let since = known.map_or(now, |trouble| trouble.since);
        if known.is_none_or(|trouble| trouble.code != code) {
            let trouble = Trouble { code: code.to_owned(), message: text.clone(), since };
            let change = Change {
                trouble: Some(Some(trouble)),
                events: vec![Event::new(now, "warning").because(code, text)],
                ..Change::default()
            };
            self.write(lead, row, &change, &[]).await?;
        }
        Ok(Then::At(now + ((now - since) / 4).clamp(RETRY, LONGEST_RETRY)))
    }

    /// A pod that is not this one any more stays.
    async fn delete_pod(
        &self,
        lead: &Lead,
        id: WeaverId,
        name: &str,
        uid: &str,
        grace: u32,
    ) -> Result<()> {
        let params = DeleteParams {
            grace_period_seconds: Some(grace),
            preconditions: Some(Preconditions {
                uid: Some(uid.to_owned()),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        let deleted = match ask(lead.cluster.pods().delete(name, &params)).await {
            // Another of the same name: ours is gone.
            Err(kube::Error::Api(status)) if status.code == 409 => None,
            deleted => gone(deleted).map_err(failed)?,
        };
        let going = deleted.and_then(|deleted| {
            let is_going = |pod: &Pod| pod.metadata.deletion_timestamp.is_some() && grace > 0;
            deleted.left().filter(is_going)
        });
        // What is to be known next is whether it is still there.
        lead.saw(id, going.map(Arc::new));
        Ok(())
    }

    async fn end(&self, lead: &Lead, row: &Row, status: Status, now: DateTime<Utc>) -> Result<()> {
        gone(ask(lead.cluster.secrets().delete(&row.pod_name, &DeleteParams::default())).await)
            .map_err(failed)?;
        self.forget_identity(row).await?;
        self.logs.stop(row.id);
        let (code, text) = (row.reason_code.clone(), row.reason.clone());
        let last = Event { code, message: text, ..Event::new(now, "ended") };
        let change = Change {
            status: Some(status),
            ended_at: Some(now),
            erase_sealed: row.sealed_env.is_some(),
            trouble: row.trouble.is_some().then_some(None),
            events: vec![last],
            ..Change::default()
        };
        let kind = match status {
            Status::Failed | Status::Lost => Kind::Failed,
            _ => Kind::Deleted,
        };
        if self.write(lead, row, &change, &[kind]).await?.is_some() {
            match kind {
                Kind::Failed => counter!("loom_weavers_failed_total").increment(1),
                _ => counter!("loom_weavers_deleted_total").increment(1),
            }
        }
        Ok(())
    }

    /// None: somebody else was faster, or this server no longer watches.
    async fn write(
        &self,
        lead: &Lead,
        row: &Row,
        change: &Change,
        kinds: &[Kind],
    ) -> Result<Option<Row>> {
        let mut transaction = loom_db::begin(&self.deps.pool).await?;
        let written = store::change(&mut transaction, row, change, Some(lead.term)).await?;
        let Some(written) = written else { return Ok(None) };
        for kind in kinds {
            self.told(&mut transaction, &written, *kind).await?;
        }
        transaction.commit().await?;
        if !kinds.is_empty() {
            self.deps.notify.wake();
        }
        self.announce(&written);
        Ok(Some(written))
    }

    /// Has the one who watches the cluster see to a weaver, now. To be called after the commit.
    pub(crate) fn look_at(&self, id: WeaverId) {
        self.inbox.put(id);
        self.announcer.say(format!("{ROW}{id}"));
    }

    /// A pod without a weaver: one that is over leaves none, and one that nobody knows is watched for a while.
    async fn stray(&self, lead: &Lead, id: WeaverId, since: Option<DateTime<Utc>>) -> Result<Next> {
        let Some(pod) = lead.pod(id) else { return Ok(Next::Nothing) };
        let known = store::over(&self.deps.pool, &self.installation, &[id]).await?;
        match known.get(&id) {
            Some(true) => {
                self.take_down(lead, id, &pod).await?;
                Ok(Next::Nothing)
            }
            Some(false) => Ok(Next::At(self.deps.clock.now())),
            None if since.is_some_and(|since| self.deps.clock.now() >= since + STRAY) => {
                self.take_down(lead, id, &pod).await?;
                Ok(Next::Nothing)
            }
            None => Ok(Next::Stray),
        }
    }

    pub(super) async fn take_down(&self, lead: &Lead, id: WeaverId, pod: &Pod) -> Result<()> {
        let (Some(name), Some(uid)) = (pod.metadata.name.as_deref(), seen::uid(pod)) else {
            return Ok(());
        };
        if seen::going(pod).is_none() {
            tracing::info!(weaver = %id, pod = name, "removing a pod without a weaver");
            self.delete_pod(lead, id, name, uid, GRACE_SECS).await?;
        }
        gone(ask(lead.cluster.secrets().delete(name, &DeleteParams::default())).await)
            .map_err(failed)?;
        Ok(())
    }

    pub(super) fn follow(&self, row: &Row) {
        if !self.logs.is_followed(row.id) {
            self.learn_env(row);
            self.logs.follow(row, CONTAINER);
        }
    }

    pub(super) fn no_longer_leads(&self) {
        self.logs.stop_all();
        gauge!("loom_weavers_active").set(0.0);
    }

    /// How many there are, told by the one who watches.
    pub(super) fn count(&self, rows: &[Row]) {
        let active = rows.iter().filter(|row| row.status == Status::Running).count();
        gauge!("loom_weavers_active").set(f64::from(u32::try_from(active).unwrap_or(u32::MAX)));
    }
}
