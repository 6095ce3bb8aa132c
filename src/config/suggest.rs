//! Did you mean …?

/// The candidate most like `word`, if one is like enough.
pub(super) fn closest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let wanted = fold(word);
    if wanted.is_empty() {
        return None;
    }
    let (distance, found) = candidates
        .into_iter()
        .map(|candidate| (edits(&wanted, &fold(candidate)), candidate))
        .min_by_key(|(distance, _)| *distance)?;
    // A third of the letters may be wrong: `algoritms`, `helthcheck`.
    (distance <= wanted.len().div_ceil(3).min(4) && distance < wanted.len()).then_some(found)
}

/// "did you mean `x`?", or the list of what there is when that is short.
pub(super) fn hint<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str> + Clone,
) -> Option<String> {
    if let Some(found) = closest(word, candidates.clone()) {
        return Some(format!("did you mean `{found}`?"));
    }
    let known: Vec<&str> = candidates.into_iter().collect();
    (!known.is_empty() && known.len() <= 40).then(|| format!("known here: {}", known.join(", ")))
}

/// Case and separators do not count as mistakes.
fn fold(word: &str) -> Vec<u8> {
    word.bytes()
        .filter(u8::is_ascii_alphanumeric)
        .map(|byte| byte.to_ascii_lowercase())
        .take(64)
        .collect()
}

/// Edits between two words, a swap of neighbours counting once.
fn edits(left: &[u8], right: &[u8]) -> usize {
    let width = right.len() + 1;
    let mut before: Vec<usize> = vec![0; width];
    let mut previous: Vec<usize> = (0..width).collect();
    for (row, &a) in left.iter().enumerate() {
        let mut current = vec![row + 1; width];
        for (column, &b) in right.iter().enumerate() {
            let replace = previous[column] + usize::from(a != b);
            let mut best = replace
                .min(previous[column + 1] + 1)
                .min(current[column] + 1);
            let swapped = row > 0 && column > 0 && left[row - 1] == b && right[column - 1] == a;
            if swapped {
                best = best.min(before[column - 1] + 1);
            }
            current[column + 1] = best;
        }
        before = std::mem::replace(&mut previous, current);
    }
    previous[width - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn likely_mistakes_find_their_key() {
        let keys = ["upstream", "healthCheck", "health", "api-key", "jwt"];
        for (word, expected) in [
            ("upstraem", Some("upstream")),
            ("health_check", Some("healthCheck")),
            ("apikey", Some("api-key")),
            ("JWT", Some("jwt")),
            ("zebra", None),
            ("", None),
        ] {
            assert_eq!(closest(word, keys), expected, "{word}");
        }
    }
}
