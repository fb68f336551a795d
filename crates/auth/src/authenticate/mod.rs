//! Finding out who is asking. No request is refused here: what is found is left in an
//! `Authentication` for whoever asks for a `Principal`.

mod cache;
mod credential;
mod dev_mode;
pub(crate) mod holder;
pub(crate) mod store;

use std::sync::Arc;

use axum::http::{HeaderMap, StatusCode, request::Parts};
use loom_core::{
    Error, Principal, Result,
    id::{OrgId, UserId},
    principal::{Actor, Authentication, OrgRole, RequestInfo, Scopes, Via},
};

pub use cache::REVOKED;
pub(crate) use cache::{Cached, Revoked, TokenDigest, tell};
use credential::{credential, git_org, wanted_org, ws_token};
use holder::{Fault, Holder, Who};

use crate::{
    Auth, keys,
    limit::Budget,
    sessions::{self, site::cookie},
    token::{self, TokenKind},
    users::{
        self,
        model::{Membership, UserHolder},
    },
};

/// Look-ups that found nothing, from one network. It protects the database; the secrets are beyond
/// guessing.
const UNKNOWN: Budget = Budget::per_minute(120);
/// A credential's last use is written when the one before is older than this.
const TOUCH_AFTER: chrono::TimeDelta = chrono::TimeDelta::minutes(5);

impl Auth {
    /// Who is asking. Expects the server's `RequestInfo` to be in the request.
    pub async fn authenticate(&self, request: &Parts) -> Authentication {
        match self.identify(request).await {
            Ok(Some(principal)) => Authentication::Known(principal),
            Ok(None) => Authentication::Anonymous,
            Err(error) if error.status() == StatusCode::UNAUTHORIZED => {
                Authentication::Refused(error.invalid_token())
            }
            Err(error) => Authentication::Refused(error),
        }
    }

    /// Whether the credential that let somebody in still does, in the same organisation.
    pub async fn still(&self, principal: &Principal, info: &RequestInfo) -> Authentication {
        match self.by_id(principal, info).await {
            Ok(now) => Authentication::Known(now),
            Err(error) => Authentication::Refused(error),
        }
    }

    async fn by_id(&self, principal: &Principal, info: &RequestInfo) -> Result<Principal> {
        let org = principal.org.to_string();
        let (kind, found) = match (principal.via, principal.actor) {
            (Via::ApiKey(id), _) => (Kind::Key, store::digest_of_key(&self.pool, id).await?),
            (Via::Session(id), _) => {
                (Kind::Session, sessions::store::digest_of(&self.pool, id).await?)
            }
            (Via::WeaverToken(id), _) => {
                (Kind::Weaver, store::digest_of_weaver(&self.pool, id).await?)
            }
            (Via::DevMode, Actor::User(user)) => {
                return self.as_user(user, Via::DevMode, principal.scopes, Some(&org)).await;
            }
            (Via::DevMode, _) => return Err(Error::unauthenticated("no user of development mode")),
        };
        let digest = found.and_then(|digest| digest.try_into().ok());
        let digest = digest.ok_or_else(|| self.refuse(None, Fault::Unknown, Some(info)))?;
        self.by_digest(kind, digest, Some(&org), Some(info)).await
    }

    async fn identify(&self, request: &Parts) -> Result<Option<Principal>> {
        let wanted = wanted_org(&request.headers, &request.uri)?;
        // Git names the organisation in its path alone. Who is no member comes as who they are
        // elsewhere: a repository may be public.
        if let (None, Some(org)) = (&wanted, git_org(&request.uri)) {
            match self.identify_in(request, Some(org)).await {
                Err(error) if error.status() == StatusCode::NOT_FOUND => {}
                known => return known,
            }
        }
        self.identify_in(request, wanted.as_deref()).await
    }

    async fn identify_in(
        &self,
        request: &Parts,
        wanted: Option<&str>,
    ) -> Result<Option<Principal>> {
        let headers = &request.headers;
        let info = request.extensions.get::<RequestInfo>();
        if let Some(token) = credential(headers)? {
            let (kind, digest) = parse(&token)?;
            return self.by_digest(kind, digest, wanted, info).await.map(Some);
        }
        if let Some(token) = ws_token(request) {
            // It stands in an address, and those get about. Asked first, so that it is not used up.
            if self.site.has_foreign_origin(headers) {
                return Err(cross_site());
            }
            return self.by_ws_token(token, wanted, info).await.map(Some);
        }
        if cookie(headers, self.site.session_cookie()).is_some() {
            if !self.site.cookie_counts(request) {
                return Err(cross_site());
            }
            let digest = self
                .session_cookie_digest(headers)
                .ok_or_else(|| self.refuse(None, Fault::Unknown, info))?;
            return self.by_digest(Kind::Session, digest, wanted, info).await.map(Some);
        }
        let Some(&user) = self.dev_user.get() else { return Ok(None) };
        if !(info.is_some_and(|info| info.ip.is_loopback()) && dev_mode::is_local_and_own(request))
        {
            return Ok(None);
        }
        self.as_user(user, Via::DevMode, Scopes::all(), wanted).await.map(Some)
    }

    /// The digest of what a request shows, as it is stored.
    pub(crate) fn shown_credential(&self, headers: &HeaderMap) -> Result<Option<TokenDigest>> {
        Ok(match credential(headers)? {
            Some(token) => Some(token::digest(&token)),
            None => self.session_cookie_digest(headers),
        })
    }

    /// A token for one WebSocket, which is used up by this.
    async fn by_ws_token(
        &self,
        token: &str,
        wanted: Option<&str>,
        info: Option<&RequestInfo>,
    ) -> Result<Principal> {
        let taken = sessions::take_ws_token(&self.pool, token, self.clock.now()).await?;
        let Some(grant) = taken else { return Err(self.refuse(None, Fault::Unknown, info)) };
        match (grant.via.as_str(), grant.credential, self.dev_user.get()) {
            ("api_key", Some(digest), _) => self.by_digest(Kind::Key, digest, wanted, info).await,
            ("session", Some(digest), _) => {
                self.by_digest(Kind::Session, digest, wanted, info).await
            }
            ("weaver_token", Some(digest), _) => {
                self.by_digest(Kind::Weaver, digest, wanted, info).await
            }
            ("dev_mode", None, Some(&user)) => {
                self.as_user(user, Via::DevMode, Scopes::all(), wanted).await
            }
            _ => Err(self.refuse(None, Fault::Unknown, info)),
        }
    }

    async fn by_digest(
        &self,
        kind: Kind,
        digest: TokenDigest,
        wanted: Option<&str>,
        info: Option<&RequestInfo>,
    ) -> Result<Principal> {
        let holder = match self.cached.credential(&digest).await {
            Some(known) => known,
            None => self.look_up(kind, digest, info).await?,
        };
        let Some(holder) = holder else { return Err(self.refuse(None, Fault::Unknown, info)) };
        let fault = holder.fault(info.map(|info| info.ip), self.clock.now());
        if let Some(fault) = fault {
            return Err(self.refuse(Some(&holder), fault, info));
        }
        let principal = match &holder.who {
            Who::User(user) => self.as_user(*user, holder.via, holder.scopes, wanted).await,
            Who::Own { .. } => self.as_itself(&holder, wanted).await,
        };
        // The credential is sound, its user is not.
        principal.map_err(|error| match error.status().as_u16() {
            401 => self.refuse(Some(&holder), Fault::User, info),
            _ => error,
        })
    }

    /// One query for the credential and all that is behind it.
    async fn look_up(
        &self,
        kind: Kind,
        digest: TokenDigest,
        info: Option<&RequestInfo>,
    ) -> Result<Option<Arc<Holder>>> {
        if let Some(info) = info {
            self.flood.look("unknown credential", info.ip, UNKNOWN).await?;
        }
        let words = self.cached.words();
        let found = match kind {
            Kind::Key => store::api_key(&self.pool, &digest).await?,
            Kind::Weaver => store::weaver_token(&self.pool, &digest).await?,
            Kind::Session => sessions::store::holder(&self.pool, &digest).await?,
        };
        let Some((holder, user)) = found else {
            self.cached.keep_credential(digest, None, words).await;
            if let Some(info) = info {
                // It counts against the next one, not against this one.
                let _ = self.flood.take("unknown credential", info.ip, UNKNOWN).await;
            }
            return Ok(None);
        };
        if let Some(user) = user {
            self.cached.keep_user(Arc::new(user), words).await;
        }
        let holder = Arc::new(holder);
        self.cached.keep_credential(digest, Some(Arc::clone(&holder)), words).await;
        self.touch(&holder, info);
        Ok(Some(holder))
    }

    /// Notes the use of a key or a session, beside the request.
    fn touch(&self, holder: &Holder, info: Option<&RequestInfo>) {
        let via = holder.via;
        let now = self.clock.now();
        // What has ended must not begin again by being shown.
        let ended = holder.revoked || holder.expires_at.is_some_and(|at| at <= now);
        if ended || holder.last_used_at.is_some_and(|at| now - at < TOUCH_AFTER) {
            return;
        }
        let (auth, ip) = (self.clone(), info.map(|info| info.ip.to_string()));
        tokio::spawn(async move {
            let noted = match via {
                Via::ApiKey(id) => keys::store::touch_key(&auth.pool, id, now).await,
                Via::Session(id) => sessions::store::touch(&auth.pool, id, ip, now).await,
                Via::WeaverToken(_) | Via::DevMode => Ok(()),
            };
            if let Err(error) = noted {
                tracing::warn!(?error, "the last use of a credential could not be noted");
            }
        });
    }

    fn refuse(&self, holder: Option<&Holder>, fault: Fault, info: Option<&RequestInfo>) -> Error {
        self.note_refused(holder, fault, info);
        Error::unauthenticated("this credential is not known, has expired or was revoked")
    }

    /// The user, with what is asked of the user as of at most ten seconds ago; one who lacks it may have
    /// come to it since, and is read again.
    async fn user(&self, id: UserId, has: impl Fn(&UserHolder) -> bool) -> Result<Arc<UserHolder>> {
        match self.cached.user(id).await {
            Some(user) if has(&user) => Ok(user),
            _ => self.load_user(id).await,
        }
    }

    async fn load_user(&self, id: UserId) -> Result<Arc<UserHolder>> {
        let words = self.cached.words();
        let user = users::store::user_holder(&self.pool, id)
            .await?
            .map(Arc::new)
            .ok_or_else(|| Error::unauthenticated("there is no such user any more"))?;
        self.cached.keep_user(Arc::clone(&user), words).await;
        Ok(user)
    }

    /// A member of the organisation that is wanted, or of the user's own.
    async fn as_user(
        &self,
        id: UserId,
        via: Via,
        scopes: Scopes,
        wanted: Option<&str>,
    ) -> Result<Principal> {
        let user = self.user(id, |user| membership(user, wanted).is_some()).await?;
        if user.disabled {
            return Err(Error::unauthenticated("this user is disabled"));
        }
        let membership = membership(&user, wanted).ok_or_else(no_such_org)?;
        Ok(Principal {
            actor: Actor::User(user.id),
            via,
            org: membership.org,
            role: membership.role,
            scopes,
            system_admin: user.system_admin,
            auditor: user.auditor,
            name: Arc::clone(&user.email),
        })
    }

    /// A service key or a weaver has a member's rights in its own organisation and nowhere else.
    async fn as_itself(&self, holder: &Holder, wanted: Option<&str>) -> Result<Principal> {
        let Who::Own { actor, org, slug, name, owner } = &holder.who else {
            return Err(Error::internal("not a credential of its own"));
        };
        if let Some(owner) = *owner {
            let is_member = |user: &UserHolder| user.memberships.iter().any(|m| m.org == *org);
            let owner = self.user(owner, is_member).await?;
            if owner.disabled || !is_member(&owner) {
                return Err(Error::unauthenticated("its owner is no longer let in"));
            }
        }
        if wanted.is_some_and(|wanted| wanted != &**slug && wanted.parse() != Ok(*org)) {
            return Err(no_such_org());
        }
        Ok(Principal {
            actor: *actor,
            via: holder.via,
            org: *org,
            role: OrgRole::Member,
            scopes: holder.scopes,
            system_admin: false,
            auditor: false,
            name: Arc::clone(name),
        })
    }
}

/// In which table a credential is looked up.
#[derive(Clone, Copy)]
enum Kind {
    Key,
    Weaver,
    Session,
}

/// What a token can be, told by its form alone.
fn parse(token: &str) -> Result<(Kind, TokenDigest)> {
    let kind = match token::parse(token) {
        Some(TokenKind::Personal | TokenKind::Service) => Kind::Key,
        Some(TokenKind::Weaver) => Kind::Weaver,
        Some(TokenKind::Cli) => Kind::Session,
        None => {
            return Err(Error::unauthenticated(
                "this is not a Loom key: they begin with `loom_pat_` or `loom_svc_`, and a mistyped one is noticed",
            ));
        }
    };
    Ok((kind, token::digest(token)))
}

/// A browser attaches its cookie whoever asks it to.
fn cross_site() -> Error {
    Error::new(
        StatusCode::FORBIDDEN,
        "cross_site",
        "this request comes from another site, or does not say from which (`Sec-Fetch-Site`, `Origin`); \
         a session's cookie and a WebSocket's token count only in requests of our own pages",
    )
}

fn no_such_org() -> Error {
    Error::not_found("organisation")
}

/// The organisation that is wanted, or else the user's own, if the user is a member.
fn membership<'a>(user: &'a UserHolder, wanted: Option<&str>) -> Option<&'a Membership> {
    let names = |org: OrgId, slug: &str| match wanted {
        Some(wanted) => wanted == slug || wanted.parse() == Ok(org),
        None => org == user.personal_org,
    };
    user.memberships.iter().find(|m| names(m.org, &m.slug))
}
