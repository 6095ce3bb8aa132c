use bytes::BytesMut;
use http::{HeaderMap, Method};
use proptest::prelude::*;

use super::head::MAX_HEAD_BYTES;
use super::*;
use crate::net::http1::{BodyDecoder, BodyFraming, Piece};

fn head(text: &str) -> Result<Option<ResponseHead>, DecodeError> {
    take_head(&mut BytesMut::from(text), &Method::GET)
}

fn body(framing: BodyFraming, bytes: &[u8]) -> Result<(Vec<u8>, Option<HeaderMap>), String> {
    let mut decoder = BodyDecoder::new(framing);
    let mut buffer = BytesMut::new();
    let mut data = Vec::new();
    let mut trailers = None;
    for byte in bytes {
        buffer.extend_from_slice(&[*byte]);
        loop {
            match decoder
                .next_piece(&mut buffer)
                .map_err(|error| error.to_string())?
            {
                Piece::Data(piece) => data.extend_from_slice(&piece),
                Piece::Trailers(map) => trailers = Some(map),
                Piece::End | Piece::More => break,
            }
        }
    }
    match decoder.is_done() || decoder.finish_at_close() {
        true if buffer.is_empty() => Ok((data, trailers)),
        true => Err("left over".to_owned()),
        false => Err("incomplete".to_owned()),
    }
}

#[test]
fn framing_follows_rfc_9112() {
    for (text, framing) in [
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n",
            BodyFraming::Length(5),
        ),
        (
            "HTTP/1.1 200\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\n",
            BodyFraming::Length(5),
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: CHUNKED\r\n\r\n",
            BodyFraming::Chunked,
        ),
        ("HTTP/1.1 200 OK\r\n\r\n", BodyFraming::UntilClose),
        (
            "HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n",
            BodyFraming::None,
        ),
        (
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n",
            BodyFraming::None,
        ),
    ] {
        assert_eq!(
            head(text).expect(text).expect(text).framing,
            framing,
            "{text}"
        );
    }
}

#[test]
fn doubtful_framing_is_refused() {
    for text in [
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
        "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: \r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n",
        "HTTP/2 200 OK\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
    ] {
        assert!(head(text).is_err(), "{text}");
    }
}

#[test]
fn heads_are_bounded() {
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(101));
    assert_eq!(
        head(&many).expect_err("too many"),
        DecodeError::TooManyHeaders
    );
    let large = format!("HTTP/1.1 200 OK\r\na: {}", "b".repeat(MAX_HEAD_BYTES));
    assert_eq!(
        head(&large).expect_err("too large"),
        DecodeError::HeadTooLarge
    );
    assert!(
        head("HTTP/1.1 200 OK\r\na: b\r\n")
            .expect("partial")
            .is_none()
    );
}

#[test]
fn keep_alive_is_for_those_who_offer_it() {
    let keeps = |text: &str| head(text).expect(text).expect(text).keep_alive;
    assert!(keeps("HTTP/1.1 204 x\r\n\r\n"));
    assert!(!keeps(
        "HTTP/1.1 204 x\r\nconnection: x\r\nconnection: foo, Close\r\n\r\n"
    ));
    assert!(!keeps("HTTP/1.0 204 x\r\n\r\n"));
}

#[test]
fn chunked_bodies_byte_by_byte() {
    let (data, trailers) = body(
        BodyFraming::Chunked,
        b"5;name=value\r\nhello\r\n006\r\n world\r\n0\r\nx-sum: 1\r\n\r\n",
    )
    .expect("valid");
    assert_eq!(data, b"hello world");
    assert_eq!(trailers.expect("trailers").get("x-sum").expect("sum"), "1");
}

#[test]
fn malformed_chunks_are_refused() {
    for bytes in [
        &b"5\nhello\r\n0\r\n\r\n"[..],
        b"5\r\nhelloX\r\n0\r\n\r\n",
        b"\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"5 5\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"11112222333344445\r\nhello\r\n",
        b"5\r\nhello\r\n0\r\n",
        b"5\r\nhel",
        b"0\r\nbad header\r\n\r\n",
    ] {
        assert!(
            body(BodyFraming::Chunked, bytes).is_err(),
            "{}",
            bytes.escape_ascii()
        );
    }
}

#[test]
fn a_length_is_exact() {
    assert_eq!(
        body(BodyFraming::Length(3), b"abc").expect("whole").0,
        b"abc"
    );
    assert_eq!(
        body(BodyFraming::Length(3), b"ab").expect_err("short"),
        "incomplete"
    );
    assert_eq!(
        body(BodyFraming::Length(3), b"abcd").expect_err("long"),
        "left over"
    );
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = take_head(&mut BytesMut::from(&bytes[..]), &Method::GET);
        let _ = body(BodyFraming::Chunked, &bytes);
        let mut prefixed = BytesMut::from(&b"HTTP/1.1 200 OK\r\n"[..]);
        prefixed.extend_from_slice(&bytes);
        let _ = take_head(&mut prefixed, &Method::GET);
    }

    #[test]
    fn chunks_decode_to_what_was_encoded(pieces in proptest::collection::vec(
        proptest::collection::vec(any::<u8>(), 1..64), 0..8,
    )) {
        let mut wire = Vec::new();
        for piece in &pieces {
            wire.extend_from_slice(format!("{:X}\r\n", piece.len()).as_bytes());
            wire.extend_from_slice(piece);
            wire.extend_from_slice(b"\r\n");
        }
        wire.extend_from_slice(b"0\r\n\r\n");
        let (data, _) = body(BodyFraming::Chunked, &wire).expect("valid");
        prop_assert_eq!(data, pieces.concat());
    }
}
