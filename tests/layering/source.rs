//! Just enough of Rust's lexical grammar to tell code from comments and strings.

/// A word or one character of punctuation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token {
    Word(String),
    Punctuation(char),
}

/// A file as tokens and string literals, each with its 1-based line.
pub(crate) struct Source {
    pub(crate) tokens: Vec<(usize, Token)>,
    strings: Vec<(usize, String)>,
}

impl Source {
    /// Splits a file.
    pub(crate) fn read(text: &str) -> Self {
        let mut scanner = Scanner {
            rest: text.chars().collect(),
            at: 0,
            line: 1,
            source: Self {
                tokens: Vec::new(),
                strings: Vec::new(),
            },
        };
        scanner.run();
        scanner.source
    }

    /// Whether the token at `index` is this character.
    pub(crate) fn is_punctuation(&self, index: usize, character: char) -> bool {
        matches!(self.tokens.get(index), Some((_, Token::Punctuation(found))) if *found == character)
    }

    fn word(&self, index: usize) -> Option<&str> {
        match self.tokens.get(index) {
            Some((_, Token::Word(word))) => Some(word),
            _ => None,
        }
    }

    fn path_goes_on(&self, index: usize) -> bool {
        self.is_punctuation(index, ':') && self.is_punctuation(index + 1, ':')
    }

    /// Whether `std::env::` goes on, at `index`, to the variables rather than to
    /// the working directory or the arguments.
    pub(crate) fn is_environment(&self, index: usize) -> bool {
        !matches!(
            self.word(index),
            Some("current_dir" | "current_exe" | "args" | "args_os")
        )
    }

    /// Whether the token stands between the parentheses of the attribute `name(…)`.
    pub(crate) fn is_argument_of(&self, index: usize, name: &str) -> bool {
        let mut depth = 0_i32;
        for before in (0..index).rev() {
            match &self.tokens[before].1 {
                Token::Punctuation(')' | ']' | '}') => depth += 1,
                Token::Punctuation('(') if depth == 0 => {
                    return before >= 2
                        && self.word(before - 1) == Some(name)
                        && self.is_punctuation(before - 2, '[');
                }
                Token::Punctuation('(') => depth -= 1,
                Token::Punctuation('[' | '{' | ';') => return false,
                _ => {}
            }
        }
        false
    }

    /// String literals outside the unit tests at the end of the file.
    pub(crate) fn strings_before_tests(&self) -> impl Iterator<Item = (usize, &str)> {
        let tests = (0..self.tokens.len()).find(|&index| {
            self.word(index) == Some("cfg")
                && self.is_punctuation(index + 1, '(')
                && self.word(index + 2) == Some("test")
                && self.is_punctuation(index + 3, ')')
                && self.word(index + 5) == Some("mod")
        });
        let end = tests.map_or(usize::MAX, |index| self.tokens[index].0);
        self.strings
            .iter()
            .filter(move |(line, _)| *line < end)
            .map(|(line, text)| (*line, text.as_str()))
    }

    /// Rooms named by a path from the crate root, `*` for a glob.
    ///
    /// `depth` is the file's own distance from the root; with `binary`, the
    /// crate is called by its name.
    pub(crate) fn rooms_named(&self, depth: usize, binary: bool) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        let mut braces = 0;
        let mut inline_modules: Vec<usize> = Vec::new();
        let mut index = 0;
        while index < self.tokens.len() {
            match &self.tokens[index].1 {
                Token::Punctuation('{') => {
                    if index >= 2 && self.word(index - 2) == Some("mod") {
                        inline_modules.push(braces);
                    }
                    braces += 1;
                }
                Token::Punctuation('}') => {
                    braces = braces.saturating_sub(1);
                    if inline_modules.last() == Some(&braces) {
                        inline_modules.pop();
                    }
                }
                Token::Word(word) if self.path_goes_on(index + 1) => {
                    let root = word == "crate" || (binary && word == "outrigger");
                    let mut end = index + 3;
                    let mut climbed = usize::from(word == "super");
                    while climbed > 0
                        && self.word(end) == Some("super")
                        && self.path_goes_on(end + 1)
                    {
                        climbed += 1;
                        end += 3;
                    }
                    if root || (climbed > 0 && climbed >= depth + inline_modules.len()) {
                        self.first_segments(end, &mut found);
                    }
                    // A brace that follows is counted by the outer loop.
                    index = end;
                    continue;
                }
                Token::Word(_) | Token::Punctuation(_) => {}
            }
            index += 1;
        }
        found
    }

    /// What follows `crate::` at `index`: a name, a glob, or a braced list of them.
    fn first_segments(&self, index: usize, found: &mut Vec<(usize, String)>) {
        let mut depth = 0_u32;
        let mut expected = true;
        for (line, token) in &self.tokens[index..] {
            match token {
                Token::Punctuation('{') => depth += 1,
                Token::Punctuation('}') => depth = depth.saturating_sub(1),
                Token::Punctuation(',') if depth == 1 => expected = true,
                Token::Word(word) if expected => {
                    found.push((*line, word.clone()));
                    expected = false;
                }
                Token::Punctuation('*') if expected => {
                    found.push((*line, "*".to_owned()));
                    expected = false;
                }
                Token::Word(_) | Token::Punctuation(_) => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
}

struct Scanner {
    rest: Vec<char>,
    at: usize,
    line: usize,
    source: Source,
}

impl Scanner {
    fn run(&mut self) {
        while let Some(character) = self.peek(0) {
            match character {
                '/' if self.peek(1) == Some('/') => self.skip_while(|next| next != '\n'),
                '/' if self.peek(1) == Some('*') => self.block_comment(),
                '"' => self.string(),
                '\'' => self.character_or_lifetime(),
                _ if character.is_alphanumeric() || character == '_' => self.word(),
                _ => {
                    if !character.is_whitespace() {
                        self.push(Token::Punctuation(character));
                    }
                    self.bump();
                }
            }
        }
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.rest.get(self.at + ahead).copied()
    }

    fn bump(&mut self) -> Option<char> {
        let character = self.peek(0)?;
        self.at += 1;
        self.line += usize::from(character == '\n');
        Some(character)
    }

    fn skip_while(&mut self, keep: impl Fn(char) -> bool) {
        while self.peek(0).is_some_and(&keep) {
            self.bump();
        }
    }

    fn push(&mut self, token: Token) {
        self.source.tokens.push((self.line, token));
    }

    fn block_comment(&mut self) {
        let mut depth = 0_u32;
        loop {
            match (self.bump(), self.peek(0)) {
                (Some('/'), Some('*')) => {
                    self.bump();
                    depth += 1;
                }
                (Some('*'), Some('/')) => {
                    self.bump();
                    depth -= 1;
                }
                (None, _) => return,
                _ => {}
            }
            if depth == 0 {
                return;
            }
        }
    }

    fn string(&mut self) {
        let line = self.line;
        let mut text = String::new();
        self.bump();
        while let Some(character) = self.bump() {
            match character {
                '"' => break,
                '\\' => {
                    self.bump();
                }
                _ => text.push(character),
            }
        }
        self.source.strings.push((line, text));
    }

    fn raw_string(&mut self, hashes: usize) {
        let line = self.line;
        let mut text = String::new();
        self.at += hashes + 1;
        while let Some(character) = self.bump() {
            if character == '"' && (0..hashes).all(|ahead| self.peek(ahead) == Some('#')) {
                self.at += hashes;
                break;
            }
            text.push(character);
        }
        self.source.strings.push((line, text));
    }

    fn character_or_lifetime(&mut self) {
        self.bump();
        if self.peek(0) == Some('\\') {
            self.bump();
            self.bump();
            self.skip_while(|next| next != '\'');
            self.bump();
        } else if self.peek(1) == Some('\'') {
            self.bump();
            self.bump();
        } else {
            self.skip_while(|next| next.is_alphanumeric() || next == '_');
        }
    }

    fn word(&mut self) {
        let start = self.at;
        self.skip_while(|next| next.is_alphanumeric() || next == '_');
        let word: String = self.rest[start..self.at].iter().collect();
        if matches!(word.as_str(), "r" | "br" | "cr") {
            let hashes = (0..)
                .take_while(|&ahead| self.peek(ahead) == Some('#'))
                .count();
            if self.peek(hashes) == Some('"') {
                self.raw_string(hashes);
                return;
            }
        }
        self.push(Token::Word(word));
    }
}
