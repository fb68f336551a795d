//! A runtime of its own for what must go on working whatever the test's runtime does.

use std::future::Future;

use tokio::runtime::{Builder, Handle, Runtime};

/// Everything spawned here stops when this is dropped.
pub(crate) struct Background(Option<Runtime>);

impl Background {
    pub(crate) fn start(name: &str) -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name(name)
            .enable_all()
            .build()
            .expect("a runtime can be built");
        Self(Some(runtime))
    }

    pub(crate) fn handle(&self) -> &Handle {
        self.0.as_ref().expect("only dropping takes it").handle()
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.handle().spawn(task);
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // Plain dropping would block, and panics inside another runtime.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
