//! Quantities as Kubernetes writes them: `500m`, `2`, `16Gi`, `1.5G`.

const UNITS: &[(&str, i128)] = &[
    ("Ki", 1000 << 10),
    ("Mi", 1000 << 20),
    ("Gi", 1000 << 30),
    ("Ti", 1000 << 40),
    ("Pi", 1000 << 50),
    ("m", 1),
    ("k", 1_000_000),
    ("M", 1_000_000_000),
    ("G", 1_000_000_000_000),
    ("T", 1_000_000_000_000_000),
    ("P", 1_000_000_000_000_000_000),
];
/// Digits before and behind the point.
const LONGEST: usize = 20;

/// In thousandths, rounded up.
pub(crate) fn thousandths(text: &str) -> Option<i64> {
    let (number, unit) = UNITS
        .iter()
        .find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, *unit)))
        .unwrap_or((text, 1000));
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let digits =
        |text: &str| text.len() <= LONGEST && text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty()
        || !digits(whole)
        || !digits(part)
        || number.ends_with('.')
        || part.len() > 9
    {
        return None;
    }
    let scale = 10_i128.pow(u32::try_from(part.len()).ok()?);
    let all: i128 = format!("{whole}{part}").parse().ok()?;
    i64::try_from((all.checked_mul(unit)? + scale - 1) / scale).ok()
}

/// Bytes, in the largest unit that divides them.
pub(crate) fn bytes(count: i64) -> String {
    for (unit, size) in [("Ti", 1_i64 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)] {
        if count >= size && count % size == 0 {
            return format!("{}{unit}", count / size);
        }
    }
    count.to_string()
}

/// Cores of thousandths.
pub(crate) fn cores(millis: i64) -> String {
    if millis % 1000 == 0 { (millis / 1000).to_string() } else { format!("{millis}m") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        for (text, value) in [
            ("1", Some(1000)),
            ("500m", Some(500)),
            ("0.5", Some(500)),
            ("1.5G", Some(1_500_000_000_000)),
            ("16Gi", Some((16 << 30) * 1000)),
            ("1Ki", Some(1_024_000)),
            ("0.0001", Some(1)),
            ("", None),
            ("-1", None),
            ("1.", None),
            (".5", None),
            ("1e3", None),
            ("1 Gi", None),
            ("Gi", None),
            ("NaN", None),
            ("99999999999999999999Pi", None),
            ("1GiGi", None),
        ] {
            assert_eq!(thousandths(text), value, "{text}");
        }
        assert_eq!(
            (bytes(16 << 30), bytes(1000), cores(500), cores(2000)),
            ("16Gi".into(), "1000".into(), "500m".into(), "2".into())
        );
    }
}
