//! Wild card matching (PS3.4 C.2.2.2.4): `*` is any text, also none, and `?` is any one character.

use std::fmt;

/// A pattern without two `*` in a row. Its text is what a peer looks for, so it is not printed.
#[derive(Clone, Eq, PartialEq)]
pub struct Pattern(String);

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pattern(..)")
    }
}

impl Pattern {
    /// The most `*` of one pattern. No person writes as many, and each may cost a walk over the value.
    pub const MOST: usize = 32;

    /// Reads a pattern; `None` if it has more than [`Pattern::MOST`] of `*`, however many stand together.
    pub fn new(text: &str) -> Option<Self> {
        let mut pattern = String::with_capacity(text.len());
        for c in text.chars() {
            if c != '*' || !pattern.ends_with('*') {
                pattern.push(c);
            }
        }
        (pattern.matches('*').count() <= Self::MOST).then_some(Self(pattern))
    }

    /// Whether nothing but one text matches.
    pub fn literal(&self) -> Option<&str> {
        (!self.0.contains(['*', '?'])).then_some(self.0.as_str())
    }

    /// The pattern as it is written, `*` never twice in a row.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// What every match begins with; may be empty.
    pub fn prefix(&self) -> &str {
        self.0.split(['*', '?']).next().unwrap_or_default()
    }

    /// Whether a value matches, whole. Goes back to the last `*` only: the time is at most the product of both lengths.
    pub fn matches(&self, value: &str) -> bool {
        let (mut pattern, mut rest) = (self.0.as_str(), value);
        let mut last: Option<(&str, &str)> = None;
        loop {
            let (mut wanted, mut here) = (pattern.chars(), rest.chars());
            match (wanted.next(), here.next()) {
                (Some('*'), _) => {
                    pattern = wanted.as_str();
                    last = Some((pattern, rest));
                    continue;
                }
                (None, None) => return true,
                (Some(w), Some(h)) if w == '?' || w == h => {
                    (pattern, rest) = (wanted.as_str(), here.as_str());
                    continue;
                }
                _ => {}
            }
            let Some((after, from)) = last else { return false };
            let mut longer = from.chars();
            if longer.next().is_none() {
                return false;
            }
            (pattern, rest) = (after, longer.as_str());
            last = Some((after, rest));
        }
    }

    /// For SQLite's GLOB, which knows sets beside our two signs and, unlike its LIKE, case.
    pub(crate) fn glob(&self) -> String {
        self.0.replace('[', "[[]")
    }

    /// For PostgreSQL's LIKE, with `\` as its escape.
    pub(crate) fn like(&self) -> String {
        let mut like = String::with_capacity(self.0.len());
        for c in self.0.chars() {
            match c {
                '*' => like.push('%'),
                '?' => like.push('_'),
                '%' | '_' | '\\' => like.extend(['\\', c]),
                _ => like.push(c),
            }
        }
        like
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use proptest::prelude::*;

    use super::*;

    /// As the standard says it, tried in every way.
    fn naive(pattern: &[char], value: &[char]) -> bool {
        match pattern.split_first() {
            None => value.is_empty(),
            Some(('*', rest)) => (0..=value.len()).any(|from| naive(rest, &value[from..])),
            Some((wanted, rest)) => value
                .split_first()
                .is_some_and(|(c, value)| (*wanted == '?' || wanted == c) && naive(rest, value)),
        }
    }

    proptest! {
        #[test]
        fn it_matches_what_the_standard_says(pattern in "[ab*?é]{0,8}", value in "[abé]{0,10}") {
            let (p, v): (Vec<char>, Vec<char>) = (pattern.chars().collect(), value.chars().collect());

            prop_assert_eq!(Pattern::new(&pattern).unwrap().matches(&value), naive(&p, &v));
        }
    }

    #[test]
    fn many_wild_cards_take_no_time_and_more_than_that_are_refused() {
        let hostile = Pattern::new(&format!("{}b", "*a".repeat(Pattern::MOST))).unwrap();
        let value = "a".repeat(100_000);

        let begun = Instant::now();
        assert!(!hostile.matches(&value));

        assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
        assert_eq!(Pattern::new(&"*a".repeat(Pattern::MOST + 1)), None);
        assert_eq!(Pattern::new(&"*".repeat(1000)).unwrap().0, "*");
    }
}
