//! What is measured.

use loom_core::telemetry::Metric;

pub const METRICS: &[Metric] = &[
    Metric::counter(
        "loom_symbolication_lookups_total",
        "Files that were looked for, by what was answered: `found` or `missing`.",
        &["answer"],
    ),
    Metric::counter(
        "loom_symbolication_derived_total",
        "Derived files that were opened, from `disk` or `made` anew.",
        &["from"],
    ),
    Metric::gauge("loom_symbolication_derived_bytes", "Bytes of derived files on disk.", &[]),
];
