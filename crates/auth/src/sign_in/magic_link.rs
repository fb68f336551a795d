//! Signing in by mail, safe from programs that follow links and press buttons.
//!
//! A mail holds a link and a code. Both are worth something only in the browser that asked for them,
//! which a cookie tells: there the link's page has a button, and the code can be typed. In any other
//! browser, a phone or a scanner, the link's page shows the code to type, and nothing on it signs in.
//! The code follows from the link's token and is stored hashed together with the browser's cookie, so
//! that neither is in the database in a form that can be used or found by trying.

mod http;
mod mail;
mod store;

use std::time::Duration;

use axum::{http::HeaderMap, response::Response};
use chrono::{DateTime, Utc};
use loom_core::{Error, Result, id::new_uuid, principal::RequestInfo};
use serde_json::json;
use subtle::ConstantTimeEq;

pub(crate) use http::routes;

use super::{
    browser::{Browser, is_secret, random_secret},
    code,
    enter::{HOME, Shown},
    identity::{Entry, disabled},
    store as accounts,
};
use crate::{
    Auth,
    limit::Budget,
    sessions::{model::device, user_agent},
    token,
};

pub(crate) const LIFE: Duration = Duration::from_secs(600);
const WRONG_CODES: i32 = 5;
/// Mails asked for from one network, and in one browser.
const ASKED: Budget = Budget::per_hour(60);
const ASKED_IN_BROWSER: Budget = Budget::per_hour(10);
/// Mails to one address, over all replicas: who is mailed has not asked for it, perhaps.
const MAILED: Budget = Budget::per_hour(5);
/// Codes typed, from one network: beside the five of each link.
const TYPED: Budget = Budget::per_hour(60);

/// A link under way.
pub(crate) struct Link {
    pub(crate) id: uuid::Uuid,
    pub(crate) email: String,
    pub(crate) browser_sha256: Vec<u8>,
    pub(crate) redirect_to: String,
    pub(crate) ip: String,
    pub(crate) user_agent: Option<String>,
    pub(crate) created_at: DateTime<Utc>,
}

impl Link {
    pub(crate) fn device(&self) -> String {
        device(self.user_agent.as_deref().unwrap_or_default())
    }

    fn is_of(&self, browser: Option<&Browser>) -> bool {
        browser.is_some_and(|browser| browser.digest() == self.browser_sha256.as_slice())
    }
}

/// 400, the same for all that a link can lack.
fn stale() -> Error {
    Error::malformed(
        "sign_in_expired",
        "this link was used already, is older than ten minutes, a newer one took its place, or five wrong codes were typed; ask for a new one",
    )
}

fn wrong_code() -> Error {
    Error::malformed(
        "wrong_code",
        "this is not the code of the newest mail, or it was tried too often; after five wrong codes ask for a new mail",
    )
}

fn other_browser() -> Error {
    Error::malformed(
        "other_browser",
        "this sign-in was begun in another browser; type the code from the mail there, or ask for a link in this one",
    )
}

impl Auth {
    /// Can mail be sent at all?
    pub(crate) fn magic_links_work(&self) -> bool {
        self.config.mail
    }

    /// Begins a sign-in by mail. Takes the same course whether the address is known or not, down to the
    /// mail, which is queued for both and taken back for the unknown.
    pub(super) async fn ask_for_link(
        &self,
        email: &str,
        redirect: Option<&str>,
        browser: &Browser,
        headers: &HeaderMap,
        info: &RequestInfo,
    ) -> Result<()> {
        self.flood.take("magic link", info.ip, ASKED).await?;
        let browser_sha256 = browser.digest();
        let redirect_to = redirect.and_then(|path| self.site.own_path(path));
        let token = random_secret();
        let code = code::of_secret(&token);
        let now = self.clock.now();
        let link = Link {
            id: new_uuid(now),
            email: email.to_owned(),
            browser_sha256: browser_sha256.to_vec(),
            redirect_to: redirect_to.unwrap_or_else(|| HOME.to_owned()),
            ip: info.ip.to_string(),
            user_agent: user_agent(headers).map(str::to_owned),
            created_at: now,
        };
        let mut tx = loom_db::begin(&self.pool).await?;
        let in_browser = hex::encode(browser_sha256);
        self.rare.take(&mut *tx, "mails in a browser", &in_browser, ASKED_IN_BROWSER).await?;
        // Nobody learns here that others asked for the same address.
        let may_mail = self.rare.take(&mut *tx, "mails to an address", email, MAILED).await.is_ok();
        let wanted = may_mail && self.may_enter_by_mail(&mut tx, email).await?;
        sqlx::query("SAVEPOINT link").execute(&mut *tx).await?;
        store::replace(
            &mut tx,
            &link,
            &token::digest(&token),
            &browser.derive("code", &code),
            now + LIFE,
            wanted,
        )
        .await?;
        let mail = mail::of(&self.site.base_url, &link, &token, &code, now + LIFE);
        sqlx::query("SAVEPOINT mail").execute(&mut *tx).await?;
        self.notify.mail(&mut tx, &mail).await?;
        let end = match (may_mail, wanted) {
            // Without a mail of its own it takes the place of none that was sent.
            (false, _) => "ROLLBACK TO SAVEPOINT link",
            (true, false) => "ROLLBACK TO SAVEPOINT mail",
            (true, true) => "RELEASE SAVEPOINT mail",
        };
        sqlx::query(end).execute(&mut *tx).await?;
        tx.commit().await?;
        self.notify.wake();
        Ok(())
    }

    async fn may_enter_by_mail(&self, db: &mut sqlx::PgConnection, email: &str) -> Result<bool> {
        let account = accounts::account_by_email(&mut *db, email).await?;
        // Asked for both, so that both take as long.
        let may_sign_up = self.may_sign_up(db, email).await?;
        Ok(account.map_or(may_sign_up, |account| !account.disabled))
    }

    /// A link that is still good; nothing happens to it.
    async fn look_at_link(&self, token: &str) -> Result<Link> {
        if !is_secret(token) {
            return Err(stale());
        }
        let now = self.clock.now();
        store::find(&self.pool, &token::digest(token), WRONG_CODES, now).await?.ok_or_else(stale)
    }

    /// By the button on the link's page.
    async fn enter_by_link(
        &self,
        token: &str,
        is_form: bool,
        headers: &HeaderMap,
        info: &RequestInfo,
    ) -> Result<Response> {
        let browser = Browser::of(&self.site, headers);
        let link = self.look_at_link(token).await?;
        if !link.is_of(browser.as_ref()) {
            return Err(other_browser());
        }
        self.enter_by_mail(&link, is_form, headers, info).await
    }

    /// By the code, in the browser that asked. The try is counted before it is judged.
    async fn enter_by_code(
        &self,
        typed: &str,
        is_form: bool,
        headers: &HeaderMap,
        info: &RequestInfo,
    ) -> Result<Response> {
        self.flood.take("magic link code", info.ip, TYPED).await?;
        let browser = Browser::of(&self.site, headers).ok_or_else(other_browser)?;
        let digest = browser.digest();
        let tried = store::try_code(&self.pool, &digest, WRONG_CODES, self.clock.now()).await?;
        let (link, right) = tried.ok_or_else(wrong_code)?;
        let typed = code::typed(typed).unwrap_or_default();
        if !bool::from(browser.derive("code", &typed).ct_eq(right.as_slice())) {
            return Err(wrong_code());
        }
        self.enter_by_mail(&link, is_form, headers, info).await
    }

    async fn enter_by_mail(
        &self,
        link: &Link,
        is_form: bool,
        headers: &HeaderMap,
        info: &RequestInfo,
    ) -> Result<Response> {
        let mut tx = loom_db::begin(&self.pool).await?;
        // Of two who are as quick as each other, one finds it gone.
        if !store::take(&mut tx, link.id).await? {
            return Err(stale());
        }
        let (user, entry) = match accounts::account_by_email(&mut tx, &link.email).await? {
            Some(account) if account.disabled => return Err(disabled()),
            Some(account) => {
                // Who reads the mail has the address.
                accounts::verify_email(&mut tx, account.user, self.clock.now()).await?;
                (account.user, Entry::Known)
            }
            None => (self.sign_up(&mut tx, &link.email, None).await?, Entry::SignedUp),
        };
        let shown = Shown {
            user,
            entry,
            method: "magic_link",
            details: json!({}),
            redirect_to: link.redirect_to.clone(),
            is_form,
        };
        self.enter(tx, shown, headers, info).await
    }
}
