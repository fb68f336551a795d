//! Gemini's wire, as Vertex speaks it; of providers only.
//! <https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference>

pub(crate) mod reply_in;
pub(crate) mod request_out;
