//! Patterns of names: `*` stands for any characters, also none, and `?` for any one. Brackets stand for themselves,
//! because a name may be an IPv6 address.

/// Returns whether `text` is a pattern and not a plain name.
pub fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?'])
}

/// Returns whether `text` matches `pattern` as a whole. Takes at most the product of their lengths.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at, mut place) = (0, 0);
    // Behind the last star, and the place in the text up to which that star reaches.
    let mut star: Option<(usize, usize)> = None;
    while place < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                at += 1;
                star = Some((at, place));
            }
            Some(&byte) if byte == b'?' || byte == text[place] => {
                at += 1;
                place += 1;
            }
            Some(_) | None => {
                let Some((behind, reached)) = star else { return false };
                (at, place) = (behind, reached + 1);
                star = Some((behind, reached + 1));
            }
        }
    }
    pattern[at..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters_and_a_question_mark_for_one() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("*", "web", true),
            ("", "", true),
            ("", "a", false),
            ("a*", "a", true),
            ("a*", "ab", true),
            ("a*", "ba", false),
            ("*a", "ba", true),
            ("*a", "aab", false),
            ("a?", "ab", true),
            ("a?", "a", false),
            ("?", "", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("*.7:80", "10.0.0.7:80", true),
            ("[::?]:*", "[::1]:80", true),
            ("[ab]", "a", false),
            ("**", "x", true),
            ("*ab", "aab", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern:?} of {text:?}");
        }
        assert!(is_pattern("a*") && is_pattern("?") && !is_pattern("[::1]:80"));
    }

    #[test]
    fn a_pattern_of_many_stars_is_soon_tried() {
        assert!(!matches(&"*a".repeat(60), &"a".repeat(59)), "one a is missing");
        assert!(!matches(&format!("{}b", "a*".repeat(60)), &"a".repeat(64)));
    }
}
