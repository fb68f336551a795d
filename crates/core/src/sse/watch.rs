//! The one loop behind the streams of what happens.

use std::time::Duration;

use bytes::Bytes;
use futures::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};
use tokio::time::timeout;

use super::{Bye, KEEP_ALIVE, Leash, Seat};

/// Nothing is given out on an authorisation that is older than this.
const FRESH: Duration = Duration::from_secs(1);

/// A stream for one who watches: first what it begins with, then what is heard, and a comment where that is
/// nothing for a while. Its last event says why it ends: by its leash, or because nothing is heard any more,
/// which is when the server goes down.
pub fn watch(
    begin: Bytes,
    heard: impl Stream<Item = Bytes> + Send + 'static,
    leash: Leash,
    seat: Seat,
) -> impl Stream<Item = Bytes> + Send {
    let watch =
        Watch { begin: Some(begin), heard: heard.boxed(), leash, ended: false, _seat: seat };
    stream::unfold(watch, |mut watch| async move {
        if watch.ended {
            return None;
        }
        let piece = match watch.piece().await {
            Ok(piece) => piece,
            Err(bye) => {
                watch.ended = true;
                Bytes::from_static(bye.event().as_bytes())
            }
        };
        Some((piece, watch))
    })
}

struct Watch {
    begin: Option<Bytes>,
    heard: BoxStream<'static, Bytes>,
    leash: Leash,
    ended: bool,
    _seat: Seat,
}

impl Watch {
    async fn piece(&mut self) -> Result<Bytes, Bye> {
        if let Some(begin) = self.begin.take() {
            return Ok(begin);
        }
        let next = timeout(KEEP_ALIVE, self.heard.next());
        match self.leash.unless_ended(next).await? {
            Ok(Some(piece)) => {
                self.leash.check_again(FRESH).await?;
                Ok(piece)
            }
            Ok(None) => Err(Bye::Shutdown),
            Err(_) => Ok(Bytes::from_static(b": keep-alive\n\n")),
        }
    }
}
