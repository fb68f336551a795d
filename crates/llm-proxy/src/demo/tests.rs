//! The demo, read by our own decoders.
