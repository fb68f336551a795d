//! Issues: lists with a search language, what is known of one, what people do with them, who watches.

pub(crate) mod actions;
mod activity;
pub(crate) mod event;
pub(crate) mod http;
mod list;
pub(crate) mod model;
mod moves;
mod search;
pub(crate) mod store;
mod stream;
mod text;
mod upkeep;

pub(crate) use activity::record as record_activity;
pub(crate) use stream::{Told, Watchers};
pub(crate) use text::of_issue as searchable_words;
pub(crate) use upkeep::job;
