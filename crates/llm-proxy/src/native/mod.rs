//! The native routes: one request and reply for every provider.
//!
//! A request is read and checked ([`model`], [`check`]), put on the provider's wire
//! ([`to_anthropic`], [`to_openai`]), and what comes back is read from it ([`from_anthropic`],
//! [`from_openai`]) into a [`draft`], which with the account's usage and cost is the reply.

mod check;
mod draft;
mod from_anthropic;
mod from_openai;
mod http;
mod model;
mod schema;
mod stream;
#[cfg(test)]
mod tests;
mod thinking;
mod to_anthropic;
mod to_openai;
mod upstream;

pub(crate) use self::http::routes;

/// The text and the tool calls' arguments of a whole stream, for the tests of the demo.
#[cfg(test)]
pub(crate) fn decoded(
    dialect: crate::dialect::Dialect,
    stream: &[u8],
) -> Option<(String, Vec<String>)> {
    let mut decoder = stream::Decoder::new(dialect);
    let last = decoder.feed(stream).into_iter().chain(decoder.finish()).last()?;
    match last {
        draft::Event::Completed(draft) => {
            Some((draft.text, draft.calls.into_iter().map(|call| call.arguments).collect()))
        }
        _ => None,
    }
}
