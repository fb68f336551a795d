//! Check-ins from SDKs, and from our own scheduler.

use bytes::Bytes;
use loom_core::{
    Result,
    port::{BoxFuture, CheckInSink, Delivery, OwnRun, Taken},
};

use crate::Crons;

impl CheckInSink for Crons {
    fn check_in<'a>(
        &'a self,
        _delivery: &'a Delivery,
        _payload: Bytes,
    ) -> BoxFuture<'a, Result<Taken>> {
        Box::pin(async { Ok(Taken::Stored) })
    }

    fn own_run(&self, _run: OwnRun) {}
}
