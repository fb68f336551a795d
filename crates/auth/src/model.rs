//! What the API shows.

pub use crate::{keys::model::*, organisations::model::*, users::model::*};
