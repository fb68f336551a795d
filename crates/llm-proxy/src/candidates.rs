//! Who can be asked, in this order.

use loom_core::Result;

use crate::{attempt::Prepared, pool::CALLERS, provider::Target};

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

    /// Those that a caller's own token is for: it is one provider's, and no other is ever to see it.
    ///
    /// # Errors
    /// 400 when it may be that of several.
    pub(crate) fn of_whom_a_token_is(self) -> Result<Self> {
        let all: Vec<Target> = self.first.into_iter().chain(self.rest).collect();
        let takes = |target: &Target| target.provider.pool.takes_callers();
        if !all.iter().any(takes) {
            return Ok(all.into());
        }
        let taking: Vec<Target> = all.into_iter().filter(takes).collect();
        let mut names = taking.iter().map(|target| &*target.provider.name);
        let first = names.next();
        if names.any(|name| Some(name) != first) {
            return Err(loom_core::Error::malformed(
                "provider_token_not_allowed",
                format!(
                    "this model is served by several providers, and a token in `{CALLERS}` is for one: name a \
                     model of that provider"
                ),
            ));
        }
        Ok(taking.into())
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
