//! Names without case and accents.
//!
//! PS3.4 C.2.2.2.1 lets person names match regardless of case and accents, and clerks write them either way. Both sides
//! of a comparison go through here, so it only matters that the same name always folds to the same text.

use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;

/// The longest folded component group, in characters: PS3.5 6.2 (PN) allows 64, and compatibility forms are longer. What
/// a hostile one has beyond is not searched, and makes no index entry that PostgreSQL would refuse.
const LONGEST: usize = 200;

/// Compatibility decomposition, marks removed, case folded. Voicing marks of kana stay: they are no accents, and half of
/// the names of Japan would become those of others.
pub(crate) fn fold(text: &str) -> String {
    let plain = text.nfkd().filter(|c| !is_combining_mark(*c) || is_voicing(*c));
    let upper = plain.flat_map(char::to_uppercase);
    upper.flat_map(char::to_lowercase).flat_map(without_stroke).nfc().collect()
}

fn is_voicing(c: char) -> bool {
    matches!(c, '\u{3099}' | '\u{309A}')
}

/// Letters that Unicode does not take apart, as they are written where they cannot be typed.
fn without_stroke(c: char) -> impl Iterator<Item = char> {
    let (first, second) = match c {
        'ł' => ('l', None),
        'ø' => ('o', None),
        'đ' | 'ð' => ('d', None),
        'ħ' => ('h', None),
        'ı' => ('i', None),
        'æ' => ('a', Some('e')),
        'œ' => ('o', Some('e')),
        'þ' => ('t', Some('h')),
        _ => (c, None),
    };
    std::iter::once(first).chain(second)
}

/// A name's component groups (PS3.5 6.2.1.1): alphabetic, ideographic, phonetic, each folded. `None` where one is empty.
pub(crate) fn name(text: &str) -> [Option<String>; 3] {
    let mut groups = text.split('=').map(group);
    std::array::from_fn(|_| groups.next().flatten())
}

/// One component group: components without outer spaces, and without empty ones at the end.
pub(crate) fn group(text: &str) -> Option<String> {
    let folded = fold(text);
    let components: Vec<&str> = folded.split('^').map(str::trim).collect();
    let joined = components.join("^");
    let kept: String = joined.trim_end_matches('^').chars().take(LONGEST).collect();
    (!kept.is_empty()).then_some(kept)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_that_people_take_for_the_same_fold_to_the_same() {
        let table = [
            ("MÜLLER^Jérôme", "muller^jerome"),
            ("Straße", "strasse"),
            ("STRASSE", "strasse"),
            ("Sørensen ^ Łukasz ^^", "sorensen^lukasz"),
            ("ΔΙΟΝΥΣΙΟΣ", "διονυσιοσ"),
            ("Διονύσιος", "διονυσιοσ"),
            ("ﾔﾏﾀﾞ^ﾀﾛｳ", "ヤマダ^タロウ"),
            ("홍^길동", "홍^길동"),
            ("İSTANBUL", "istanbul"),
        ];
        for (name, folded) in table {
            assert_eq!(group(name).as_deref(), Some(folded), "{name}");
        }
        assert_ne!(fold("ハ"), fold("バ"));
        assert_eq!(
            name("Yamada^Tarou=山田^太郎="),
            [Some("yamada^tarou".to_owned()), Some("山田^太郎".to_owned()), None]
        );
        assert_eq!(name(" ^^ "), [None, None, None]);
    }

    proptest! {
        #[test]
        fn folding_twice_changes_nothing_more(text in "\\PC{0,40}") {
            let once = fold(&text);
            prop_assert_eq!(fold(&once), once);
        }
    }
}
