//! SQL text to single statements, as far as that takes knowing strings,
//! comments, dollar quotes and function bodies.
//!
//! The rules are those of PostgreSQL's own scanner (`src/backend/parser/scan.l`)
//! and, for `BEGIN ATOMIC`, of `psql`. A statement is sent by itself in the
//! extended protocol, where the server refuses a second one in the same text:
//! what is misread here can fail, but cannot slip through.

/// One statement without what stands around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Statement<'a> {
    /// From its first word to before its semicolon.
    pub(super) text: &'a str,
    /// Of its first word, from 1.
    pub(super) line: usize,
}

/// Why a file is not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub(in crate::pg) struct ScriptError {
    pub(in crate::pg) line: usize,
    pub(in crate::pg) what: String,
}

/// Words of a statement that are looked at to tell what it is.
const WORDS: usize = 8;

/// The statements of a file, in order.
///
/// # Errors
/// What is not closed before the end, and what must not stand in a migration:
/// transaction control, `COPY … FROM STDIN`, commands of `psql`.
pub(super) fn split(text: &str) -> Result<Vec<Statement<'_>>, ScriptError> {
    let mut scanner = Scanner::new(text);
    let mut statements = Vec::new();
    while let Some(statement) = scanner.statement()? {
        statements.push(statement);
    }
    Ok(statements)
}

struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    line: usize,
}

/// What is known of the statement being read.
#[derive(Default)]
struct Current<'a> {
    start: Option<(usize, usize)>,
    words: Vec<&'a str>,
    parentheses: usize,
    /// `BEGIN` and `CASE` of a function's body that are still open.
    blocks: usize,
    from_stdin: bool,
    last_word_is_from: bool,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            bytes: text.as_bytes(),
            at: 0,
            line: 1,
        }
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.bytes.get(self.at + ahead).copied()
    }

    fn advance(&mut self, count: usize) {
        for _ in 0..count {
            if self.peek(0) == Some(b'\n') {
                self.line += 1;
            }
            self.at += 1;
        }
    }

    fn error<T>(line: usize, what: impl Into<String>) -> Result<T, ScriptError> {
        let what = what.into();
        Err(ScriptError { line, what })
    }

    /// The next statement that has any words.
    fn statement(&mut self) -> Result<Option<Statement<'a>>, ScriptError> {
        let mut current = Current::default();
        loop {
            self.skip_blanks()?;
            let Some(byte) = self.peek(0) else {
                return current.close(self.text, self.at);
            };
            if byte == b';' && current.parentheses == 0 && current.blocks == 0 {
                let closed = current.close(self.text, self.at)?;
                self.advance(1);
                if closed.is_some() {
                    return Ok(closed);
                }
                current = Current::default();
                continue;
            }
            let line = self.line;
            current.start.get_or_insert((self.at, line));
            match byte {
                b'\'' => self.string(false)?,
                b'"' => self.quoted('"', "a quoted name")?,
                b'$' => self.dollar()?,
                b'\\' => {
                    let what = "a command of psql; only SQL can stand here";
                    return Self::error(line, what);
                }
                byte if is_word_start(byte) => {
                    let word = self.word();
                    let escapes = word.eq_ignore_ascii_case("e") && self.peek(0) == Some(b'\'');
                    if escapes {
                        self.string(true)?;
                    } else {
                        current.word(word);
                    }
                }
                b'0'..=b'9' => self.number(),
                _ => {
                    match byte {
                        b'(' => current.parentheses += 1,
                        b')' => current.parentheses = current.parentheses.saturating_sub(1),
                        _ => {}
                    }
                    current.other();
                    self.advance(1);
                }
            }
        }
    }

    /// White space and comments.
    fn skip_blanks(&mut self) -> Result<(), ScriptError> {
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some(b' ' | b'\t' | b'\n' | b'\r' | b'\x0b' | b'\x0c'), _) => self.advance(1),
                (Some(b'-'), Some(b'-')) => self.skip_line(),
                (Some(b'/'), Some(b'*')) => self.block_comment()?,
                _ => return Ok(()),
            }
        }
    }

    fn skip_line(&mut self) {
        while !matches!(self.peek(0), None | Some(b'\n' | b'\r')) {
            self.advance(1);
        }
    }

    /// They nest.
    fn block_comment(&mut self) -> Result<(), ScriptError> {
        let line = self.line;
        let mut depth = 0_usize;
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some(b'/'), Some(b'*')) => {
                    depth += 1;
                    self.advance(2);
                }
                (Some(b'*'), Some(b'/')) => {
                    depth -= 1;
                    self.advance(2);
                    if depth == 0 {
                        return Ok(());
                    }
                }
                (Some(_), _) => self.advance(1),
                (None, _) => return Self::error(line, "a comment is not closed"),
            }
        }
    }

    /// From a quote to its end; with `escapes`, a backslash takes the next byte.
    fn string(&mut self, escapes: bool) -> Result<(), ScriptError> {
        let line = self.line;
        self.advance(1);
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some(b'\''), Some(b'\'')) => self.advance(2),
                (Some(b'\\'), Some(_)) if escapes => self.advance(2),
                (Some(b'\''), _) => {
                    self.advance(1);
                    if !(escapes && self.continues()?) {
                        return Ok(());
                    }
                    self.advance(1);
                }
                (Some(_), _) => self.advance(1),
                (None, _) => return Self::error(line, "a string is not closed"),
            }
        }
    }

    /// Whether the string goes on after a line break (SQL's continuation): with
    /// the same rule for backslashes. Stands on the quote then.
    fn continues(&mut self) -> Result<bool, ScriptError> {
        let (at, line) = (self.at, self.line);
        self.skip_blanks()?;
        let between = self.text.get(at..self.at).unwrap_or_default();
        let goes_on = self.peek(0) == Some(b'\'')
            && between.contains(['\n', '\r'])
            && !between.contains("/*");
        if !goes_on {
            (self.at, self.line) = (at, line);
        }
        Ok(goes_on)
    }

    fn quoted(&mut self, quote: char, what: &str) -> Result<(), ScriptError> {
        let line = self.line;
        self.advance(1);
        let rest = self.text.get(self.at..).unwrap_or_default();
        // A doubled quote closes and opens at once, which changes nothing.
        match rest.find(quote) {
            Some(length) => {
                self.advance(length + 1);
                Ok(())
            }
            None => Self::error(line, format!("{what} is not closed")),
        }
    }

    /// `$tag$ … $tag$`, or a `$` that is something else.
    fn dollar(&mut self) -> Result<(), ScriptError> {
        let line = self.line;
        let rest = self.text.get(self.at..).unwrap_or_default();
        let tag_length = rest
            .bytes()
            .skip(1)
            .take_while(|byte| is_tag(*byte))
            .count();
        let opener = rest
            .get(..tag_length + 2)
            .filter(|opener| opener.ends_with('$'));
        let starts_well = rest
            .as_bytes()
            .get(1)
            .is_some_and(|byte| !byte.is_ascii_digit());
        let Some(opener) = opener.filter(|_| starts_well) else {
            self.advance(1);
            return Ok(());
        };
        let body = rest.get(opener.len()..).unwrap_or_default();
        match body.find(opener) {
            Some(length) => {
                self.advance(opener.len() * 2 + length);
                Ok(())
            }
            None => Self::error(line, format!("the string {opener} is not closed")),
        }
    }

    fn word(&mut self) -> &'a str {
        let start = self.at;
        while self.peek(0).is_some_and(is_word) {
            self.advance(1);
        }
        self.text.get(start..self.at).unwrap_or_default()
    }

    fn number(&mut self) {
        while self.peek(0).is_some_and(|byte| byte.is_ascii_digit()) {
            self.advance(1);
        }
    }
}

impl<'a> Current<'a> {
    fn is(&self, index: usize, word: &str) -> bool {
        self.words
            .get(index)
            .is_some_and(|found| found.eq_ignore_ascii_case(word))
    }

    /// `CREATE [OR REPLACE] FUNCTION | PROCEDURE`: semicolons may stand between
    /// `BEGIN ATOMIC` and its `END`.
    fn makes_function(&self) -> bool {
        let at = if self.is(1, "or") && self.is(2, "replace") {
            3
        } else {
            1
        };
        self.is(0, "create") && (self.is(at, "function") || self.is(at, "procedure"))
    }

    fn word(&mut self, word: &'a str) {
        let is = |other: &str| word.eq_ignore_ascii_case(other);
        if self.parentheses == 0 && self.makes_function() {
            if is("begin") || (is("case") && self.blocks > 0) {
                self.blocks += 1;
            } else if is("end") {
                self.blocks = self.blocks.saturating_sub(1);
            }
        }
        self.from_stdin |= self.last_word_is_from && is("stdin");
        self.last_word_is_from = is("from");
        if self.words.len() < WORDS {
            self.words.push(word);
        }
    }

    /// A symbol, which keeps words from being neighbours.
    fn other(&mut self) {
        self.last_word_is_from = false;
    }

    fn close(&self, text: &'a str, end: usize) -> Result<Option<Statement<'a>>, ScriptError> {
        let Some((start, line)) = self.start else {
            return Ok(None);
        };
        if let Some(what) = self.refused() {
            return Scanner::error(line, what);
        }
        let text = text.get(start..end).unwrap_or_default().trim_end();
        Ok(Some(Statement { text, line }))
    }

    /// What must not stand in a migration.
    fn refused(&self) -> Option<String> {
        let first = self.words.first()?.to_ascii_uppercase();
        let ends_transaction = match first.as_str() {
            "BEGIN" | "COMMIT" | "END" | "ABORT" => true,
            "START" | "PREPARE" => self.is(1, "transaction"),
            // Back to a savepoint stays inside.
            "ROLLBACK" => {
                let noise = self.is(1, "work") || self.is(1, "transaction");
                !self.is(if noise { 2 } else { 1 }, "to")
            }
            _ => false,
        };
        if ends_transaction {
            return Some(format!(
                "`{first}` is transaction control; the file runs in a transaction of its own"
            ));
        }
        if first == "COPY" && self.from_stdin {
            return Some("`COPY … FROM STDIN` has no input here; use INSERT".to_owned());
        }
        let strings = self.is(1, "standard_conforming_strings")
            || (self.is(2, "standard_conforming_strings") && first == "SET");
        if first == "SET"
            && strings
            && !self
                .words
                .last()
                .is_some_and(|last| last.eq_ignore_ascii_case("on"))
        {
            return Some("`standard_conforming_strings` must stay on".to_owned());
        }
        None
    }
}

fn is_word_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn is_word(byte: u8) -> bool {
    is_word_start(byte) || byte.is_ascii_digit() || byte == b'$'
}

fn is_tag(byte: u8) -> bool {
    is_word_start(byte) || byte.is_ascii_digit()
}

#[cfg(test)]
#[path = "script_tests.rs"]
mod tests;
