//! OpenAI's chat completions wire, which the compatible providers speak too.
//! <https://platform.openai.com/docs/api-reference/chat>

pub(crate) mod reply_in;
pub(crate) mod reply_out;
pub(crate) mod request_in;
pub(crate) mod request_out;
