//! The built-in provider `demo`.
use bytes::Bytes;
use loom_core::{Error, Result};
use serde_json::Value;

use crate::{
    config::ProviderConfig,
    dialect::{Dialect, Operation},
    forward::Incoming,
};

pub(crate) const PROVIDER: &str = "demo";
pub(crate) const MODEL: &str = "loom-demo";

#[expect(clippy::expect_used, reason = "a literal of ours")]
pub(crate) fn config() -> ProviderConfig {
    ProviderConfig {
        name: PROVIDER.to_owned(),
        dialect: Dialect::OpenAi,
        base_url: "http://demo.invalid/v1".parse().expect("a URL"),
        api_key: None,
        keyless: true,
        models: vec![MODEL.to_owned()],
    }
}

pub(crate) fn answer(_operation: Operation, _body: &Bytes) -> Result<Incoming> {
    Err(Error::internal("stub"))
}

pub(crate) fn model(_dialect: Dialect) -> Value {
    Value::Null
}
