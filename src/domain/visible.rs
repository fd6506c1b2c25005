//! A filter for visible text, by Unicode property: for names, chat and room names.
//!
//! It removes control characters including NUL; default-ignorable characters (zero-width spaces and joiners,
//! directional overrides and isolates, tag characters, Hangul fillers, variation selectors); noncharacters; combining
//! marks beyond a few. It keeps what writing needs of these: ZWNJ and ZWJ where they change how letters join (Persian,
//! Indic scripts: the rules CONTEXTJ of RFC 5892), ZWJ within emoji, the variation selectors of emoji and of
//! ideographs, the tags of flags. The result is in NFC.

use std::iter::once;

use icu_normalizer::ComposingNormalizerBorrowed;
use icu_properties::props::{
    CanonicalCombiningClass, DefaultIgnorableCodePoint, Emoji, EmojiModifier, ExtendedPictographic, GeneralCategory,
    JoiningType, UnifiedIdeograph,
};
use icu_properties::{CodePointMapData, CodePointSetData};

/// The most combining marks of one character. Vietnamese takes two, Hebrew with accents three, Tibetan stacks four.
const MARKS: usize = 4;

const ZWNJ: char = '\u{200c}';
const ZWJ: char = '\u{200d}';
const BLACK_FLAG: char = '\u{1f3f4}';
const CANCEL_TAG: char = '\u{e007f}';
/// The longest region in a flag's tags, such as `gbeng`.
const FLAG_TAGS: usize = 6;
/// U+2800 is a symbol to Unicode and a blank to readers.
const BRAILLE_BLANK: char = '\u{2800}';

/// Filters one line: white space is folded to single spaces, none at the ends.
pub(super) fn line(text: &str) -> String {
    let clean = filtered(text, ' ');
    clean.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Filters lines: line breaks stay, white space at the ends goes.
pub(super) fn lines(text: &str) -> String {
    filtered(text, '\n').trim().to_owned()
}

/// Whether the text has a visible character.
pub(super) fn is_visible(text: &str) -> bool {
    use GeneralCategory::{
        ClosePunctuation, ConnectorPunctuation, CurrencySymbol, DashPunctuation, DecimalNumber, FinalPunctuation,
        InitialPunctuation, LetterNumber, LowercaseLetter, MathSymbol, ModifierLetter, ModifierSymbol, OpenPunctuation,
        OtherLetter, OtherNumber, OtherPunctuation, OtherSymbol, TitlecaseLetter, UppercaseLetter,
    };
    text.chars().any(|c| {
        let category = CodePointMapData::<GeneralCategory>::new().get(c);
        let drawn = matches!(
            category,
            UppercaseLetter
                | LowercaseLetter
                | TitlecaseLetter
                | ModifierLetter
                | OtherLetter
                | DecimalNumber
                | LetterNumber
                | OtherNumber
                | ConnectorPunctuation
                | DashPunctuation
                | OpenPunctuation
                | ClosePunctuation
                | InitialPunctuation
                | FinalPunctuation
                | OtherPunctuation
                | MathSymbol
                | CurrencySymbol
                | ModifierSymbol
                | OtherSymbol
        );
        drawn && c != BRAILLE_BLANK && !is_ignorable(c)
    })
}

fn filtered(text: &str, line_break: char) -> String {
    let text: Vec<char> = text.chars().collect();
    let mut out: Vec<char> = Vec::with_capacity(text.len());
    let (mut index, mut marks) = (0, 0);
    while let Some(&c) = text.get(index) {
        let rest = &text[index + 1..];
        index += 1;
        if let Some(flag) = flag(c, rest) {
            out.extend(once(c).chain(rest[..flag].iter().copied()));
            (index, marks) = (index + flag, 0);
            continue;
        }
        match c {
            '\r' if rest.first() == Some(&'\n') => {}
            '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}' => {
                (out, marks) = (pushed(out, line_break), 0);
            }
            c if c.is_whitespace() || c == BRAILLE_BLANK => (out, marks) = (pushed(out, ' '), 0),
            c if c.is_control() || is_noncharacter(c) => {}
            ZWNJ | ZWJ if joins(c, &out, rest) => out.push(c),
            '\u{fe0e}' | '\u{fe0f}' if out.last().is_some_and(|before| has::<Emoji>(*before)) => out.push(c),
            '\u{fe00}'..='\u{fe0d}' | '\u{e0100}'..='\u{e01ef}'
                if out.last().is_some_and(|before| has::<UnifiedIdeograph>(*before)) =>
            {
                out.push(c);
            }
            c if is_ignorable(c) => {}
            c if is_mark(c) => {
                // A mark without a base character would combine with whatever a page shows before the text.
                let stands = out.last().is_some_and(|before| !before.is_whitespace());
                if stands && marks < MARKS {
                    (out, marks) = (pushed(out, c), marks + 1);
                }
            }
            c => (out, marks) = (pushed(out, c), 0),
        }
    }
    let text: String = out.into_iter().collect();
    ComposingNormalizerBorrowed::new_nfc().normalize(&text).into_owned()
}

fn pushed(mut out: Vec<char>, c: char) -> Vec<char> {
    out.push(c);
    out
}

/// The number of tag characters that make this flag a region's, including the cancel tag.
fn flag(c: char, rest: &[char]) -> Option<usize> {
    let tags =
        rest.iter().take_while(|tag| matches!(tag, '\u{e0030}'..='\u{e0039}' | '\u{e0061}'..='\u{e007a}')).count();
    let whole = c == BLACK_FLAG && (1..=FLAG_TAGS).contains(&tags) && rest.get(tags) == Some(&CANCEL_TAG);
    whole.then_some(tags + 1)
}

/// Whether a joiner changes how its neighbours are shown.
fn joins(joiner: char, before: &[char], after: &[char]) -> bool {
    let (Some(&last), Some(&next)) = (before.last(), after.first()) else { return false };
    if CodePointMapData::<CanonicalCombiningClass>::new().get(last) == CanonicalCombiningClass::Virama {
        return true;
    }
    if joiner == ZWJ {
        let base = before.iter().rev().find(|c| **c != '\u{fe0f}');
        let pictures = base.is_some_and(|c| has::<ExtendedPictographic>(*c) || has::<EmojiModifier>(*c));
        if pictures && has::<ExtendedPictographic>(next) {
            return true;
        }
    }
    let joining = |c: &char| CodePointMapData::<JoiningType>::new().get(*c);
    let solid = |c: &&char| joining(c) != JoiningType::Transparent;
    let left = before.iter().rev().find(solid).map(joining);
    let right = after.iter().find(solid).map(joining);
    let begins = matches!(left, Some(JoiningType::DualJoining | JoiningType::LeftJoining));
    begins && (joiner == ZWJ || matches!(right, Some(JoiningType::DualJoining | JoiningType::RightJoining)))
}

fn is_ignorable(c: char) -> bool {
    // Unicode doesn't count the annotation characters as ignorable.
    has::<DefaultIgnorableCodePoint>(c) || matches!(c, '\u{fff9}'..='\u{fffb}')
}

fn is_mark(c: char) -> bool {
    let category = CodePointMapData::<GeneralCategory>::new().get(c);
    matches!(category, GeneralCategory::NonspacingMark | GeneralCategory::EnclosingMark)
}

fn is_noncharacter(c: char) -> bool {
    matches!(c, '\u{fdd0}'..='\u{fdef}') || u32::from(c) & 0xfffe == 0xfffe
}

fn has<P: icu_properties::props::BinaryProperty>(c: char) -> bool {
    CodePointSetData::new::<P>().contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_is_taken_out() {
        for hidden in [
            "\u{200b}",
            "\u{200c}",
            "\u{200d}",
            "\u{2060}",
            "\u{feff}",
            "\u{ad}",
            "\u{202e}",
            "\u{2066}",
            "\u{200f}",
            "\u{61c}",
            "\u{e0041}\u{e007f}",
            "\u{3164}",
            "\u{115f}",
            "\u{ffa0}",
            "\u{34f}",
            "\u{180e}",
            "\u{fe0f}",
            "\u{0}",
            "\u{7f}",
            "\u{fff9}",
            "\u{ffff}",
            "\u{e0100}",
        ] {
            assert_eq!(line(&format!("An{hidden}n")), "Ann", "{hidden:?}");
            assert_eq!(lines(&format!("{hidden}Ann{hidden}")), "Ann", "{hidden:?}");
            assert!(!is_visible(&line(hidden)), "{hidden:?}");
        }
    }

    #[test]
    fn what_people_write_stays() {
        for text in [
            "Ann",
            "Zoë",
            "Nguyễn Thị Ánh",
            "علی",
            "می\u{200c}خواهم",
            "नमस्ते",
            "क्\u{200d}ष",
            "ශ්\u{200d}රී",
            "שָׁלוֹם",
            "日本語 映画",
            "葛\u{e0100}飾",
            "👩\u{1f3fd}\u{200d}💻",
            "👨\u{200d}👩\u{200d}👧",
            "❤\u{fe0f}\u{200d}🔥",
            "🏴\u{200d}☠\u{fe0f}",
            "🇦🇹",
            "1\u{fe0f}\u{20e3}",
            "🏴\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}",
            "=)",
            "ß€½",
        ] {
            assert_eq!(line(text), text, "{:?}", line(text));
            assert_eq!(lines(text), text);
            assert!(is_visible(text), "{text:?}");
        }
    }

    #[test]
    fn a_character_carries_a_few_marks_and_no_tower() {
        let tower = format!("Z{}o", "\u{30d}".repeat(60));
        assert_eq!(line(&tower).chars().count(), 2 + MARKS);
        assert_eq!(line("\u{301}Ann \u{301}B"), "Ann B", "a mark without a character");
    }

    #[test]
    fn white_space_is_one_space_in_a_line_and_lines_stay_lines() {
        assert_eq!(line(" Ann\t \u{3000}\u{2028}B\u{2800} "), "Ann B");
        assert_eq!(lines("  one\r\ntwo\u{2029}three \n"), "one\ntwo\nthree");
    }

    #[test]
    fn equal_texts_have_one_spelling() {
        assert_eq!(line("Zoe\u{308}"), line("Zo\u{eb}"));
        assert_eq!(line("\u{1112}\u{1161}\u{11ab}"), "한");
    }

    #[test]
    fn blanks_marks_and_private_characters_are_nothing_to_see() {
        for text in ["", " ", "\u{2800}", "\u{301}", "\u{e000}"] {
            assert!(!is_visible(text), "{text:?}");
        }
    }
}
