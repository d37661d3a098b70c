//! Suggests the known word that a misspelt one probably stands for.

/// At most this many known words are compared: a pool may have ten thousand names.
const WORDS_MAX: usize = 1000;
/// At most this many characters of a word are compared.
const CHARS_MAX: usize = 64;

/// Returns the end of an error message about an unknown `word`: `, did you mean "web"?`, or nothing when no known word
/// is near.
pub fn did_you_mean<'w>(word: &str, known: impl IntoIterator<Item = &'w str>) -> String {
    nearest(word, known).map(|meant| format!(", did you mean {meant:?}?")).unwrap_or_default()
}

/// Returns the known word that is fewest slips away from `word`, or the only one that starts with it.
fn nearest<'w>(word: &str, known: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let written = chars(word);
    let known: Vec<&str> = known.into_iter().take(WORDS_MAX).collect();
    let slips_max = match written.len() {
        0..=2 => 0,
        3..=5 => 1,
        6..=8 => 2,
        _ => 3,
    };
    let slips = known.iter().map(|&meant| (slips(&written, &chars(meant)), meant));
    let fewest = slips.filter(|&(slips, _)| slips <= slips_max).min_by_key(|&(slips, _)| slips);
    let begun = || {
        let mut begun = known.iter().filter(|meant| written.len() > 2 && chars(meant).starts_with(&written));
        begun.next().filter(|_| begun.next().is_none()).copied()
    };
    fewest.map(|(_, meant)| meant).or_else(begun)
}

/// Returns `word` without the differences that people overlook: case, and `-` for `_`.
fn chars(word: &str) -> Vec<char> {
    let plain = |char: char| if char == '-' { '_' } else { char.to_ascii_lowercase() };
    word.chars().take(CHARS_MAX).map(plain).collect()
}

/// Returns the distance of two words: characters missing, extra, wrong or swapped (optimal string alignment).
fn slips(one: &[char], other: &[char]) -> usize {
    let mut before = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in other.iter().enumerate() {
            let mut least = (last[j] + usize::from(a != b)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == other[j - 1] && one[i - 1] == *b {
                let swapped: &Vec<usize> = &before;
                least = least.min(swapped[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_seen_and_another_word_is_not() {
        let known = ["round_robin", "least_connections", "random", "web", "up"];
        for (written, meant) in [
            ("roundrobin", Some("round_robin")),
            ("Round-Robin", Some("round_robin")),
            ("ruond_robin", Some("round_robin")),
            ("least_conn", Some("least_connections")),
            ("wbe", Some("web")),
            ("ranodm", Some("random")),
            ("pu", None),
            ("", None),
            ("weighted", None),
            ("api", None),
        ] {
            assert_eq!(nearest(written, known), meant, "{written:?}");
        }
        assert_eq!(nearest("bac", ["backend", "backup"]), None, "it begins both");
        assert_eq!(did_you_mean("wbe", known), ", did you mean \"web\"?");
        assert_eq!(did_you_mean("x", known), "");
    }
}
