//! Messages of the server to JSON, row by row, without keeping them.

use fallible_iterator::FallibleIterator as _;
use postgres_protocol::message::backend::{DataRowBody, RowDescriptionBody};

use super::answer::Refusal;
use super::request::Shape;
use crate::model::Kind;
use crate::pg::value::{JsonForm, write_string};

/// The answer being written.
pub(super) struct Rows {
    output: Vec<u8>,
    /// Beyond it the answer is refused, bytes.
    limit: usize,
    columns: Vec<Column>,
    shape: Shape,
    /// Rows of the result under way.
    rows: u64,
    described: bool,
    results: usize,
}

struct Column {
    /// The name as a JSON string with its colon.
    name: Vec<u8>,
    form: JsonForm,
}

impl Rows {
    pub(super) fn new(limit: u64) -> Self {
        Self {
            output: Vec::with_capacity(1024),
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
            columns: Vec::new(),
            shape: Shape {
                raw_text: false,
                arrays: false,
            },
            rows: 0,
            described: false,
            results: 0,
        }
    }

    /// Appends what is not a result.
    pub(super) fn literal(&mut self, text: &str) {
        self.output.extend_from_slice(text.as_bytes());
    }

    /// The next messages belong to a query of this shape.
    pub(super) fn begin(&mut self, shape: Shape) {
        if self.results > 0 {
            self.output.push(b',');
        }
        self.results += 1;
        self.shape = shape;
        self.columns.clear();
        self.rows = 0;
        self.described = false;
    }

    /// The columns of what follows.
    pub(super) fn describe(&mut self, body: &RowDescriptionBody) -> Result<(), Refusal> {
        self.literal("{\"fields\":[");
        self.described = true;
        let mut fields = body.fields();
        let bad = |_| Refusal::unavailable("protocol");
        while let Some(field) = fields.next().map_err(bad)? {
            if !self.columns.is_empty() {
                self.output.push(b',');
            }
            let mut name = Vec::new();
            write_string(field.name(), &mut name);
            self.literal("{\"name\":");
            self.output.extend_from_slice(&name);
            let numbers = [
                ("dataTypeID", i64::from(field.type_oid())),
                ("tableID", i64::from(field.table_oid())),
                ("columnID", i64::from(field.column_id())),
                ("dataTypeSize", i64::from(field.type_size())),
                ("dataTypeModifier", i64::from(field.type_modifier())),
            ];
            for (key, number) in numbers {
                self.literal(",\"");
                self.literal(key);
                self.literal("\":");
                self.literal(itoa::Buffer::new().format(number));
            }
            self.literal(",\"format\":\"text\"}");
            name.push(b':');
            let form = match self.shape.raw_text {
                true => JsonForm::Text,
                false => JsonForm::of(field.type_oid()),
            };
            self.columns.push(Column { name, form });
        }
        self.literal("],\"rows\":[");
        self.bounded()
    }

    /// One row.
    pub(super) fn row(&mut self, body: &DataRowBody) -> Result<(), Refusal> {
        let bad = || Refusal::unavailable("protocol");
        let output = &mut self.output;
        if self.rows > 0 {
            output.push(b',');
        }
        self.rows += 1;
        let arrays = self.shape.arrays;
        output.push(if arrays { b'[' } else { b'{' });
        let mut ranges = body.ranges();
        let mut first = true;
        for column in &self.columns {
            if !first {
                output.push(b',');
            }
            first = false;
            if !arrays {
                output.extend_from_slice(&column.name);
            }
            let range = ranges.next().map_err(|_| bad())?.ok_or_else(bad)?;
            match range {
                Some(range) => {
                    let bytes = body.buffer().get(range).ok_or_else(bad)?;
                    // We asked for UTF-8.
                    let text = String::from_utf8_lossy(bytes);
                    column.form.write(&text, output);
                }
                None => output.extend_from_slice(b"null"),
            }
        }
        output.push(if arrays { b']' } else { b'}' });
        self.bounded()
    }

    /// The end of a result, by its command tag; empty for an empty query.
    pub(super) fn complete(&mut self, tag: &str) {
        if !self.described {
            self.literal("{\"fields\":[],\"rows\":[");
        }
        self.literal("],\"command\":");
        let mut words = tag.split(' ');
        let mut command = words.next().unwrap_or_default().to_owned();
        let mut count = None;
        for word in words {
            if word.bytes().all(|byte| byte.is_ascii_digit()) {
                // The last number: INSERT has an object identifier before it.
                count = Some(word);
            } else {
                command.push(' ');
                command.push_str(word);
            }
        }
        write_string(&command, &mut self.output);
        self.literal(",\"rowCount\":");
        self.literal(count.unwrap_or("null"));
        self.literal(",\"rowAsArray\":");
        self.literal(if self.shape.arrays { "true}" } else { "false}" });
    }

    /// The whole answer.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.output.push(b'\n');
        self.output
    }

    fn bounded(&self) -> Result<(), Refusal> {
        match self.output.len() > self.limit {
            true => Err(Kind::AnswerTooLarge.into()),
            false => Ok(()),
        }
    }
}
