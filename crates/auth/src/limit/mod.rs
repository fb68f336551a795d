//! How often something may be done: [`Flood`] counts in memory, for what comes in masses; [`Rare`]
//! counts in PostgreSQL, for what is costly, so that replicas do not multiply it.

mod by_address;
mod flood;
mod rare;

use std::{
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use axum::http::StatusCode;
use loom_core::Error;

pub(crate) use by_address::by_address;
pub(crate) use flood::{Flood, Subject};
pub(crate) use rare::{Rare, cleanup_job};

/// `count` at once, and as many again over each `per`, evenly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Budget {
    pub(crate) count: u32,
    pub(crate) per: Duration,
}

impl Budget {
    pub(crate) const fn per_minute(count: u32) -> Self {
        Self { count, per: Duration::from_secs(60) }
    }

    pub(crate) const fn per_hour(count: u32) -> Self {
        Self { count, per: Duration::from_secs(3600) }
    }

    /// After how long one more comes back.
    fn interval(self) -> Duration {
        self.per / self.count.max(1)
    }
}

/// Whose an address is counted as: who has an IPv6 address has at least all of its /64.
pub(crate) fn network_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64)).into(),
        v4 => v4,
    }
}

/// 429.
pub(crate) fn too_many(wait: Duration) -> Error {
    Error::new(
        StatusCode::TOO_MANY_REQUESTS,
        "rate_limited",
        "this was done too often; try again after the seconds in `Retry-After`",
    )
    .retry_after(wait.max(Duration::from_secs(1)))
}
