//! Test support: databases, a running server, a scriptable LLM upstream, chaos.
