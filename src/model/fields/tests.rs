//! Fields as lines, and as the map they would be.

use proptest::prelude::*;

use super::*;

fn name(text: &str) -> HeaderName {
    HeaderName::from_bytes(text.as_bytes()).expect("a name")
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("a value")
}

#[test]
fn lines_are_as_http_has_them() {
    let mut lines = FieldLines::default();
    assert!(lines.is_empty());
    lines.push(&name("host"), &value("shop"));
    lines
        .line(LineStart::new("x-n: "))
        .text("d:")
        .number(17)
        .end();
    lines
        .line(LineStart::new("x-id: "))
        .hex(&[0xab, 0x07])
        .end();
    lines.push(&name("x-empty"), &value(""));
    assert_eq!(
        lines.as_bytes(),
        b"host: shop\r\nx-n: d:17\r\nx-id: ab07\r\nx-empty: \r\n"
    );
    assert_eq!(lines.get(&name("x-id")), Some(&b"ab07"[..]));
    assert_eq!(lines.get(&name("x-empty")), Some(&b""[..]));
    assert!(lines.has(&name("X-N")) && !lines.has(&name("x-m")));
    assert_eq!(
        format!("{lines:?}"),
        r#"["host", "x-n", "x-id", "x-empty"]"#
    );
}

#[test]
fn a_field_is_set_in_its_place() {
    let mut lines = FieldLines::default();
    for (one, text) in [("a", "1"), ("b", ""), ("c", "3")] {
        lines.set(&name(one), &value(text));
    }
    lines.set(&name("b"), &value("longer: than before"));
    lines.set(&name("a"), &value(""));
    assert_eq!(
        lines.as_bytes(),
        b"a: \r\nb: longer: than before\r\nc: 3\r\n"
    );
    let mut more = FieldLines::default();
    more.push(&name("d"), &value("4"));
    more.push(&name("c"), &value("33"));
    lines.set_all(&more);
    assert_eq!(
        lines.as_bytes(),
        b"a: \r\nb: longer: than before\r\nc: 33\r\nd: 4\r\n"
    );
}

#[test]
fn secrets_stay_secrets() {
    let mut secret = value("s3cret");
    secret.set_sensitive(true);
    let mut lines = FieldLines::default();
    lines.push(&name("x-token"), &secret);
    let mut all = FieldLines::default();
    all.push(&name("x-other"), &value("1"));
    all.set_all(&lines);
    assert!(!format!("{all:?}").contains("s3cret"));
    let mut headers = HeaderMap::new();
    all.insert_into(&mut headers);
    assert!(headers["x-token"].is_sensitive() && !headers["x-other"].is_sensitive());
    all.set(&name("x-token"), &value("1"));
    all.insert_into(&mut headers);
    assert!(!headers["x-token"].is_sensitive());
}

#[test]
fn usual_names_have_marks_of_their_own() {
    let ours = "host x-forwarded-for x-forwarded-proto x-forwarded-host x-real-ip \
        x-request-id traceparent tracestate x-trace-id x-trace-depth x-trace-service \
        x-parent-service-id x-auth-strategy x-auth-subject x-service-call x-service-name \
        te forwarded b3";
    let usual = "accept accept-encoding accept-language user-agent cookie authorization \
        x-api-key content-type content-length cache-control referer origin range priority \
        sec-fetch-mode sec-fetch-site sec-fetch-dest sec-ch-ua if-none-match pragma";
    let mut marks = 0;
    for name in ours.split_whitespace() {
        assert_eq!(marks & mark(name.as_bytes()), 0, "{name}");
        marks |= mark(name.as_bytes());
    }
    for name in usual.split_whitespace() {
        assert_eq!(marks & mark(name.as_bytes()), 0, "{name}");
    }
    for (one, other) in [("X-Request-ID", "x-request-id"), ("Te", "tE"), ("A", "a")] {
        assert_eq!(mark(one.as_bytes()), mark(other.as_bytes()));
    }
}

proptest! {
    #[test]
    fn they_are_what_a_map_would_be(
        fields in proptest::collection::vec(("[a-e]{1,2}", "[ -~]{0,12}"), 0..12),
    ) {
        let (mut lines, mut map) = (FieldLines::default(), HeaderMap::new());
        let mut more = FieldLines::default();
        for (index, (one, text)) in fields.iter().enumerate() {
            let (name, value) = (name(one), value(text.trim()));
            match index % 2 {
                0 => lines.set(&name, &value),
                _ => more.set(&name, &value),
            }
        }
        for part in [&lines, &more] {
            for (name, value) in part.iter() {
                let name = HeaderName::from_bytes(name).expect("a name");
                map.insert(name, HeaderValue::from_bytes(value).expect("a value"));
            }
        }
        lines.set_all(&more);
        let mut seen = HeaderMap::new();
        lines.insert_into(&mut seen);
        prop_assert_eq!(&seen, &map);
        prop_assert_eq!(lines.iter().count(), map.len());
    }
}
