//! The translation of whole conversations: recorded streams, round trips, and each field of a request.

mod bench;
mod clients;
mod fields;
mod gemini;
mod replies;
mod requests;
mod streams;

use bytes::{Bytes, BytesMut};

use super::{
    Facts, anthropic, chat, responses,
    stream::{Decoder, Encoder},
};
use crate::{dialect::Operation, observe::Observer, usage::Usage};

/// The wires that are surfaces, too.
const ALL: [Operation; 3] = [Operation::Messages, Operation::Chat, Operation::Responses];
/// The wires of providers.
const PROVIDERS: [Operation; 4] =
    [Operation::Messages, Operation::Chat, Operation::Responses, Operation::GenerateContent];

fn facts(usage: &Usage) -> Facts<'_> {
    Facts { usage, model: "asked", request_id: "req", now: 1_767_225_600 }
}

fn encoder(surface: Operation) -> Encoder {
    match surface {
        Operation::Messages => Encoder::Anthropic(anthropic::reply_out::Encoder::default()),
        Operation::Chat => Encoder::Chat(chat::reply_out::Encoder::new(true)),
        _ => Encoder::Responses(Box::new(responses::reply_stream::Encoder::new(Vec::new()))),
    }
}

/// A provider's stream, in these pieces, as a client of another wire hears it; and what it cost.
fn told<'a>(
    from: Operation,
    to: Operation,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (String, Usage) {
    let mut observer = Observer::stream(from);
    let (mut decoder, mut encoder) = (Decoder::new(from), encoder(to));
    let mut out = BytesMut::new();
    for piece in pieces {
        observer.feed(&Bytes::copy_from_slice(piece));
        for event in decoder.feed(piece) {
            encoder.event(event, &facts(&observer.seen.usage), &mut out);
        }
    }
    for event in decoder.finish() {
        encoder.event(event, &facts(&observer.seen.usage), &mut out);
    }
    (String::from_utf8(out.to_vec()).unwrap(), observer.seen.usage)
}
