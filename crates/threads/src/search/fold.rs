//! Characters as the index has them: case, accents, widths and ligatures make no difference.

use unicode_normalization::char::{decompose_compatible, is_combining_mark};

/// Gives each character that stands for `c` in the index; none for accents and what joins or varies others.
pub(crate) fn fold(c: char, mut push: impl FnMut(char)) {
    if c.is_ascii() {
        return push(c.to_ascii_lowercase());
    }
    if is_joiner(c) {
        return;
    }
    if is_unspaced(c) && !is_half_width(c) {
        // Not taken apart: the marks of kana make other letters of them, and Hangul would become jamo.
        if !is_combining_mark(c) {
            push(c);
        }
        return;
    }
    decompose_compatible(c, |part| {
        if is_combining_mark(part) {
            return;
        }
        for lower in part.to_lowercase() {
            match lower {
                'ß' => {
                    push('s');
                    push('s');
                }
                'æ' => {
                    push('a');
                    push('e');
                }
                'œ' => {
                    push('o');
                    push('e');
                }
                'ø' => push('o'),
                'đ' | 'ð' => push('d'),
                'ł' => push('l'),
                'ı' => push('i'),
                'ς' => push('σ'),
                lower if is_combining_mark(lower) => {}
                lower => push(lower),
            }
        }
    });
}

#[cfg(test)]
fn folded(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    text.chars().for_each(|c| fold(c, |c| folded.push(c)));
    folded
}

/// Stands between letters without parting them: accents, joiners, the Arabic tatweel, variation selectors.
pub(crate) fn is_joiner(c: char) -> bool {
    !c.is_ascii()
        && (matches!(c, '\u{ad}' | '\u{640}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}' | '\u{fe00}'..='\u{fe0f}')
            || is_combining_mark(c) && !is_unspaced(c))
}

/// Of a script that puts no blanks between words, or glues particles to them.
pub(crate) fn is_unspaced(c: char) -> bool {
    matches!(c,
        '\u{0e00}'..='\u{0eff}' // Thai, Lao
        | '\u{1000}'..='\u{109f}' // Myanmar
        | '\u{1780}'..='\u{17ff}' // Khmer
        | '\u{3005}'..='\u{3007}'
        | '\u{3041}'..='\u{30fa}' | '\u{30fc}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}' // kana
        | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' // Han
        | '\u{ac00}'..='\u{d7af}' // Hangul
        | '\u{ff66}'..='\u{ff9f}' // kana of half width
        | '\u{20000}'..='\u{3ffff}')
}

fn is_half_width(c: char) -> bool {
    matches!(c, '\u{ff66}'..='\u{ff9f}')
}

/// A symbol that people look for, as an emoji.
pub(crate) fn is_symbol(c: char) -> bool {
    matches!(c, '\u{1f000}'..='\u{1faff}' | '\u{2600}'..='\u{27bf}' | '\u{2b00}'..='\u{2bff}')
        // Skin tones vary the one before.
        && !matches!(c, '\u{1f3fb}'..='\u{1f3ff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_accents_and_widths_make_no_difference() {
        for (text, expected) in [
            ("Éclair NAÏVE", "eclair naive"),
            ("e\u{301}t\u{e9}", "ete"),
            ("Straße Łódź Øre ﬁx", "strasse lodz ore fix"),
            ("ＡＢＣ１２３", "abc123"),
            ("ΣΊΣΥΦΟΣ σίσυφος", "σισυφοσ σισυφοσ"),
            ("مُحَمَّد أحمد مـحـمـد", "محمد احمد محمد"),
            ("がぎ 検索 한국", "がぎ 検索 한국"),
            ("ﾃｽﾄ", "テスト"),
            ("❤\u{fe0f}", "❤"),
        ] {
            assert_eq!(folded(text), expected);
        }
    }
}
