//! From what a provider has proven to a user of ours. An identity is `(provider, issuer, subject)`; an
//! e-mail address alone lets nobody in.

use http::StatusCode;
use loom_core::{Error, Result, id::UserId, text};
use serde_json::json;
use sqlx::PgConnection;

use super::store;
use crate::Auth;

/// What a provider vouches for.
pub(crate) struct Proven {
    pub(crate) provider: &'static str,
    pub(crate) issuer: String,
    pub(crate) subject: String,
    /// Only one that the provider has verified; case-folded.
    pub(crate) email: Option<String>,
    /// For people to tell their identities apart.
    pub(crate) login: Option<String>,
    pub(crate) name: Option<String>,
}

/// How somebody came to be let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Known,
    /// The identity is new, the account was found by its address.
    Linked,
    SignedUp,
}

/// An address as it is stored, if it is one.
pub(crate) fn known_email(email: &str) -> Option<String> {
    super::body::email(email).ok()
}

fn refused(code: &'static str, detail: &'static str) -> Error {
    Error::new(StatusCode::FORBIDDEN, code, detail)
}

pub(crate) fn not_invited() -> Error {
    refused(
        "not_invited",
        "nobody with this e-mail address has an account here; ask an admin of this installation for an invitation",
    )
}

pub(crate) fn disabled() -> Error {
    refused("account_disabled", "this account is disabled; ask an admin of this installation")
}

fn old_way_first() -> Error {
    Error::conflict(
        "sign_in_other_way",
        "there is an account with this e-mail address that signs in another way; \
         sign in that way first, and connect this one on your account page",
    )
}

impl Auth {
    /// The user behind an identity: known, linked by an address that both sides have verified, or new
    /// when the policy lets them in.
    pub(crate) async fn user_of(
        &self,
        db: &mut PgConnection,
        proven: &Proven,
    ) -> Result<(UserId, Entry)> {
        let now = self.clock.now();
        if let Some(user) = store::user_of_identity(db, proven, now).await? {
            return Ok((user, Entry::Known));
        }
        let Some(email) = proven.email.as_deref() else {
            return Err(refused(
                "email_not_verified",
                "the provider vouches for no e-mail address of this account; verify one there and try again",
            ));
        };
        if let Some(account) = store::account_by_email(db, email).await? {
            if account.disabled {
                return Err(disabled());
            }
            let has_other = store::has_identity_of(db, account.user, proven.provider).await?;
            if !account.verified || has_other {
                return Err(old_way_first());
            }
            store::insert_identity(db, account.user, proven, now).await?;
            return Ok((account.user, Entry::Linked));
        }
        let user = self.sign_up(db, email, proven.name.as_deref()).await?;
        store::insert_identity(db, user, proven, now).await?;
        Ok((user, Entry::SignedUp))
    }

    /// A new user with an address that was proven, if the policy lets them in.
    pub(crate) async fn sign_up(
        &self,
        db: &mut PgConnection,
        email: &str,
        name: Option<&str>,
    ) -> Result<UserId> {
        if !self.may_sign_up(db, email).await? {
            return Err(not_invited());
        }
        let now = self.clock.now();
        let user = crate::users::store::insert_user(db, email, false, now).await?;
        store::verify_email(db, user, now).await?;
        if let Some(name) = name.map(|name| text::cut(name.trim(), 200))
            && text::is_plain_line(name, 200)
        {
            store::name_user(db, user, name).await?;
        }
        Ok(user)
    }

    pub(crate) async fn may_sign_up(&self, db: &mut PgConnection, email: &str) -> Result<bool> {
        let policy = &self.sign_in.config.sign_up;
        if policy.closed {
            return Ok(false);
        }
        Ok(policy.lists(email) || store::is_invited(db, email, self.clock.now()).await?)
    }

    /// Gives a signed-in user a further way in.
    pub(crate) async fn connect(
        &self,
        db: &mut PgConnection,
        user: UserId,
        proven: &Proven,
    ) -> Result<()> {
        let now = self.clock.now();
        match store::user_of_identity(db, proven, now).await? {
            Some(owner) if owner == user => Ok(()),
            Some(_) => Err(Error::conflict(
                "identity_taken",
                "this identity belongs to another account here; disconnect it there first",
            )),
            None => store::insert_identity(db, user, proven, now).await,
        }
    }
}

/// What the audit log keeps of an identity.
pub(crate) fn details(proven: &Proven) -> serde_json::Value {
    json!({"provider": proven.provider, "subject": proven.subject, "login": proven.login})
}
