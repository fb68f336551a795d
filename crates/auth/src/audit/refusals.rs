//! What was refused is recorded too, but no more of it than the table can bear.

use loom_core::{
    Principal,
    port::{Act, Audit, Outcome},
    principal::RequestInfo,
};
use serde_json::json;

use crate::{
    Auth,
    authenticate::holder::{Fault, Holder, Who},
    limit::{Budget, Subject},
};

/// Refusals recorded of one network, and of all together; the log and the metrics have the rest.
const OF_ONE: Budget = Budget::per_minute(10);
const OF_ALL: Budget = Budget::per_minute(300);

impl Auth {
    /// A credential was shown that is not good.
    pub(crate) fn note_refused(
        &self,
        holder: Option<&Holder>,
        fault: Fault,
        info: Option<&RequestInfo>,
    ) {
        let Some(info) = info.cloned() else { return };
        let org = holder.and_then(|holder| match holder.who {
            Who::Own { org, .. } => Some(org),
            Who::User(_) => None,
        });
        let target = holder
            .and_then(|holder| holder.via.credential_id())
            .map(|id| id.to_string())
            .unwrap_or_default();
        let mut details = json!({ "reason": fault.as_str() });
        if let Some(Holder { via, who: Who::User(user), .. }) = holder {
            details = json!({ "reason": fault.as_str(), "user_id": user, "via": via.as_str() });
        }
        let act = Act { action: "credential.refuse", target, outcome: Outcome::Denied, details };
        self.note(None, org, info, act);
    }

    /// Somebody known asked for what is not allowed to them.
    pub fn note_denied(&self, by: &Principal, info: &RequestInfo, method: &str, route: &str) {
        let act = Act {
            action: "access.deny",
            target: format!("{method} {route}"),
            outcome: Outcome::Denied,
            details: json!({}),
        };
        self.note(Some(by.clone()), Some(by.org), info.clone(), act);
    }

    /// Beside the request, which does not wait for it.
    pub(crate) fn note(
        &self,
        by: Option<Principal>,
        org: Option<loom_core::id::OrgId>,
        info: RequestInfo,
        act: Act,
    ) {
        let auth = self.clone();
        tokio::spawn(async move {
            let within = auth.flood.take("audit", info.ip, OF_ONE).await.is_ok()
                && auth.flood.take("audit", Subject::Everybody, OF_ALL).await.is_ok();
            if !within {
                return;
            }
            if let Err(error) = auth.audit.record(by.as_ref(), org, Some(&info), act).await {
                tracing::warn!(?error, "a refusal could not be recorded");
            }
        });
    }
}
