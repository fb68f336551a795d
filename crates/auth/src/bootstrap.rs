//! The first admin and keys from the command line, and the development user.

use std::time::Duration;

use loom_common_secret::SecretString;
use loom_core::{
    Error, Result,
    id::{ApiKeyId, UserId},
    port::{Act, Audit, Outcome},
    principal::Scopes,
};
use serde_json::json;

use crate::{Auth, keys, sign_in, token, users::store};

pub(crate) const DEV_EMAIL: &str = "dev@localhost";

/// A key that was just made; its secret is not to be had again.
pub struct NewKey {
    pub id: ApiKeyId,
    pub secret: SecretString,
}

impl Auth {
    /// A system admin with this address, made or promoted, and a key with every scope.
    pub async fn create_admin(&self, email: &str) -> Result<NewKey> {
        let email = normalise_email(email)?;
        let user = self.ensure_user(&email, true).await?;
        // Whoever runs commands on the server's machine vouches for it.
        let mut db = self.pool.acquire().await?;
        sign_in::store::verify_email(&mut db, user, self.clock.now()).await?;
        drop(db);
        self.create_key(user, "made on the command line", Scopes::all(), None).await
    }

    /// A personal key for a user who is there already.
    pub async fn key_for(
        &self,
        email: &str,
        scopes: Scopes,
        expires_in: Option<Duration>,
    ) -> Result<NewKey> {
        let email = normalise_email(email)?;
        let user = store::user_by_email(&self.pool, &email)
            .await?
            .ok_or_else(|| Error::not_found("user"))?;
        self.create_key(user, "made on the command line", scopes, expires_in).await
    }

    pub(crate) async fn ensure_user(&self, email: &str, system_admin: bool) -> Result<UserId> {
        let mut tx = loom_db::begin(&self.pool).await?;
        let user = match store::user_by_email(&mut *tx, email).await? {
            Some(user) => {
                if system_admin {
                    store::make_system_admin(&mut *tx, user).await?;
                }
                user
            }
            None => {
                match store::insert_user(&mut tx, email, system_admin, self.clock.now()).await {
                    // Another replica made it in this moment.
                    Err(error) if error.code() == "conflict" => {
                        drop(tx);
                        return store::user_by_email(&self.pool, email)
                            .await?
                            .ok_or_else(|| Error::not_found("user"));
                    }
                    result => result?,
                }
            }
        };
        tx.commit().await?;
        Ok(user)
    }

    async fn create_key(
        &self,
        user: UserId,
        name: &str,
        scopes: Scopes,
        expires_in: Option<Duration>,
    ) -> Result<NewKey> {
        let org = store::user_holder(&self.pool, user)
            .await?
            .ok_or_else(|| Error::not_found("user"))?
            .personal_org;
        let secret = token::generate(token::TokenKind::Personal);
        let now = self.clock.now();
        let id = ApiKeyId::new(now);
        let row = keys::store::KeyRow {
            id,
            org,
            user: Some(user),
            name,
            digest: &token::digest(secret.expose()),
            last_four: last_four(secret.expose()),
            scopes,
            created_by: Some(user),
            created_at: now,
            created_ip: None,
            expires_at: expires_in.map(|after| now + after),
            networks: &[],
            budget_nanousd: None,
        };
        keys::store::insert_key(&self.pool, &row).await?;
        let details = json!({"scopes": scopes.iter().collect::<Vec<_>>(), "user_id": user});
        let act = Act {
            action: "api_key.create",
            target: id.to_string(),
            outcome: Outcome::Success,
            details,
        };
        self.audit.record(None, Some(org), None, act).await?;
        Ok(NewKey { id, secret })
    }
}

pub(crate) fn last_four(secret: &str) -> &str {
    secret.get(secret.len().saturating_sub(4)..).unwrap_or_default()
}

/// Case-folded and trimmed; nothing else is rewritten. A letter beyond ASCII that folds into it (the
/// Kelvin sign into `k`) would make one address of two, which are not the same mailbox: it is refused.
pub(crate) fn normalise_email(email: &str) -> Result<String> {
    let becomes_ascii = |c: char| !c.is_ascii() && c.to_lowercase().all(|folded| folded.is_ascii());
    if email.contains(becomes_ascii) {
        return Err(Error::invalid("email", "is not an e-mail address"));
    }
    let email = email.trim().to_lowercase();
    let well_formed = email.split_once('@').is_some_and(|(local, domain)| {
        !local.is_empty() && !domain.is_empty() && !domain.contains('@')
    });
    if well_formed && loom_core::text::is_plain_line(&email, 254) && !email.contains(' ') {
        Ok(email)
    } else {
        Err(Error::invalid("email", "is not an e-mail address"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_addresses_do_not_become_one() {
        assert_eq!(normalise_email(" Mike@Example.COM ").unwrap(), "mike@example.com");
        assert_eq!(normalise_email("J\u{dc}RGEN@example.com").unwrap(), "j\u{fc}rgen@example.com");
        // The Kelvin sign.
        for email in ["mi\u{212a}e@example.com", "mike@\u{212a}example.com"] {
            assert!(normalise_email(email).is_err(), "{email}");
        }
    }
}
