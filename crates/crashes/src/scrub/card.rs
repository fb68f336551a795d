//! Numbers of payment cards: digits in groups, of a known issuer, with the right check digit.

use super::MARK;

const SHORTEST: usize = 13;
const LONGEST: usize = 19;

/// In place of each card's number in a text.
pub(super) fn mask(text: &mut String) {
    let mut masked: Option<String> = None;
    let mut from = 0;
    let mut at = 0;
    let bytes = text.as_bytes();
    while let Some(offset) =
        bytes.get(at..).and_then(|rest| rest.iter().position(u8::is_ascii_digit))
    {
        let start = at + offset;
        let end = group_end(bytes, start);
        at = end;
        let bounded = !start.checked_sub(1).and_then(|before| bytes.get(before)).is_some_and(joins)
            && !bytes.get(end).is_some_and(joins);
        if end - start < SHORTEST || !bounded {
            continue;
        }
        let Some(found) = text.get(start..end) else { continue };
        let digits: String = found.chars().filter(char::is_ascii_digit).collect();
        if is_number(&digits) {
            let out = masked.get_or_insert_default();
            out.push_str(text.get(from..start).unwrap_or_default());
            out.push_str(MARK);
            from = end;
        }
    }
    if let Some(mut out) = masked {
        out.push_str(text.get(from..).unwrap_or_default());
        *text = out;
    }
}

fn joins(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || *byte == b'_' || *byte >= 0x80
}

/// Digits, and single spaces or dashes between them.
fn group_end(bytes: &[u8], start: usize) -> usize {
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let mut at = start;
    loop {
        if digit(at) {
            at += 1;
        } else if matches!(bytes.get(at), Some(b' ' | b'-')) && digit(at + 1) {
            at += 2;
        } else {
            return at;
        }
    }
}

pub(super) fn is_number(digits: &str) -> bool {
    (SHORTEST..=LONGEST).contains(&digits.len()) && issued(digits) && luhn(digits)
}

fn issued(digits: &str) -> bool {
    let first =
        |many: usize| digits.get(..many).and_then(|part| part.parse::<u32>().ok()).unwrap_or(0);
    match digits.len() {
        13 => first(1) == 4,
        14 => matches!(first(2), 30 | 36 | 38 | 39),
        15 => matches!(first(2), 34 | 37),
        16 => {
            first(1) == 4
                || matches!(first(2), 35 | 51..=55 | 60 | 62 | 64 | 65)
                || (2221..=2720).contains(&first(4))
        }
        _ => first(1) == 4 || matches!(first(2), 62 | 60 | 64 | 65),
    }
}

fn luhn(digits: &str) -> bool {
    let sum: u32 = digits
        .bytes()
        .rev()
        .enumerate()
        .map(|(at, byte)| {
            let digit = u32::from(byte.saturating_sub(b'0'));
            match at % 2 {
                0 => digit,
                _ if digit > 4 => digit * 2 - 9,
                _ => digit * 2,
            }
        })
        .sum();
    sum.is_multiple_of(10)
}
