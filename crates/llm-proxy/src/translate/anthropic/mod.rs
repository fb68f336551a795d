//! Anthropic's Messages wire. <https://platform.claude.com/docs/en/api/messages>

pub(crate) mod reply_in;
pub(crate) mod reply_out;
pub(crate) mod request_in;
pub(crate) mod request_out;
