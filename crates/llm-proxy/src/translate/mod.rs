//! One form of request, reply and stream for all wires, and the way into it and out of it.
//!
//! A request of one wire that is for a provider of another is read (`*::request_in`) into a
//! [`request::Request`], put on the provider's wire (`*::request_out`), and what comes back is read
//! (`*::reply_in`) into a [`reply::Reply`], or into the [`reply::Event`]s of a stream, and told in the
//! client's own form (`*::reply_out`). None of it does I/O. The native API is a client's form like
//! any other.

pub(crate) mod anthropic;
pub(crate) mod chat;
pub(crate) mod gemini;
pub(crate) mod media;
pub(crate) mod object;
pub(crate) mod reply;
pub(crate) mod request;
pub(crate) mod responses;
pub(crate) mod stream;
#[cfg(test)]
mod tests;
pub(crate) mod thinking;

use std::borrow::Cow;

use serde_json::Value;

use crate::usage::Usage;

/// What a reply's form needs to know beside what the provider said.
#[derive(Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub(crate) usage: &'a Usage,
    /// The model that was asked for, if the provider names none.
    pub(crate) model: &'a str,
    pub(crate) request_id: &'a str,
    /// Seconds since 1970.
    pub(crate) now: i64,
}

/// Sets a member of an object.
pub(crate) fn set(object: &mut Value, name: &str, value: impl Into<Value>) {
    if let Some(members) = object.as_object_mut() {
        members.insert(name.to_owned(), value.into());
    }
}

impl Facts<'_> {
    /// What is own to this reply in its id: the provider's without its kind.
    fn id<'i>(&'i self, upstream: Option<&'i str>) -> Cow<'i, str> {
        let id = upstream.filter(|id| !id.is_empty()).unwrap_or(self.request_id);
        let kinds = ["msg_", "chatcmpl-", "resp_"];
        kinds.iter().find_map(|kind| id.strip_prefix(kind)).unwrap_or(id).into()
    }
}
