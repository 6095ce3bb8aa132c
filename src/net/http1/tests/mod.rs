mod wire;

use bytes::BytesMut;
use http::header::{CONTENT_LENGTH, TRAILER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};
use proptest::prelude::*;

use super::answer::{self, Asked, Length, Sending};
use super::head::{Head, Refused, take_head};
use super::*;

const LIMITS: ParserLimits = ParserLimits {
    header_bytes: 16 * 1024,
    header_count: 10,
};

fn head(text: &str) -> Result<Option<Head>, Refused> {
    take_head(&mut BytesMut::from(text), LIMITS, &Spares::default())
}

fn whole(text: &str) -> Head {
    head(text).expect(text).expect(text)
}

#[test]
fn framing_follows_rfc_9112() {
    for (fields, framing) in [
        ("", BodyFraming::None),
        ("content-length: 5\r\n", BodyFraming::Length(5)),
        (
            "content-length: 5\r\ncontent-length: 005\r\n",
            BodyFraming::Length(5),
        ),
        ("transfer-encoding: Chunked\r\n", BodyFraming::Chunked),
        (
            "content-length: 5\r\ntransfer-encoding: chunked\r\n",
            BodyFraming::Chunked,
        ),
        (
            "transfer-encoding: chunked\r\ncontent-length: x\r\n",
            BodyFraming::Chunked,
        ),
    ] {
        let head = whole(&format!("POST / HTTP/1.1\r\n{fields}\r\n"));
        assert_eq!(head.framing, framing, "{fields}");
        let lengths = head.parts.headers.get_all(CONTENT_LENGTH).iter().count();
        let doubtful = fields.contains("content") && fields.contains("transfer");
        assert_eq!(head.keep_alive, !doubtful, "{fields}");
        assert_eq!(
            lengths,
            usize::from(matches!(framing, BodyFraming::Length(_)))
        );
    }
    for fields in [
        "content-length: 5\r\ncontent-length: 6\r\n",
        "content-length: 5, 5\r\n",
        "content-length: +5\r\n",
        "content-length:\r\n",
        "content-length: 18446744073709551616\r\n",
        "transfer-encoding: gzip\r\n",
        "transfer-encoding: chunked, gzip\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: gzip\r\n",
        "transfer-encoding:\r\n",
        "a : b\r\n",
        "a: b\r\n c\r\n",
        "a b: c\r\n",
        "a: b\0\r\n",
    ] {
        let refused = head(&format!("POST / HTTP/1.1\r\n{fields}\r\n"));
        assert_eq!(refused.expect_err(fields), Refused(400), "{fields}");
    }
    let old = head("POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n");
    assert_eq!(old.expect_err("unknown to it"), Refused(400));
}

#[test]
fn heads_are_bounded() {
    let fields = |count| format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(count));
    assert_eq!(whole(&fields(10)).parts.headers.len(), 10);
    assert_eq!(head(&fields(11)).expect_err("too many"), Refused(431));
    let large = |count| format!("GET / HTTP/1.1\r\na: {}", "b".repeat(count));
    assert!(head(&large(10_000)).expect("may go on").is_none());
    assert_eq!(
        head(&large(16 * 1024)).expect_err("too large"),
        Refused(431)
    );
    let endless = head("POST / HTTP/1.1\r\ncontent-length: 18446744073709551615\r\n\r\n");
    assert_eq!(endless.expect_err("too long"), Refused(431));
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(70_000));
    let wide = ParserLimits {
        header_bytes: 128 * 1024,
        header_count: 200,
    };
    let refused = take_head(&mut BytesMut::from(&long[..]), wide, &Spares::default());
    assert_eq!(refused.expect_err("too long"), Refused(414));
    let many = take_head(
        &mut BytesMut::from(&fields(200)[..]),
        wide,
        &Spares::default(),
    );
    let many = many.expect("as many as may be").expect("whole");
    assert_eq!(many.parts.headers.len(), 200);
}

#[test]
fn connections_go_on_where_both_want_it() {
    let keeps = |text: &str| whole(&format!("{text}\r\n")).keep_alive;
    assert!(keeps("GET / HTTP/1.1\r\n"));
    assert!(!keeps(
        "GET / HTTP/1.1\r\nconnection: keep-alive\r\nconnection: x, Close\r\n"
    ));
    assert!(!keeps("GET / HTTP/1.0\r\n"));
    assert!(keeps("GET / HTTP/1.0\r\nconnection: x, Keep-Alive\r\n"));
    assert!(!keeps("CONNECT a:1 HTTP/1.1\r\n"));
    let ends = |text: &str| whole(&format!("{text}\r\n")).ends;
    assert!(ends("GET / HTTP/1.1\r\nconnection: close\r\n"));
    assert!(ends("GET / HTTP/1.0\r\n"));
    assert!(!ends("GET / HTTP/1.1\r\n"));
    assert!(!ends("CONNECT a:1 HTTP/1.1\r\n"));
    assert!(whole("PUT / HTTP/1.1\r\nexpect: 100-Continue\r\n\r\n").expects);
    assert!(!whole("PUT / HTTP/1.0\r\nexpect: 100-continue\r\n\r\n").expects);
    assert!(whole("GET / HTTP/1.1\r\nte: gzip;q=1, trailers\r\n\r\n").trailers);
}

const ASKED: Asked = Asked {
    head: false,
    version: Version::HTTP_11,
    trailers: true,
};

/// The text without its date, how its body is sent, and whether the connection
/// goes on.
fn written(
    asked: Asked,
    status: u16,
    fields: &[(HeaderName, &'static str)],
    length: Length,
) -> (String, Sending, bool) {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(name, HeaderValue::from_static(value));
    }
    let status = StatusCode::from_u16(status).expect("a status");
    let mut out = Vec::new();
    let date = |out: &mut Vec<u8>| out.extend_from_slice(b"now");
    let written = answer::write_head(
        &mut out,
        asked,
        (status, &headers, None),
        length,
        true,
        date,
    );
    let text = String::from_utf8(out).expect("ascii");
    let text = text
        .strip_suffix("date: now\r\n\r\n")
        .expect("dated")
        .to_owned();
    (text, written.sending, written.keep_alive)
}

#[test]
fn answers_are_framed_by_what_is_sent() {
    let length = || (CONTENT_LENGTH, "7");
    let ok = "HTTP/1.1 200 OK\r\n";
    for (status, fields, sent, expected) in [
        (
            200,
            vec![length()],
            Length::Known(3),
            (format!("{ok}content-length: 3\r\n"), Sending::Length(3)),
        ),
        (
            200,
            vec![length()],
            Length::None,
            (format!("{ok}content-length: 0\r\n"), Sending::Nothing),
        ),
        (
            200,
            vec![length()],
            Length::Unknown,
            (format!("{ok}content-length: 7\r\n"), Sending::Length(7)),
        ),
        (
            200,
            vec![],
            Length::Unknown,
            (
                format!("{ok}transfer-encoding: chunked\r\n"),
                Sending::Chunked(vec![]),
            ),
        ),
        (
            204,
            vec![length()],
            Length::None,
            ("HTTP/1.1 204 No Content\r\n".to_owned(), Sending::Nothing),
        ),
        (
            304,
            vec![length()],
            Length::Known(7),
            ("HTTP/1.1 304 Not Modified\r\n".to_owned(), Sending::Nothing),
        ),
        (
            299,
            vec![],
            Length::None,
            (
                "HTTP/1.1 299 <none>\r\ncontent-length: 0\r\n".to_owned(),
                Sending::Nothing,
            ),
        ),
    ] {
        let (text, sending, goes_on) = written(ASKED, status, &fields, sent);
        assert_eq!((text, sending), expected);
        assert!(goes_on);
    }
    let asked = Asked {
        head: true,
        ..ASKED
    };
    for (fields, sent, told) in [
        (vec![length(), length()], Length::None, "7"),
        (vec![], Length::Known(4), "4"),
    ] {
        let (text, sending, _) = written(asked, 200, &fields, sent);
        assert_eq!(text, format!("{ok}content-length: {told}\r\n"));
        assert_eq!(sending, Sending::Nothing);
    }
}

#[test]
fn old_clients_are_told_what_becomes_of_the_connection() {
    let asked = Asked {
        version: Version::HTTP_10,
        ..ASKED
    };
    let (text, sending, goes_on) = written(asked, 200, &[], Length::Unknown);
    assert_eq!(text, "HTTP/1.0 200 OK\r\nconnection: close\r\n");
    assert_eq!((sending, goes_on), (Sending::UntilClose, false));
    let (text, _, goes_on) = written(asked, 200, &[], Length::Known(1));
    assert_eq!(
        text,
        "HTTP/1.0 200 OK\r\ncontent-length: 1\r\nconnection: keep-alive\r\n"
    );
    assert!(goes_on);
    let switch = [
        (http::header::CONNECTION, "Upgrade"),
        (http::header::UPGRADE, "websocket"),
    ];
    let (text, sending, goes_on) = written(ASKED, 101, &switch, Length::None);
    assert!(
        text.ends_with("connection: Upgrade\r\nupgrade: websocket\r\n"),
        "{text}"
    );
    assert_eq!((sending, goes_on), (Sending::Nothing, false));
}

#[test]
fn trailers_are_those_that_were_announced_to_who_takes_them() {
    let announced = [(
        TRAILER,
        "x-sum, X-Other, set-cookie, Authorization, content-type",
    )];
    let (text, sending, _) = written(ASKED, 200, &announced, Length::Unknown);
    assert!(text.contains("trailer: x-sum, X-Other, set"), "{text}");
    let Sending::Chunked(names) = sending else {
        panic!("{sending:?}");
    };
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("1"));
    trailers.insert("x-more", HeaderValue::from_static("2"));
    trailers.insert("set-cookie", HeaderValue::from_static("a=b"));
    trailers.insert("content-type", HeaderValue::from_static("text/html"));
    let mut out = Vec::new();
    answer::write_last_chunk(Some(&trailers), &names, &mut out);
    assert_eq!(out, b"0\r\nx-sum: 1\r\n\r\n");
    let asked = Asked {
        trailers: false,
        ..ASKED
    };
    let (_, sending, _) = written(asked, 200, &announced, Length::Unknown);
    assert_eq!(sending, Sending::Chunked(vec![]));
    let (text, ..) = written(ASKED, 200, &announced, Length::Known(1));
    assert!(!text.contains("trailer"), "{text}");
}

fn relayed(text: &'static str) -> Box<Relayed> {
    let mut fields = [httparse::EMPTY_HEADER; 20];
    let parsed = httparse::parse_headers(text.as_bytes(), &mut fields).expect("fields");
    let httparse::Status::Complete((_, fields)) = parsed else {
        panic!("{text}");
    };
    let spans = spans_of(text.as_bytes(), fields);
    Relayed::new(bytes::Bytes::from_static(text.as_bytes()), spans)
}

/// The chunked body that is there, as text, and what is left of the bytes.
fn chunked(bytes: &[u8]) -> Result<(String, Vec<u8>), FramingError> {
    let mut buffer = BytesMut::from(bytes);
    let mut decoder = BodyDecoder::new(BodyFraming::Chunked);
    let mut text = String::new();
    loop {
        match decoder.next_piece(&mut buffer)? {
            Piece::Data(data) => text += std::str::from_utf8(&data).expect("ascii"),
            Piece::Trailers(trailers) => text += &format!("{trailers:?}"),
            Piece::End => return Ok((text, buffer.to_vec())),
            Piece::More => return Ok((text, b"more".to_vec())),
        }
    }
}

/// What one parser takes for the end of a line and another does not moves the
/// border between two requests.
#[test]
fn lines_of_chunks_end_with_crlf_alone() {
    let good = b"5 \t;a=\"b\"\r\nhello\r\n0\r\nX: y\r\n\r\nGET";
    let (text, rest) = chunked(good).expect("legal");
    assert_eq!(
        (text.as_str(), &rest[..]),
        ("hello{\"x\": \"y\"}", &b"GET"[..])
    );
    for line in [
        "5\r\r\n",
        "5 \r\r\n",
        "5\x0c\r\n",
        "5\x0c;a\r\n",
        "5\r;a\r\n",
        "5;a\0\r\n",
        "5\n",
    ] {
        let bytes = format!("{line}hello\r\n0\r\n\r\n");
        assert_eq!(
            chunked(bytes.as_bytes()),
            Err(FramingError::Chunk),
            "{line:?}"
        );
    }
    for end in ["\n", "X: y\n\n", "X: y\n\r\n", "X: y\r\n\n", "X: y\n"] {
        let bytes = format!("5\r\nhello\r\n0\r\n{end}");
        assert_eq!(
            chunked(bytes.as_bytes()),
            Err(FramingError::Trailers),
            "{end:?}"
        );
    }
    let extended = format!("1;{}\r\nx\r\n", "a".repeat(1000)).repeat(20);
    assert_eq!(chunked(extended.as_bytes()), Err(FramingError::Chunk));
}

#[test]
fn what_was_wrong_once_is_never_taken_up_again() {
    let mut buffer = BytesMut::from(&b"x\r\n0\r\n\r\nGET"[..]);
    let mut decoder = BodyDecoder::new(BodyFraming::Chunked);
    for _ in 0..3 {
        assert_eq!(decoder.next_piece(&mut buffer), Err(FramingError::Chunk));
        assert!(!decoder.is_done());
    }
}

#[test]
fn names_are_told_whatever_their_letters() {
    for name in ["content-length", "Content-Length", "CONTENT-LENGTH"] {
        assert!(is_named(name.as_bytes(), b"content-length"), "{name}");
    }
    for name in [
        "content_length",
        "content-lengtH2",
        "content-lengt",
        "x",
        "",
    ] {
        assert!(!is_named(name.as_bytes(), b"content-length"), "{name}");
    }
    // Every byte that may stand in a name (RFC 9110 §5.6.2), for every one known.
    for byte in (0..=u8::MAX).filter(|byte| byte.is_ascii_graphic()) {
        let same = byte.eq_ignore_ascii_case(&b'a');
        assert_eq!(is_named(&[byte], b"a"), same, "{byte}");
        assert_eq!(is_named(&[byte], b"-"), byte == b'-', "{byte}");
        assert_eq!(is_named(&[byte], b"2"), byte == b'2', "{byte}");
    }
}

#[test]
fn what_is_ours_takes_the_place_of_what_came() {
    let mut fields = relayed("X-A: 1\r\nx-id: theirs\r\nX-ID: again\r\nx-b: \r\nX-Gone: 2\r\n\r\n");
    let kept = |name: &[u8], _: &[u8]| Ok::<_, FramingError>(name != b"X-Gone");
    fields.retain(kept).expect("never fails");
    fields.lend(b"what was there before".to_vec());
    let name = HeaderName::from_static("x-id");
    for value in ["no", "ours"] {
        fields.ours().set(&name, &HeaderValue::from_static(value));
    }
    let came: Vec<&[u8]> = fields.values("x-id").collect();
    assert_eq!(came, [&b"theirs"[..], b"again"]);
    let mut headers = HeaderMap::new();
    headers.insert("x-b", HeaderValue::from_static("first"));
    let mut out = Vec::new();
    fields.for_each(&headers, |name, value, line| {
        assert!(line.is_none_or(|line| line == b"X-A: 1"));
        out.push((name.to_vec(), value.to_vec()));
    });
    assert_eq!(
        out,
        [
            (b"x-id".to_vec(), b"ours".to_vec()),
            (b"X-A".to_vec(), b"1".to_vec())
        ]
    );
    fields.join(&mut headers);
    let expected = [("x-a", "1"), ("x-id", "ours"), ("x-b", "first")];
    let expected = expected.map(|(name, value)| {
        (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )
    });
    assert_eq!(headers, HeaderMap::from_iter(expected));
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = take_head(&mut BytesMut::from(&bytes[..]), LIMITS, &Spares::default());
        let mut prefixed = BytesMut::from(&b"POST / HTTP/1.1\r\n"[..]);
        prefixed.extend_from_slice(&bytes);
        let _ = take_head(&mut prefixed, LIMITS, &Spares::default());
    }

    #[test]
    fn size_lines_are_hexadecimal(length in any::<usize>()) {
        let mut out = Vec::new();
        answer::write_size_line(length, &mut out);
        prop_assert_eq!(String::from_utf8(out).expect("ascii"), format!("{length:x}\r\n"));
    }
}
