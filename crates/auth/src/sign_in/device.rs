//! Signing in a command-line client (RFC 8628): it shows a code, a signed-in person types it on our
//! page, sees who asks, and allows it. The token is made when the client asks the next time, so that it
//! is never stored.

mod http;
mod model;
mod store;

use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use chrono::{DateTime, Utc};
use loom_core::{
    Error, Principal, Result,
    id::{UserId, new_uuid},
    principal::{RequestInfo, Via},
    text,
};
use loom_notify::Mail;
use serde_json::json;

pub(crate) use http::{known, routes, routes_of_users};
use model::{DeviceStarted, DeviceToken, PollError};

use super::{browser::random_secret, code};
use crate::{
    Auth,
    limit::Budget,
    pages::ACCOUNT,
    sessions::{Origin, SessionKind, is_browser, model::device, user_agent},
    token,
};

pub(crate) const LIFE: Duration = Duration::from_secs(600);
/// Seconds between two polls.
const INTERVAL: i32 = 5;
const STARTED: Budget = Budget::per_hour(60);
const POLLED: Budget = Budget::per_minute(120);
/// Codes that lead nowhere, typed by one person: eight letters are short of being a secret.
const TYPED: Budget = Budget { count: 5, per: Duration::from_secs(600) };
const MAX_CLIENT: usize = 60;

/// A client that waits for a person.
pub(crate) struct Grant {
    pub(crate) id: uuid::Uuid,
    pub(crate) client: String,
    pub(crate) ip: String,
    pub(crate) user_agent: Option<String>,
    pub(crate) created_at: DateTime<Utc>,
}

impl Grant {
    pub(crate) fn device(&self) -> String {
        device(self.user_agent.as_deref().unwrap_or_default())
    }
}

fn no_such_code() -> Error {
    Error::new(
        StatusCode::NOT_FOUND,
        "no_such_code",
        "no client waits with this code: check it letter by letter, or begin again there, as a code lives for ten minutes",
    )
}

impl Auth {
    async fn start_device(
        &self,
        client: Option<&str>,
        headers: &HeaderMap,
        info: &RequestInfo,
    ) -> Result<DeviceStarted> {
        self.flood.take("device start", info.ip, STARTED).await?;
        let now = self.clock.now();
        let agent = user_agent(headers);
        let client = client.map(str::trim).filter(|name| !name.is_empty());
        let client = client.or(agent).unwrap_or("a command-line client");
        let grant = Grant {
            id: new_uuid(now),
            client: text::cut(client, MAX_CLIENT).replace(char::is_control, " "),
            ip: info.ip.to_string(),
            user_agent: agent.map(str::to_owned),
            created_at: now,
        };
        let (device_code, user_code) = (random_secret(), code::random());
        let digests = (token::digest(&device_code), token::digest(&user_code));
        store::insert(&self.pool, &grant, &digests.0, &digests.1, INTERVAL, now + LIFE).await?;
        let base_url = &self.site.base_url;
        let shown = code::shown(&user_code);
        Ok(DeviceStarted {
            verification_uri_complete: format!("{base_url}/device?user_code={shown}"),
            verification_uri: format!("{base_url}/device"),
            device_code,
            user_code: shown,
            expires_in: LIFE.as_secs(),
            interval: INTERVAL,
        })
    }

    /// The token, or one of the four words of RFC 8628.
    async fn poll_device(
        &self,
        device_code: &str,
        info: &RequestInfo,
    ) -> Result<Result<DeviceToken, PollError>> {
        self.flood.take("device poll", info.ip, POLLED).await?;
        let now = self.clock.now();
        let mut tx = loom_db::begin(&self.pool).await?;
        let Some(waiting) = store::lock(&mut tx, &token::digest(device_code)).await? else {
            return Ok(Err(PollError::ExpiredToken));
        };
        if waiting.expires_at <= now {
            return Ok(Err(PollError::ExpiredToken));
        }
        let user = match (waiting.status.as_str(), waiting.user) {
            ("approved", Some(user)) => user,
            ("denied", _) => {
                store::delete(&mut tx, waiting.id).await?;
                tx.commit().await?;
                return Ok(Err(PollError::AccessDenied));
            }
            _ => {
                // A second of grace: the client's clock and ours are not one.
                let wait = Duration::from_secs(u64::from(waiting.interval_secs.unsigned_abs()));
                let soonest =
                    waiting.polled_at.map(|at| at + wait.saturating_sub(Duration::from_secs(1)));
                let too_soon = soonest.is_some_and(|at| now < at);
                let interval = waiting.interval_secs + if too_soon { 5 } else { 0 };
                store::note_poll(&mut tx, waiting.id, interval, now).await?;
                tx.commit().await?;
                return Ok(Err(if too_soon {
                    PollError::SlowDown
                } else {
                    PollError::AuthorizationPending
                }));
            }
        };
        store::delete(&mut tx, waiting.id).await?;
        let origin = Origin {
            kind: SessionKind::Cli,
            method: "device",
            client: Some(&waiting.client),
            user_agent: waiting.user_agent.as_deref(),
            ip: info.ip.to_string(),
        };
        let session = self.begin_session(&mut tx, user, &origin).await?;
        // Disabled since it was allowed?
        let who = self.signed_in(&mut tx, user, Via::Session(session.id)).await?;
        if self.config.mail {
            let mail = signed_in_mail(&self.site.base_url, &who.name, &waiting.client, &info.ip);
            self.notify.mail(&mut tx, &mail).await?;
        }
        tx.commit().await?;
        self.notify.wake();
        let details = json!({"method": "device", "client": waiting.client});
        self.done(&who, None, info, "session.create", session.id, details).await?;
        Ok(Ok(DeviceToken {
            access_token: session.secret.expose().to_owned(),
            token_type: "Bearer",
            expires_at: session.expires_at,
            expires_in: crate::sessions::SLIDING.as_secs(),
        }))
    }

    /// The client behind a code that a signed-in person typed. A try is counted before it is judged, and
    /// the count is held until then, so that tries at the same time are one after another. A right code
    /// costs nothing; many wrong ones close this for a while, to the right one too.
    pub(crate) async fn waiting_device(&self, user: UserId, typed: &str) -> Result<Grant> {
        let mut tx = loom_db::begin(&self.pool).await?;
        self.rare.take(&mut *tx, "device code", &user.to_string(), TYPED).await?;
        let found = match code::typed(typed) {
            Some(code) => store::find(&mut tx, &token::digest(&code), self.clock.now()).await?,
            None => None,
        };
        match found {
            // Rolled back.
            Some(grant) => Ok(grant),
            None => {
                tx.commit().await?;
                Err(no_such_code())
            }
        }
    }

    /// What a signed-in person says to a client that waits.
    pub(crate) async fn answer_device(
        &self,
        principal: &Principal,
        headers: &HeaderMap,
        info: &RequestInfo,
        typed: &str,
        approve: bool,
    ) -> Result<Grant> {
        let user = allowed_to_answer(principal, headers)?;
        let grant = self.waiting_device(user, typed).await?;
        if !store::answer(&self.pool, grant.id, user, approve, self.clock.now()).await? {
            return Err(no_such_code());
        }
        let (action, details) = (
            if approve { "device.approve" } else { "device.deny" },
            json!({"client": grant.client, "ip": grant.ip}),
        );
        self.done(principal, None, info, action, grant.id, details).await?;
        Ok(grant)
    }
}

/// Whoever was talked into typing a code learns of it.
fn signed_in_mail(base_url: &str, to: &str, client: &str, ip: &std::net::IpAddr) -> Mail {
    Mail {
        kind: "device_signed_in",
        to: to.to_owned(),
        subject: "A device was signed in to Loom".to_owned(),
        text: format!(
            "{client}, at {ip}, was signed in to your Loom account at {base_url}: somebody typed its code in a \
             browser where you are signed in.\n\n\
             If you did not do this for a device of your own, end its session at {base_url}{ACCOUNT}, and tell your admins.\n"
        ),
        html: None,
        expires_at: None,
    }
}

/// Who is at a browser of ours: a client's own token or a key must not let further clients in, which
/// would outlive it.
pub(crate) fn allowed_to_answer(principal: &Principal, headers: &HeaderMap) -> Result<UserId> {
    match principal.user_id() {
        Some(user) if is_browser(principal, headers) => Ok(user),
        _ => Err(Error::forbidden(
            "only somebody who is signed in in a browser may let a device in; \
             an API key or the token of another device may not",
        )),
    }
}
