//! What was used, by time and by whom: sums by the hour and by the day that a job takes, and the rows that
//! it has not come to yet, read together, so that an answer is exact at every moment.

mod http;
mod model;
mod news;
mod read;
mod roll_up;
mod sketch;
mod store;
mod stream;
mod sum;

pub(crate) use http::routes;
pub(crate) use news::News;
pub use news::USAGE_CHANNEL;
pub(crate) use roll_up::roll_up;
pub(crate) use store::delete_before;
pub(crate) use stream::{PLACES, routes as stream_routes};
