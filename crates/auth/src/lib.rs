//! Who is asking: API keys, development mode, organisations, audit.
