//! Threads as agents leave them, the same from the same seed: words of Zipf's law, code, tools' output.

use loom_threads::{Raw, Role};
use uuid::Uuid;

const WORDS: usize = 60_000;
const SYLLABLES: [&str; 24] = [
    "ka", "lo", "mi", "ter", "an", "be", "su", "ro", "vin", "da", "el", "po", "qui", "gar", "ne",
    "to", "sha", "um", "fi", "lex", "or", "za", "wen", "cy",
];

/// Numbers that look random and are the same each time (`SplitMix64`).
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }
}

/// Words by how often they are said.
pub(crate) struct Vocabulary {
    words: Vec<String>,
    /// The sum of the frequencies up to each word.
    sums: Vec<f64>,
}

impl Vocabulary {
    pub(crate) fn new() -> Self {
        let mut words = Vec::with_capacity(WORDS);
        for rank in 0..WORDS {
            // The number in the base of the syllables, spread so that neighbours do not look alike.
            let mut number = (rank * 7_919 + 13) % (24 * 24 * 24 * 24);
            let mut word = String::new();
            for _ in 0..4 {
                word.push_str(SYLLABLES.get(number % 24).copied().unwrap_or_default());
                number /= 24;
            }
            words.push(word);
        }
        let mut sum = 0.0;
        let sums = (1..=WORDS).map(|rank| {
            sum += 1.0 / rank as f64;
            sum
        });
        let sums = sums.collect();
        Self { words, sums }
    }

    pub(super) fn word(&self, rank: usize) -> &str {
        self.words.get(rank).map_or("", String::as_str)
    }

    fn any(&self, numbers: &mut Numbers) -> &str {
        let most = self.sums.last().copied().unwrap_or(1.0);
        let at = (numbers.next() >> 11) as f64 / (1_u64 << 53) as f64 * most;
        self.word(self.sums.partition_point(|sum| *sum < at))
    }

    pub(crate) fn prose(&self, numbers: &mut Numbers, words: u64) -> String {
        let mut text = String::new();
        for index in 0..words {
            if index > 0 {
                text.push_str(if index % 13 == 0 { ". " } else { " " });
            }
            text.push_str(self.any(numbers));
        }
        text
    }

    fn identifier(&self, numbers: &mut Numbers) -> String {
        let (first, second) = (self.any(numbers).to_owned(), self.any(numbers));
        if numbers.below(2) == 0 {
            format!("{first}_{second}")
        } else {
            let mut chars = second.chars();
            let head = chars.next().map(|c| c.to_ascii_uppercase());
            head.into_iter().fold(first, |mut all, c| {
                all.push(c);
                all
            }) + chars.as_str()
        }
    }

    fn path(&self, numbers: &mut Numbers) -> String {
        format!("src/{}/{}.rs", self.any(numbers), self.identifier(numbers))
    }

    /// A message as it comes after the others: about 700 bytes on average.
    pub(super) fn message(&self, numbers: &mut Numbers, place: u64) -> (Role, String) {
        match place % 4 {
            0 => {
                let words = 30 + numbers.below(50);
                (Role::User, self.prose(numbers, words))
            }
            1 | 3 => {
                let words = 50 + numbers.below(60);
                let mut text = self.prose(numbers, words);
                text.push_str("\n```rust\n");
                for _ in 0..4 {
                    let [name, of, call] = [(); 3].map(|()| self.identifier(numbers));
                    text.push_str(&format!("    let {name} = {of}.{call}()?;\n"));
                }
                text.push_str("```");
                (Role::Assistant, text)
            }
            _ => {
                let mut text = String::new();
                for _ in 0..12 {
                    let (path, line) = (self.path(numbers), numbers.below(900));
                    let name = self.identifier(numbers);
                    text.push_str(&format!("{path}:{line}: warning: unused variable {name}\n"));
                }
                (Role::Tool, text)
            }
        }
    }
}

/// An id of version 7, of this time.
pub(super) fn id(numbers: &mut Numbers, millis: u64) -> Uuid {
    let mut random = [0; 10];
    for byte in &mut random {
        *byte = numbers.next() as u8;
    }
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
}

/// A text as a JSON string, as `COPY` reads it.
pub(super) fn json(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

/// What the index holds of it.
pub(super) fn indexed(role: Role, json: &str) -> (String, Option<String>) {
    Raw::try_from(json.to_owned()).map(|raw| loom_threads::indexed(role, &raw)).unwrap_or_default()
}

/// A value of a column, as `COPY` reads it.
pub(super) fn column(line: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\t' => line.push_str("\\t"),
            '\r' => line.push_str("\\r"),
            c => line.push(c),
        }
    }
}
