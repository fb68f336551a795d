//! What is kept around a request: its reply for repeats of the same request, replies for others who ask the
//! same, and both for the admins of organisations that want them. Whoever wants none of it pays nothing.

mod cache;
mod call;
mod capture;
mod flight;
mod http;
mod kept;
mod noted;
mod purge;
mod run;
mod settings;
mod store;
mod tee;

use std::{future::Future, sync::Arc};

use axum::response::{IntoResponse, Response};
use loom_core::{
    Result,
    authorize::{Action, authorize},
    principal::Scope,
};
use loom_vault::Vault;
use metrics::counter;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{LlmProxy, hear, http::Incoming};

pub(crate) use call::Surface;
pub(crate) use http::routes;
pub(crate) use noted::{Opened, note};
pub(crate) use purge::job;

use call::{Call, Key};
use kept::Kept;
use tee::{Heard, tee};

/// The code of the one 422 that stays one on the vendors' wires.
pub(crate) const KEY_REUSED: &str = "idempotency_key_reused";
/// Replies on their way into the database; each holds up to 8 MiB.
const MAX_WRITING: usize = 64;

/// The state of all this on one replica.
pub(crate) struct Record {
    digester: call::Digester,
    settings: settings::Known,
    flights: run::Flights,
    /// What still has to be written, and requests that go on without their client.
    tasks: TaskTracker,
    writing: Arc<Semaphore>,
    /// Ends what goes on without a client.
    stop: CancellationToken,
}

impl Record {
    pub(crate) fn new(vault: &Vault) -> Result<Self> {
        let key = vault.derive("llm-record")?;
        Ok(Self {
            digester: call::Digester::new(key.expose()),
            settings: settings::Known::default(),
            flights: run::Flights::default(),
            tasks: TaskTracker::new(),
            writing: Arc::new(Semaphore::new(MAX_WRITING)),
            stop: CancellationToken::new(),
        })
    }

    /// When no client is there any more: resolves when all is written.
    pub(crate) async fn close(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl LlmProxy {
    /// Reads what organisations want to be kept, and follows what they say of it.
    pub(crate) async fn follow_settings(&self) -> Result<()> {
        let heard = self.hub.subscribe(crate::CHANNEL);
        self.record.settings.read(&self.pool).await?;
        let proxy = self.clone();
        tokio::spawn(async move {
            // Changes are rare, so that everything is read again.
            let read = |_| proxy.record.settings.read(&proxy.pool);
            let following = hear::follow(heard, &proxy.pool, settings::WORD, read);
            proxy.record.stop.run_until_cancelled(following).await;
        });
        Ok(())
    }

    /// Answers a request, and keeps of it what its sender or its organisation wants.
    pub(crate) async fn recorded<A, F>(
        self,
        surface: Surface,
        mut incoming: Incoming,
        answer: A,
    ) -> Response
    where
        A: FnOnce(Self, Incoming) -> F,
        F: Future<Output = Response> + Send + 'static,
    {
        // A provider's keys are not those of one of our organisations: it does not get it.
        let key = incoming.headers.remove(call::KEY);
        let settings = self.record.settings.of(incoming.principal.org);
        if key.is_none() && settings.keeps_nothing() {
            return answer(self, incoming).await;
        }
        if let Err(error) = authorize(&incoming.principal, Action::Use(Scope::LlmUse)) {
            return error.into_response();
        }
        let key = match key.as_ref().map(Key::parse).transpose() {
            Ok(key) => key,
            Err(error) => return error.into_response(),
        };
        let call = Arc::new(Call {
            surface,
            principal: incoming.principal.clone(),
            info: incoming.info.clone(),
            headers: incoming.headers.clone(),
            query: incoming.uri.query().map(str::to_owned),
            body: incoming.body.clone(),
            settings,
        });
        let answer = Box::pin(answer(self.clone(), incoming));
        let answer = Box::pin(self.clone().heard(Arc::clone(&call), answer));
        match key {
            Some(key) => self.keyed(&key, call, answer).await,
            None => answer.await,
        }
    }

    /// The cache before the answer, and an ear at it.
    async fn heard<F>(self, call: Arc<Call>, answer: F) -> Response
    where
        F: Future<Output = Response> + Send,
    {
        let question = self.question(&call);
        let capture = call.settings.capture.enabled;
        let ((mut response, question), opened) = noted::hearing(async {
            let Some(question) = question else { return (answer.await, None) };
            match self.cached(&call, &question).await {
                Some(hit) => (hit, None),
                None => (answer.await, Some(question)),
            }
        })
        .await;
        if let Some(question) = &question {
            question.mark_asked(&mut response);
        }
        // What was refused before its account began is nowhere.
        let Some(opened) =
            opened.filter(|_| capture || question.as_ref().is_some_and(|question| question.writes))
        else {
            return response;
        };
        let (head, body) = response.into_parts();
        let (status, headers) = (head.status, head.headers.clone());
        let told = move |heard: Heard| {
            let Ok(permit) = Arc::clone(&self.record.writing).try_acquire_owned() else {
                counter!("loom_llm_records_dropped_total").increment(1);
                tracing::warn!("too many replies are being stored: one is not");
                return;
            };
            let tasks = self.record.tasks.clone();
            tasks.spawn(async move {
                let _permit = permit;
                let Heard { pieces, truncated, ended } = &heard;
                let is_sound = || {
                    !truncated && kept::is_sound(&call.surface, status, &headers, pieces, *ended)
                };
                let question = question.filter(|question| question.writes);
                if let Some(question) = question.filter(|_| is_sound()) {
                    let kept = Kept::new(status, &headers, pieces);
                    warn(self.put_into_cache(&call, &question, &opened, &kept).await);
                }
                if capture {
                    warn(self.put_capture(&call, &opened, (status, &headers), &heard).await);
                }
            });
        };
        Response::from_parts(head, tee(body, capture::MAX_BODY, told))
    }
}

fn warn(result: Result<()>) {
    if let Err(error) = result {
        tracing::warn!(?error, "a reply could not be stored");
    }
}

fn hex(digest: &call::Digest) -> String {
    use std::fmt::Write;
    digest.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
