//! One statement as the extended query protocol carries it.

use std::borrow::Cow;

use bytes::BytesMut;
use postgres_protocol::IsNull;
use postgres_protocol::message::frontend;

/// A parameter in text format; `None` = NULL.
pub type Parameter<'a> = Option<Cow<'a, str>>;

/// SQL with its parameters, whose types the server infers.
#[derive(Debug, Clone)]
pub struct Statement<'a> {
    pub sql: &'a str,
    pub parameters: Vec<Parameter<'a>>,
}

/// What the protocol cannot carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadStatement {
    #[error("the query holds a NUL character")]
    Nul,
    #[error("there are more than 65535 parameters")]
    TooManyParameters,
    #[error("a parameter is too long")]
    TooLong,
}

/// Appends Parse, Bind, Describe and Execute of the unnamed statement.
pub(super) fn encode(statement: &Statement<'_>, output: &mut BytesMut) -> Result<(), BadStatement> {
    if statement.parameters.len() > usize::from(u16::MAX) {
        return Err(BadStatement::TooManyParameters);
    }
    frontend::parse("", statement.sql, [], output).map_err(|_| BadStatement::Nul)?;
    let bound = frontend::bind(
        "",
        "",
        [0],
        &statement.parameters,
        |parameter, output| match parameter {
            Some(text) => {
                output.extend_from_slice(text.as_bytes());
                Ok(IsNull::No)
            }
            None => Ok(IsNull::Yes),
        },
        [0],
        output,
    );
    bound.map_err(|_| BadStatement::TooLong)?;
    frontend::describe(b'P', "", output).map_err(|_| BadStatement::TooLong)?;
    frontend::execute("", 0, output).map_err(|_| BadStatement::TooLong)
}

/// Appends Parse, Bind and Execute of a statement of ours without parameters.
pub(super) fn encode_own(sql: &'static str, output: &mut BytesMut) {
    const FITS: &str = "our own SQL is short and holds no NUL";
    frontend::parse("", sql, [], output).expect(FITS);
    let nothing = |(), _: &mut BytesMut| Ok(IsNull::Yes);
    let bound = frontend::bind("", "", [0], [(); 0], nothing, [0], output);
    assert!(bound.is_ok(), "{FITS}");
    frontend::execute("", 0, output).expect(FITS);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nul_is_refused() {
        let mut output = BytesMut::new();
        let mut statement = Statement {
            sql: "select $1",
            parameters: vec![None, Some("a\0b".into())],
        };
        // Of a parameter the server says so itself.
        assert_eq!(encode(&statement, &mut output), Ok(()));
        statement.sql = "select \0";
        assert_eq!(encode(&statement, &mut output), Err(BadStatement::Nul));
    }
}
