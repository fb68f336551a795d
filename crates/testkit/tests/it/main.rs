//! The test support, tested.

mod chaos;
mod llm;
