//! How far a secret reaches, once it is known to be one. It may go on beyond the piece of text at
//! hand: then it stays open, and the next piece continues it without any of it having been held.

use memchr::memmem;

/// The bytes that a token consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Alphanumeric,
    /// And `_`, `-`: base64 for URLs.
    Url,
    /// And `.`
    Dotted,
    /// `token68` of RFC 7235.
    Token68,
    /// The value of a parameter: all but what ends one.
    Value,
}

impl Class {
    pub(crate) fn contains(self, byte: u8) -> bool {
        match self {
            Self::Alphanumeric => byte.is_ascii_alphanumeric(),
            Self::Url => byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'),
            Self::Dotted => Self::Url.contains(byte) || byte == b'.',
            Self::Token68 => {
                Self::Dotted.contains(byte) || matches!(byte, b'~' | b'+' | b'/' | b'=')
            }
            Self::Value => {
                !(byte <= b' '
                    || matches!(
                        byte,
                        b'&' | b';' | b'"' | b'\'' | b'`' | b'<' | b'>' | b'\\' | 0x7f
                    ))
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    Run(Class),
    /// To the closing quote, or the end of the line. `slashes`: before the opening one, for JSON
    /// within JSON.
    Quoted {
        quote: u8,
        slashes: usize,
    },
    /// To the end of `-----END …-----`.
    Pem,
}

/// The body of a private key is not longer; without an end, masking ends here.
const LONGEST_PEM: usize = 32 * 1024;
const LONGEST_PEM_END: usize = 80;
const MOST_SLASHES: usize = 64;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    Ended(usize),
    /// All up to here belongs to it; continue here when there is more text.
    Open(usize),
}

impl Tail {
    /// Continues at `at` a secret that began at `start`.
    pub(crate) fn reach(self, text: &str, start: isize, at: usize, end_of_text: bool) -> Reach {
        let bytes = text.as_bytes();
        let rest = bytes.get(at..).unwrap_or_default();
        let found = match self {
            Self::Run(class) => match rest.iter().position(|byte| !class.contains(*byte)) {
                Some(length) => Reach::Ended(at + length),
                None => Reach::Open(bytes.len()),
            },
            Self::Quoted { quote, slashes } => quoted(rest, at, quote, slashes),
            Self::Pem => pem(text, start, at),
        };
        match found {
            Reach::Open(_) if end_of_text => Reach::Ended(bytes.len()),
            found => found,
        }
    }
}

fn quoted(rest: &[u8], at: usize, quote: u8, slashes: usize) -> Reach {
    let mut run = 0;
    for (index, byte) in rest.iter().enumerate() {
        match *byte {
            b'\\' if run < MOST_SLASHES => run += 1,
            b'\\' | b'\n' => return Reach::Ended(at + index),
            byte if byte == quote && run % (2 * (slashes + 1)) == slashes => {
                return Reach::Ended(at + index - slashes);
            }
            _ => run = 0,
        }
    }
    Reach::Open(at + rest.len() - run)
}

fn pem(text: &str, start: isize, at: usize) -> Reach {
    const END: &[u8] = b"-----END";
    let bytes = text.as_bytes();
    let limit = usize::try_from(start.saturating_add_unsigned(LONGEST_PEM)).unwrap_or(0);
    let within = bytes.get(at..limit.min(bytes.len())).unwrap_or_default();
    let Some(end) = memmem::find(within, END).map(|end| at + end) else {
        return if bytes.len() >= limit {
            Reach::Ended(text.ceil_char_boundary(limit.max(at)))
        } else {
            Reach::Open(text.floor_char_boundary(bytes.len().saturating_sub(END.len() - 1).max(at)))
        };
    };
    let label = end + END.len();
    let after = bytes.get(label..).unwrap_or_default();
    let after = after.get(..LONGEST_PEM_END).unwrap_or(after);
    match memmem::find(after, b"-----") {
        Some(dashes) => Reach::Ended(label + dashes + 5),
        None if after.len() == LONGEST_PEM_END => Reach::Ended(label),
        None => Reach::Open(end),
    }
}
