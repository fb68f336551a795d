//! Under which id a request is accounted: told to whoever keeps something of it, by the account, which
//! begins deep inside of the handler.

use std::{cell::RefCell, future::Future, sync::Arc};

use loom_core::id::LlmRequestId;

/// The account of a request has begun.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    pub(crate) id: LlmRequestId,
    pub(crate) provider: Arc<str>,
    pub(crate) model: String,
}

tokio::task_local! {
    static OPENED: RefCell<Option<Opened>>;
}

/// Says that an account has begun; nothing happens when nobody wants to know.
pub(crate) fn note(opened: impl FnOnce() -> Opened) {
    let _ = OPENED.try_with(|cell| cell.replace(Some(opened())));
}

/// What `work` gives, and the last account that began in it.
pub(super) async fn hearing<F: Future>(work: F) -> (F::Output, Option<Opened>) {
    let work = async {
        let output = work.await;
        (output, OPENED.try_with(RefCell::take).ok().flatten())
    };
    OPENED.scope(RefCell::default(), work).await
}
