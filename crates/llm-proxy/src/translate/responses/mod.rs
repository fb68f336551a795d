//! OpenAI's responses wire. <https://platform.openai.com/docs/api-reference/responses>

pub(crate) mod reply_in;
pub(crate) mod reply_out;
pub(crate) mod reply_stream;
pub(crate) mod request_in;
pub(crate) mod request_out;
