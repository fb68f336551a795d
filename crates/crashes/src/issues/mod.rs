//! Issues: lists with a search language, what is known of one, what people do with them, who watches.

mod actions;
mod activity;
mod event;
pub(crate) mod http;
mod list;
mod model;
mod moves;
mod search;
mod store;
mod stream;
mod text;
mod upkeep;

pub(crate) use activity::record as record_activity;
pub(crate) use stream::{Told, Watchers};
pub(crate) use text::of_issue as searchable_words;
pub(crate) use upkeep::job;
