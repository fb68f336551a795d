//! What one feature needs of another: small traits, implemented by the one and handed to the other
//! by the server. The whole list of couplings is in docs/architecture.md.

pub mod ingest;
pub mod project;

use std::{collections::HashMap, future::Future, pin::Pin};

use chrono::{DateTime, Utc};
use http::request::Parts;
use loom_common_secret::SecretString;
use serde_json::Value;

use crate::{
    Principal, Result,
    id::{ApiKeyId, OrgId, UserId, WeaverId},
    principal::{Authentication, RequestInfo, Scopes},
};

pub use ingest::{
    Attachment, AttachmentSink, CheckInSink, Delivery, EventSink, HeldBody, IntakeGate, OwnRun,
    Reported, SessionSink, Taken,
};
pub use project::{
    CrashDirectory, DsnKey, Project, ProjectDirectory, RateLimit, ReleaseFacts, ReleaseHealth,
    ReleaseRates, ThreadDirectory, ThreadRef, TracedEvent,
};

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// An act worth remembering.
#[derive(Clone, Debug)]
pub struct Act {
    /// `object.verb`, as `api_key.create`.
    pub action: &'static str,
    /// What it was done to: an id or a name, never a secret.
    pub target: String,
    pub outcome: Outcome,
    /// Further facts, never a secret.
    pub details: Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Success,
    Denied,
    Failed,
}

/// Records security-relevant acts. Implemented by `auth`, used by all.
pub trait Audit: Send + Sync {
    /// Resolves when the record is committed.
    fn record<'a>(
        &'a self,
        by: Option<&'a Principal>,
        org: Option<OrgId>,
        from: Option<&'a RequestInfo>,
        act: Act,
    ) -> BoxFuture<'a, Result<()>>;

    /// Records what somebody has done, in the organisation that they act in.
    fn done<'a>(
        &'a self,
        by: &'a Principal,
        from: &'a RequestInfo,
        action: &'static str,
        target: String,
        details: Value,
    ) -> BoxFuture<'a, Result<()>> {
        let act = Act { action, target, outcome: Outcome::Success, details };
        self.record(Some(by), None, Some(from), act)
    }
}

/// Asks once more who is behind a request, for what goes on long after it was let in. Implemented by
/// the server with `auth`, used by what streams.
pub trait Reauthenticate: Send + Sync {
    fn again<'a>(&'a self, request: &'a Parts) -> BoxFuture<'a, Authentication>;

    /// The same by the credential that let somebody in, of whom there is no request that could be asked
    /// again: a token for one WebSocket is used up. In the organisation of then.
    fn still<'a>(
        &'a self,
        principal: &'a Principal,
        info: &'a RequestInfo,
    ) -> BoxFuture<'a, Authentication>;
}

/// What API keys may spend on models. Implemented by `auth`, used by `llm-proxy`.
pub trait KeyBudgets: Send + Sync {
    /// The budget of a key in a month of UTC, in billionths of a US dollar, when it has one.
    fn monthly_nanousd(&self, key: ApiKeyId) -> BoxFuture<'_, Result<Option<i64>>>;
}

/// Whom to tell when something is wrong with the installation. Implemented by `auth`, used by `notify`.
pub trait AdminDirectory: Send + Sync {
    /// The e-mail addresses of the system admins who are not disabled; at most 100.
    fn admin_addresses(&self) -> BoxFuture<'_, Result<Vec<String>>>;
}

/// Organisations by the names that stand in paths. Implemented by `auth`, used by `scm` and by what has
/// settings under `/api/orgs/{org}`.
pub trait OrgDirectory: Send + Sync {
    /// The organisation with this id or slug.
    fn org_id<'a>(&'a self, id_or_slug: &'a str) -> BoxFuture<'a, Result<Option<OrgId>>>;

    /// The principal in the organisation that a path names, by id or slug, with the role it has there
    /// now.
    ///
    /// # Errors
    /// 404 for who is no member.
    fn acting_in<'a>(
        &'a self,
        principal: &'a Principal,
        path: &'a str,
    ) -> BoxFuture<'a, Result<Principal>>;

    /// The slug of an organisation; its id when there is no such one.
    fn org_slug(&self, org: OrgId) -> BoxFuture<'_, Result<String>>;

    /// The e-mail addresses of its members who may sign in, at most 100: of these, or without any named
    /// of all. Who is no member is absent. Where no accounts are kept there are none.
    fn member_addresses<'a>(
        &'a self,
        _org: OrgId,
        _users: &'a [UserId],
    ) -> BoxFuture<'a, Result<Vec<String>>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    /// Of these e-mail addresses those of its members who may sign in, as they are given; whether a letter is
    /// large makes no difference.
    fn members_among<'a>(
        &'a self,
        _org: OrgId,
        _emails: &'a [String],
    ) -> BoxFuture<'a, Result<Vec<String>>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

/// What a weaver may do, and until when.
#[derive(Clone, Copy, Debug)]
pub struct WeaverGrant {
    pub weaver: WeaverId,
    pub org: OrgId,
    /// The token ends when this user is disabled or leaves the organisation.
    pub owner: Option<UserId>,
    pub scopes: Scopes,
    pub expires_at: DateTime<Utc>,
}

/// The credentials of weavers. Implemented by `auth`, used by whoever runs weavers.
pub trait WeaverTokens: Send + Sync {
    /// A new token; the ones that the weaver has stay good.
    fn issue(&self, grant: WeaverGrant) -> BoxFuture<'_, Result<SecretString>>;

    /// Ends every token of a weaver, on all replicas.
    fn revoke(&self, org: OrgId, weaver: WeaverId) -> BoxFuture<'_, Result<()>>;
}

/// What never changes of a weaver.
#[derive(Clone, Copy, Debug)]
pub struct WeaverFacts {
    /// None when a service key made it.
    pub owner: Option<UserId>,
    /// Billionths of a US dollar that it may spend on models in its whole life.
    pub budget_nanousd: Option<i64>,
}

/// Whose account a request to a model may be put on. Implemented by `weavers`, used by `llm-proxy`.
pub trait WeaverDirectory: Send + Sync {
    /// The weaver of this organisation, if there is or was one.
    fn weaver(&self, org: OrgId, id: WeaverId) -> BoxFuture<'_, Result<Option<WeaverFacts>>>;
}

/// What was spent on models.
#[derive(Clone, Copy, Debug)]
pub struct Spent {
    /// Billionths of a US dollar.
    pub nanousd: i64,
    /// When the last request began.
    pub last_at: DateTime<Utc>,
}

/// What was spent on models. Implemented by `llm-proxy`, used by `weavers`.
pub trait Spend: Send + Sync {
    /// Of these weavers; who has asked nothing is absent.
    fn of_weavers<'a>(
        &'a self,
        org: OrgId,
        weavers: &'a [WeaverId],
    ) -> BoxFuture<'a, Result<HashMap<WeaverId, Spent>>>;
}
