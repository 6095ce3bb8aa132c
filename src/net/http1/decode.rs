//! A body, piece by piece, of a request or a response.

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;

use super::FramingError;
use super::fields::{for_each_field, spans_of};

/// Most trailer fields.
const MAX_TRAILERS: usize = 100;

/// Largest trailer section (SPEC §2.3).
const MAX_TRAILER_BYTES: usize = 16 * 1024;
/// Longest chunk-size line; extensions are legal but nobody needs long ones.
const MAX_SIZE_LINE_BYTES: usize = 1024;

/// How a body ends (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFraming {
    None,
    Length(u64),
    Chunked,
    /// Of responses only.
    UntilClose,
}

/// Most bytes of all chunk extensions of a body.
const MAX_EXTENSION_BYTES: usize = 16 * 1024;

/// So few bytes of a body are copied out of the buffer they were read into.
const COPIED_BYTES: usize = 2 * 1024;

/// What a decoder found at the front of the buffer.
#[derive(Debug, PartialEq)]
pub enum Piece {
    /// Bytes of the body; many share the buffer's memory.
    Data(Bytes),
    Trailers(HeaderMap),
    /// The body is complete.
    End,
    /// More bytes are needed.
    More,
}

/// Decodes one body.
#[derive(Debug)]
pub enum BodyDecoder {
    Done,
    Length {
        left: u64,
    },
    Chunked(Chunks),
    UntilClose,
    /// What came was wrong: nothing more is read out of it.
    Broken(FramingError),
}

/// A chunked body.
#[derive(Debug)]
pub struct Chunks {
    state: ChunkState,
    /// Bytes of extensions so far.
    extensions: usize,
}

/// Where a chunked body stands (RFC 9112 §7.1).
#[derive(Debug, PartialEq, Clone, Copy)]
enum ChunkState {
    SizeLine,
    Data {
        left: u64,
    },
    /// The CRLF after a chunk's data.
    DataEnd,
    Trailers,
}

impl BodyDecoder {
    /// At the beginning of a body.
    pub fn new(framing: BodyFraming) -> Self {
        match framing {
            BodyFraming::None | BodyFraming::Length(0) => Self::Done,
            BodyFraming::Length(left) => Self::Length { left },
            BodyFraming::Chunked => Self::Chunked(Chunks {
                state: ChunkState::SizeLine,
                extensions: 0,
            }),
            BodyFraming::UntilClose => Self::UntilClose,
        }
    }

    /// Whether nothing more belongs to the body.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// Bytes still to come, where that is known.
    pub fn exact_remaining(&self) -> Option<u64> {
        match self {
            Self::Done => Some(0),
            Self::Length { left } => Some(*left),
            Self::Chunked(_) | Self::UntilClose | Self::Broken(_) => None,
        }
    }

    /// The next piece of what was read.
    ///
    /// # Errors
    /// Where chunks or trailers are not as RFC 9112 §7.1 has them.
    pub fn next_piece(&mut self, buffer: &mut BytesMut) -> Result<Piece, FramingError> {
        match self {
            Self::Done => Ok(Piece::End),
            Self::UntilClose if buffer.is_empty() => Ok(Piece::More),
            Self::UntilClose => Ok(Piece::Data(take_out(buffer, buffer.len()))),
            Self::Length { left } => {
                let Some(data) = take_at_most(buffer, *left) else {
                    return Ok(Piece::More);
                };
                *left -= data.len() as u64;
                if *left == 0 {
                    *self = Self::Done;
                }
                Ok(Piece::Data(data))
            }
            Self::Chunked(_) => {
                let piece = self.next_chunked(buffer);
                if let Err(error) = piece {
                    *self = Self::Broken(error);
                }
                piece
            }
            Self::Broken(error) => Err(*error),
        }
    }

    /// The peer closed: complete only for a body that ends so.
    pub fn finish_at_close(&mut self) -> bool {
        let complete = matches!(self, Self::UntilClose | Self::Done);
        if complete {
            *self = Self::Done;
        }
        complete
    }

    fn next_chunked(&mut self, buffer: &mut BytesMut) -> Result<Piece, FramingError> {
        let Self::Chunked(Chunks { state, extensions }) = self else {
            return Ok(Piece::End);
        };
        loop {
            match state {
                ChunkState::SizeLine => {
                    let Some(size) = take_size_line(buffer, extensions)? else {
                        return Ok(Piece::More);
                    };
                    *state = match size {
                        0 => ChunkState::Trailers,
                        left => ChunkState::Data { left },
                    };
                }
                ChunkState::Data { left } => {
                    let Some(data) = take_at_most(buffer, *left) else {
                        return Ok(Piece::More);
                    };
                    *left -= data.len() as u64;
                    if *left == 0 {
                        *state = ChunkState::DataEnd;
                    }
                    return Ok(Piece::Data(data));
                }
                ChunkState::DataEnd => match buffer.as_ref() {
                    [b'\r', b'\n', ..] => {
                        buffer.advance(2);
                        *state = ChunkState::SizeLine;
                    }
                    [] | [b'\r'] => return Ok(Piece::More),
                    _ => return Err(FramingError::Chunk),
                },
                ChunkState::Trailers => {
                    let Some(trailers) = take_trailers(buffer)? else {
                        return Ok(Piece::More);
                    };
                    *self = Self::Done;
                    return Ok(if trailers.is_empty() {
                        Piece::End
                    } else {
                        Piece::Trailers(trailers)
                    });
                }
            }
        }
    }
}

fn take_at_most(buffer: &mut BytesMut, left: u64) -> Option<Bytes> {
    if buffer.is_empty() {
        return None;
    }
    let length = usize::try_from(left)
        .unwrap_or(usize::MAX)
        .min(buffer.len());
    Some(take_out(buffer, length))
}

/// Takes bytes from the front of a read buffer: few as a copy, so that it can
/// be read into again while they are on their way. Shared with them, the next
/// read would ask for a new one, and memory of that size is what the allocator
/// is slow with.
fn take_out(buffer: &mut BytesMut, length: usize) -> Bytes {
    match buffer.get(..length) {
        Some(few) if length <= COPIED_BYTES => {
            let copy = Bytes::copy_from_slice(few);
            buffer.advance(length);
            copy
        }
        _ => buffer.split_to(length).freeze(),
    }
}

/// `1*HEXDIG [ chunk-ext ] CRLF`; a bare LF is refused. Counts the bytes of
/// extensions.
fn take_size_line(
    buffer: &mut BytesMut,
    extensions: &mut usize,
) -> Result<Option<u64>, FramingError> {
    let Some(end) = buffer
        .iter()
        .take(MAX_SIZE_LINE_BYTES)
        .position(|byte| *byte == b'\n')
    else {
        return match buffer.len() < MAX_SIZE_LINE_BYTES {
            true => Ok(None),
            false => Err(FramingError::Chunk),
        };
    };
    let line = buffer.split_to(end + 1);
    let line = line.strip_suffix(b"\r\n").ok_or(FramingError::Chunk)?;
    let digits = line
        .iter()
        .take_while(|byte| byte.is_ascii_hexdigit())
        .count();
    let (digits, extension) = line.split_at(digits);
    *extensions += extension.len();
    // White space before an extension is tolerated (RFC 9112 §7.1.1), nothing
    // that another parser might take for the end of the line.
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let first = extension.iter().find(|byte| !blank(byte));
    let control = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
    let extension_is_sane = first.is_none_or(|byte| *byte == b';')
        && !extension.iter().any(control)
        && *extensions <= MAX_EXTENSION_BYTES;
    if digits.is_empty() || digits.len() > 16 || !extension_is_sane {
        return Err(FramingError::Chunk);
    }
    let digits = std::str::from_utf8(digits).map_err(|_| FramingError::Chunk)?;
    u64::from_str_radix(digits, 16)
        .map(Some)
        .map_err(|_| FramingError::Chunk)
}

/// The trailer section up to and including its blank line. Its lines end with
/// CRLF: where a lone LF ends one, others would see the end elsewhere.
fn take_trailers(buffer: &mut BytesMut) -> Result<Option<HeaderMap>, FramingError> {
    if buffer.starts_with(b"\r\n") {
        buffer.advance(2);
        return Ok(Some(HeaderMap::new()));
    }
    let mut fields = [httparse::EMPTY_HEADER; MAX_TRAILERS];
    match httparse::parse_headers(buffer, &mut fields) {
        Ok(httparse::Status::Complete((length, parsed)))
            if length <= MAX_TRAILER_BYTES && !has_lone_lf(buffer.get(..length)) =>
        {
            let spans = spans_of(buffer, parsed);
            let section = buffer.split_to(length).freeze();
            let mut trailers = HeaderMap::with_capacity(spans.len());
            let took = for_each_field(&section, &spans, |name, value| {
                trailers.append(name, value);
                Ok::<_, FramingError>(())
            });
            took.map(|()| Some(trailers))
                .map_err(|_| FramingError::Trailers)
        }
        Ok(httparse::Status::Partial)
            if buffer.len() < MAX_TRAILER_BYTES && !has_lone_lf(Some(buffer)) =>
        {
            Ok(None)
        }
        _ => Err(FramingError::Trailers),
    }
}

fn has_lone_lf(bytes: Option<&[u8]>) -> bool {
    let mut before = None;
    bytes.into_iter().flatten().any(|byte| {
        let before = before.replace(*byte);
        *byte == b'\n' && before != Some(b'\r')
    })
}
