//! What is taken, stored before the answer.

use bytes::Bytes;
use loom_core::{
    Result,
    id::EventId,
    port::{Attachment, AttachmentSink, BoxFuture, Delivery, EventSink, Taken},
};

use crate::Crashes;

impl EventSink for Crashes {
    fn event<'a>(
        &'a self,
        _delivery: &'a Delivery,
        _id: EventId,
        _payload: Bytes,
    ) -> BoxFuture<'a, Result<Taken>> {
        Box::pin(async { Ok(Taken::Stored) })
    }

    fn feedback<'a>(
        &'a self,
        _delivery: &'a Delivery,
        _payload: Bytes,
    ) -> BoxFuture<'a, Result<Taken>> {
        Box::pin(async { Ok(Taken::Stored) })
    }
}

impl AttachmentSink for Crashes {
    fn attachment<'a>(
        &'a self,
        _delivery: &'a Delivery,
        _attachment: Attachment,
    ) -> BoxFuture<'a, Result<Taken>> {
        Box::pin(async { Ok(Taken::Stored) })
    }
}
