//! A provider's stream as the native routes tell it: one `completed` or one `error` ends it.

use axum::response::sse;

use super::{
    model::{Reply, StreamEvent},
    reply::native,
};
use crate::{
    ledger::Outcome,
    live::{Account, Live},
    translate::reply::{self as neutral, Block, Event, Kind},
};

/// A running stream, and the reply as far as it has come.
pub(super) struct Telling {
    live: Live,
    reply: neutral::Reply,
}

pub(super) fn events(live: Live) -> impl futures::Stream<Item = sse::Event> + Send {
    let telling = Telling { live, reply: neutral::Reply::default() };
    futures::stream::unfold(telling, |mut telling| async move {
        let event = telling.next().await?;
        Some((event, telling))
    })
}

/// The reply, and its bytes on the account, which ends with it.
pub(super) fn complete(account: &mut Account, reply: neutral::Reply) -> Reply {
    let cost = account.finish();
    let reply = native(reply, account.id(), account.asked(), account.usage(), cost);
    account.passed(serde_json::to_vec(&reply).map_or(0, |json| json.len()));
    account.settle(Outcome::Succeeded, None);
    reply
}

impl Telling {
    async fn next(&mut self) -> Option<sse::Event> {
        loop {
            let event = self.live.next().await?;
            self.reply.take(&event);
            let event = match event {
                Event::Open { block, kind: Kind::Call { .. } } => {
                    // With what it begins with, if that is there already.
                    let begun = match self.live.waiting.front() {
                        Some(Event::Delta { block: of, .. }) if *of == block => self.live.at_hand(),
                        _ => None,
                    };
                    let mut text = String::new();
                    if let Some(begun) = begun {
                        self.reply.take(&begun);
                        if let Event::Delta { text: more, .. } = begun {
                            text = more;
                        }
                    }
                    self.delta(block, text)
                }
                Event::Delta { block, text } => self.delta(block, text),
                Event::Finished { .. } => {
                    let reply = std::mem::take(&mut self.reply);
                    let response = Box::new(complete(&mut self.live.account, reply));
                    return Some(frame(&StreamEvent::Completed { response }).0);
                }
                Event::Failed(failure) => {
                    let retry = matches!(failure.code, "unavailable" | "rate_limited");
                    let (frame, size) = frame(&StreamEvent::Error {
                        error: failure.code.to_owned(),
                        message: failure.message,
                        retry_after_secs: retry.then_some(5),
                    });
                    self.live.account.passed(size);
                    self.live.account.settle(Outcome::Failed, Some(failure.code));
                    return Some(frame);
                }
                Event::Start { .. }
                | Event::Open { .. }
                | Event::Seal { .. }
                | Event::Cite { .. }
                | Event::Close { .. } => None,
            };
            if let Some(event) = event {
                let (frame, size) = frame(&event);
                self.live.account.passed(size);
                return Some(frame);
            }
        }
    }

    fn delta(&self, block: usize, text: String) -> Option<StreamEvent> {
        Some(match self.reply.blocks.get(block)? {
            Block::Text(..) | Block::Refusal(_) => StreamEvent::TextDelta { content: text },
            Block::Thinking(_) => StreamEvent::ThinkingDelta { content: text },
            Block::Call { id, name, .. } => StreamEvent::ToolCallDelta {
                call_id: id.clone(),
                tool_name: name.clone(),
                arguments_fragment: text,
            },
        })
    }
}

fn frame(event: &StreamEvent) -> (sse::Event, usize) {
    let json = serde_json::to_string(event).unwrap_or_default();
    let size = json.len();
    (sse::Event::default().event("llm").data(json), size)
}
