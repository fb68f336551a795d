//! What the mock claims to have counted: always the same, so that a test can compute the cost.
//!
//! Anthropic: cache figures are on top of `INPUT`, thinking is inside the output. All of them stand
//! in `message_start` (output 1) and, but for the 5m/1h split, again in `message_delta`, where the
//! output is final. OpenAI, chat and Responses: cached and cache-write are inside the prompt,
//! reasoning is inside the completion. Gemini:
//! cached is inside the prompt, thoughts are beside what was said.

/// Output of an answer in text.
pub const OUTPUT_TEXT: u64 = 40;
/// Output for each tool call.
pub const OUTPUT_PER_CALL: u64 = 60;
/// More output when there is thinking or reasoning.
pub const OUTPUT_THINKING: u64 = 80;

/// `usage.*` of the Messages wire.
pub mod anthropic {
    pub const INPUT: u64 = 1_200;
    pub const CACHE_CREATION_5M: u64 = 300;
    pub const CACHE_CREATION_1H: u64 = 200;
    pub const CACHE_CREATION: u64 = CACHE_CREATION_5M + CACHE_CREATION_1H;
    pub const CACHE_READ: u64 = 4_000;
    /// What `count_tokens` answers.
    pub const TOTAL_INPUT: u64 = INPUT + CACHE_CREATION + CACHE_READ;
    /// What `message_start` says.
    pub const OUTPUT_AT_START: u64 = 1;
}

/// `usage.*` of the chat, Responses and embeddings wires.
pub mod openai {
    /// The whole prompt.
    pub const PROMPT: u64 = 1_000;
    /// Of it, read from the cache.
    pub const CACHED: u64 = 400;
    /// Of it, written to the cache.
    pub const CACHE_WRITE: u64 = 100;
    /// Per input of an embeddings request.
    pub const EMBEDDING_PER_INPUT: u64 = 8;
}

/// `usageMetadata` of Gemini's wire.
pub mod gemini {
    /// The whole prompt; what `countTokens` answers.
    pub const PROMPT: u64 = 800;
    /// Of it, read from the cache.
    pub const CACHED: u64 = 300;
}

/// The output of an answer with this many tool calls, thinking or not.
pub const fn output(calls: u64, thinking: bool) -> u64 {
    let said = if calls == 0 { OUTPUT_TEXT } else { OUTPUT_PER_CALL * calls };
    if thinking { said + OUTPUT_THINKING } else { said }
}
