//! Who can be asked, in this order.

use loom_core::Result;

use crate::{attempt::Prepared, provider::Target};

/// Usually one.
pub(crate) struct Candidates {
    first: Option<Target>,
    rest: std::vec::IntoIter<Target>,
}

impl From<Target> for Candidates {
    fn from(only: Target) -> Self {
        Self { first: Some(only), rest: Vec::new().into_iter() }
    }
}

impl From<Vec<Target>> for Candidates {
    fn from(all: Vec<Target>) -> Self {
        Self { first: None, rest: all.into_iter() }
    }
}

impl Candidates {
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none() && self.rest.as_slice().is_empty()
    }

    /// The next that can be told the request.
    ///
    /// # Errors
    /// When none is left that can: why the first of them cannot.
    pub(crate) fn prepare(
        &mut self,
        prepare: impl Fn(&Target) -> Result<Prepared>,
    ) -> Result<(Target, Prepared)> {
        let mut why = None;
        while let Some(target) = self.first.take().or_else(|| self.rest.next()) {
            match prepare(&target) {
                Ok(prepared) => return Ok((target, prepared)),
                Err(error) => why = why.or(Some(error)),
            }
        }
        Err(why.unwrap_or_else(|| loom_core::Error::not_found("model")))
    }
}
