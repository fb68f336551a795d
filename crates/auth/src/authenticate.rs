//! Finding out who is asking. No request is refused here: what is found is left in an
//! `Authentication` for whoever asks for a `Principal`.

use std::{
    borrow::Cow,
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
};

use axum::http::{HeaderMap, StatusCode, Uri, Version, header, request::Parts, uri::Authority};
use base64::{Engine, engine::general_purpose::STANDARD};
use loom_core::{
    Error, Principal, Result,
    id::OrgId,
    principal::{Actor, Authentication, OrgRole, RequestInfo, Via},
};

use crate::{
    Auth,
    model::{KeyHolder, Membership, UserHolder},
    store, token,
};

impl Auth {
    /// Who is asking. Expects the server's `RequestInfo` to be in the request.
    pub async fn authenticate(&self, request: &Parts) -> Authentication {
        match self.identify(request).await {
            Ok(Some(principal)) => Authentication::Known(principal),
            Ok(None) => Authentication::Anonymous,
            Err(error) => Authentication::Refused(error),
        }
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
        if let Some(token) = credential(&request.headers)? {
            return self.by_token(&token, wanted).await.map(Some);
        }
        let Some(user) = self.dev_user.get() else { return Ok(None) };
        let info = request.extensions.get::<RequestInfo>();
        if !(info.is_some_and(|info| info.ip.is_loopback()) && is_local_and_own(request)) {
            return Ok(None);
        }
        if membership(user, wanted).is_some() {
            return as_user(user, Via::DevMode, wanted).map(Some);
        }
        as_user(&self.user_holder(user.id).await?, Via::DevMode, wanted).map(Some)
    }

    async fn by_token(&self, token: &str, wanted: Option<&str>) -> Result<Principal> {
        let bad =
            || Error::unauthenticated("this credential is not known, has expired or was revoked");
        if token::parse(token).is_none() {
            return Err(Error::unauthenticated(
                "this is not a Loom key: they begin with `loom_pat_` or `loom_svc_`, and a mistyped one is noticed",
            ));
        }
        let digest = token::digest(token);
        let holder = match self.keys.get(&digest).await {
            // Its user may have joined the organisation since it was looked up.
            Some(Some(key))
                if key.user.as_ref().is_some_and(|user| membership(user, wanted).is_none()) =>
            {
                self.look_up(digest).await?
            }
            Some(known) => known,
            None => self.look_up(digest).await?,
        };
        let key = holder.ok_or_else(bad)?;
        if key.expires_at.is_some_and(|at| at <= self.clock.now()) {
            return Err(bad());
        }
        let via = Via::ApiKey(key.id);
        match &key.user {
            Some(user) if user.disabled => Err(bad()),
            Some(user) => Ok(Principal { scopes: key.scopes, ..as_user(user, via, wanted)? }),
            None => as_service(&key, via, wanted),
        }
    }

    async fn look_up(&self, digest: [u8; 32]) -> Result<Option<Arc<KeyHolder>>> {
        let revocations = self.revocations.load(Ordering::SeqCst);
        let holder = store::key_holder(&self.pool, &digest).await?.map(Arc::new);
        self.keys.insert(digest, holder.clone()).await;
        // It may be this key that was revoked while we asked.
        if self.revocations.load(Ordering::SeqCst) != revocations {
            self.keys.invalidate(&digest).await;
        }
        if let Some(key) = &holder {
            let (auth, id) = (self.clone(), key.id);
            tokio::spawn(async move {
                if let Err(error) = store::touch_key(&auth.pool, id, auth.clock.now()).await {
                    tracing::warn!(?error, "the last use of a key could not be noted");
                }
            });
        }
        Ok(holder)
    }

    /// Forgets a revoked key at once.
    pub(crate) async fn forget(&self, digest: &[u8]) {
        self.revocations.fetch_add(1, Ordering::SeqCst);
        if let Ok(digest) = <[u8; 32]>::try_from(digest) {
            self.keys.invalidate(&digest).await;
        }
    }
}

/// The token of the request: `Authorization: Bearer`, the password of `Authorization: Basic` (as git
/// sends it, under any user name), else `x-api-key`.
fn credential(headers: &HeaderMap) -> Result<Option<Cow<'_, str>>> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let text = value.to_str().unwrap_or_default();
        return match text.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
                Ok(Some(token.trim().into()))
            }
            Some((scheme, pair)) if scheme.eq_ignore_ascii_case("basic") => {
                Ok(Some(password(pair).unwrap_or_default().into()))
            }
            _ => Err(Error::unauthenticated("`Authorization` must be `Bearer <token>`")),
        };
    }
    let key = headers.get("x-api-key").map(|value| value.to_str().unwrap_or_default().trim());
    Ok(key.map(Cow::Borrowed))
}

/// What stands behind the colon of `user:password` in base64.
fn password(pair: &str) -> Option<String> {
    let pair = String::from_utf8(STANDARD.decode(pair.trim()).ok()?).ok()?;
    pair.split_once(':').map(|(_, password)| password.to_owned())
}

/// The organisation in the path of a git request, `/git/{org}/{repository}/…`.
fn git_org(uri: &Uri) -> Option<&str> {
    uri.path().strip_prefix("/git/")?.split('/').next()
}

/// The organisation that the request names, by `x-loom-org` or `?org=`.
fn wanted_org(headers: &HeaderMap, uri: &Uri) -> Result<Option<String>> {
    if let Some(value) = headers.get("x-loom-org") {
        return value
            .to_str()
            .map(|text| Some(text.to_owned()))
            .map_err(|_| Error::malformed("invalid_request", "`x-loom-org` is an id or a slug"));
    }
    let query = uri.query().unwrap_or_default();
    Ok(query.split('&').find_map(|pair| pair.strip_prefix("org=")).map(str::to_owned))
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

fn as_user(user: &UserHolder, via: Via, wanted: Option<&str>) -> Result<Principal> {
    let membership = membership(user, wanted).ok_or_else(no_such_org)?;
    Ok(Principal {
        actor: Actor::User(user.id),
        via,
        org: membership.org,
        role: membership.role,
        scopes: loom_core::principal::Scopes::all(),
        system_admin: user.system_admin,
        auditor: user.auditor,
        name: user.email.as_str().into(),
    })
}

/// A service key has a member's rights in its own organisation and nowhere else.
fn as_service(key: &KeyHolder, via: Via, wanted: Option<&str>) -> Result<Principal> {
    if wanted.is_some_and(|wanted| wanted != key.org_slug && wanted.parse() != Ok(key.org)) {
        return Err(no_such_org());
    }
    Ok(Principal {
        actor: Actor::Service(key.id),
        via,
        org: key.org,
        role: OrgRole::Member,
        scopes: key.scopes,
        system_admin: false,
        auditor: false,
        name: key.name.as_str().into(),
    })
}

/// Does the request come straight from this machine, and from no page but our own? Otherwise any web
/// page in the developer's browser, or anybody behind a local proxy, were an admin.
fn is_local_and_own(request: &Parts) -> bool {
    let headers = &request.headers;
    // A proxy that was set up in one line (nginx's `proxy_pass`) adds none of the headers below and
    // names us as the host; it speaks HTTP/1.0, which no browser and no tool of today does.
    if request.version < Version::HTTP_11 {
        return false;
    }
    let forwarded = [
        "cf-connecting-ip",
        "forwarded",
        "true-client-ip",
        "x-client-ip",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-proto",
        "x-forwarded-server",
        "x-real-ip",
        "via",
    ];
    if forwarded.iter().any(|name| headers.contains_key(*name)) {
        return false;
    }
    let host = headers
        .get(header::HOST)
        .and_then(|value| value.to_str().ok())
        .or_else(|| request.uri.authority().map(Authority::as_str));
    let Some(host) = host.filter(|host| is_loopback_host(host)) else { return false };
    let own_origin = headers.get(header::ORIGIN).is_none_or(|origin| {
        origin.to_str().is_ok_and(|origin| origin.strip_prefix("http://") == Some(host))
    });
    let own_site =
        headers.get("sec-fetch-site").is_none_or(|site| site == "same-origin" || site == "none");
    own_origin && own_site
}

fn is_loopback_host(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
