//! The first words of a statement, which tell what it is.

/// The first word of a statement, without comments.
pub(super) fn first(sql: &str) -> &str {
    Words { rest: sql }.next().unwrap_or_default()
}

/// Whether a statement begins with a word that ends a transaction. With the
/// extended protocol there is one statement, and procedures and `DO` may not end
/// a transaction they did not begin, so the first words tell.
pub(super) fn end_transaction(sql: &str) -> bool {
    let mut words = Words { rest: sql };
    let first = words.next().unwrap_or_default().to_ascii_lowercase();
    match first.as_str() {
        "commit" | "end" | "abort" => true,
        "prepare" => words.is_next("transaction"),
        "rollback" => {
            let mut next = words.next().unwrap_or_default().to_ascii_lowercase();
            if matches!(next.as_str(), "work" | "transaction") {
                next = words.next().unwrap_or_default().to_ascii_lowercase();
            }
            next != "to"
        }
        _ => false,
    }
}

/// Words of SQL, without comments.
struct Words<'a> {
    rest: &'a str,
}

impl<'a> Words<'a> {
    fn is_next(&mut self, word: &str) -> bool {
        self.next()
            .is_some_and(|next| next.eq_ignore_ascii_case(word))
    }

    fn skip_comments(&mut self) {
        loop {
            self.rest = self
                .rest
                .trim_start_matches(|first: char| first.is_whitespace() || first == ';');
            if let Some(comment) = self.rest.strip_prefix("--") {
                self.rest = comment
                    .split_once(['\n', '\r'])
                    .map_or("", |(_, rest)| rest);
            } else if self.rest.starts_with("/*") {
                self.rest = after_comment(self.rest);
            } else {
                return;
            }
        }
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        self.skip_comments();
        let end = self
            .rest
            .find(|letter: char| !letter.is_ascii_alphabetic())
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!word.is_empty()).then_some(word)
    }
}

/// What follows a comment, which may hold others.
fn after_comment(text: &str) -> &str {
    let mut depth = 0_u32;
    let mut rest = text;
    loop {
        if let Some(inside) = rest.strip_prefix("/*") {
            depth += 1;
            rest = inside;
        } else if let Some(after) = rest.strip_prefix("*/") {
            depth -= 1;
            rest = after;
            if depth == 0 {
                return rest;
            }
        } else {
            let mut characters = rest.chars();
            if characters.next().is_none() {
                return "";
            }
            rest = characters.as_str();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_a_transaction_is_seen() {
        for sql in [
            "commit",
            "/* a /* b */ */ -- c\n COMMIT AND CHAIN",
            "end",
            "ABORT",
            "rollback",
            "rollback work",
            "ROLLBACK AND CHAIN",
            "prepare transaction 'x'",
            ";commit",
        ] {
            assert!(end_transaction(sql), "{sql}");
        }
        for sql in [
            "select 'commit'",
            "rollback to savepoint a",
            "rollback work to a",
            "prepare p as select 1",
            "savepoint a",
            "/* commit",
            "-- commit",
            "",
        ] {
            assert!(!end_transaction(sql), "{sql}");
        }
    }
}
