//! Settings of the Sentry surface.

use loom_core::config::Env;

const MIB: usize = 1024 * 1024;

#[derive(Clone, Debug)]
pub struct Config {
    /// Items of one category that an organisation may send in a minute; 0 is no limit.
    pub org_items_per_minute: u32,
    /// Bodies that are being read and handed on, together.
    pub memory_bytes: usize,
    /// An envelope or form, after decoding.
    pub envelope_bytes: usize,
    /// One attachment or minidump.
    pub attachment_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            org_items_per_minute: 0,
            memory_bytes: 512 * MIB,
            envelope_bytes: 200 * MIB,
            attachment_bytes: 100 * MIB,
        }
    }
}

impl Config {
    pub fn load(env: &mut Env) -> Self {
        let default = Self::default();
        Self {
            org_items_per_minute: env.number(
                "LOOM_SERVER_INGEST_ORG_ITEMS_PER_MINUTE",
                default.org_items_per_minute,
                0,
                1_000_000_000,
            ),
            memory_bytes: MIB
                * env.number(
                    "LOOM_SERVER_INGEST_MEMORY_MIB",
                    default.memory_bytes / MIB,
                    16,
                    1024 * 1024,
                ),
            envelope_bytes: MIB
                * env.number(
                    "LOOM_SERVER_INGEST_ENVELOPE_MIB",
                    default.envelope_bytes / MIB,
                    1,
                    1024,
                ),
            attachment_bytes: MIB
                * env.number(
                    "LOOM_SERVER_INGEST_ATTACHMENT_MIB",
                    default.attachment_bytes / MIB,
                    1,
                    // One is in memory as a whole.
                    100,
                ),
        }
    }
}
