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
        delivery: &'a Delivery,
        id: EventId,
        payload: Bytes,
    ) -> BoxFuture<'a, Result<Taken>> {
        Box::pin(self.take(delivery, id, payload))
    }

    fn feedback<'a>(
        &'a self,
        delivery: &'a Delivery,
        payload: Bytes,
    ) -> BoxFuture<'a, Result<Taken>> {
        Box::pin(self.take_feedback(delivery, payload))
    }
}

impl AttachmentSink for Crashes {
    fn attachment<'a>(
        &'a self,
        delivery: &'a Delivery,
        attachment: Attachment,
    ) -> BoxFuture<'a, Result<Taken>> {
        Box::pin(self.attach_file(delivery, attachment))
    }
}
