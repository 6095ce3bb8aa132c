use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::Response;
use opentelemetry_proto::tonic::collector::trace::v1 as collector;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span as PublicSpan;
use prost::Message as _;

use super::export::{Verdict, address, judge};
use super::*;
use crate::model::TraceId;

fn resource(service: &str, version: Option<&str>) -> Arc<Resource> {
    Arc::new(Resource {
        service: ServiceName::new("shop", service).expect("a name"),
        version: version.map(Arc::from),
    })
}

fn http_work() -> HttpWork {
    HttpWork {
        method: Method::GET,
        path: Path::of(Some(&PathAndQuery::from_static("/cart/7?token=secret"))),
        version: Some(Version::HTTP_11),
        scheme: "http",
        host: Some(Host::Asked("[::1]:3001".into())),
        status: Some(200),
        cause: None,
        client: Some(IpAddr::from([127, 0, 0, 1])),
        dialled: None,
        peer: None,
        resends: 0,
    }
}

fn span(kind: SpanKind, work: Work) -> Span {
    let ended = Instant::now();
    Span {
        resource: resource("users", Some("1.2.0")),
        ids: SpanIds {
            trace_id: TraceId([0xab; 16]),
            span_id: [1; 8],
            parent: Some([2; 8]),
            random: true,
            state: Some("vendor=1,other=2".into()),
        },
        kind,
        started: ended
            .checked_sub(Duration::from_millis(20))
            .unwrap_or(ended),
        ended,
        work,
    }
}

fn server(change: impl FnOnce(&mut HttpWork)) -> Span {
    let mut work = http_work();
    change(&mut work);
    span(SpanKind::Server, Work::Http(Box::new(work)))
}

fn client(change: impl FnOnce(&mut HttpWork)) -> Span {
    let mut work = http_work();
    change(&mut work);
    span(SpanKind::Client, Work::Http(Box::new(work)))
}

fn words(span: &Span) -> BTreeMap<&'static str, String> {
    let attributes = span.describe().attributes.into_iter();
    attributes
        .map(|(name, value)| match value {
            Attribute::Text(text) => (name, text.into_owned()),
            Attribute::Number(number) => (name, number.to_string()),
        })
        .collect()
}

fn decoded(body: &[u8]) -> collector::ExportTraceServiceRequest {
    collector::ExportTraceServiceRequest::decode(body).expect("the public definitions")
}

#[test]
fn what_is_encoded_is_read_by_the_public_definitions() {
    let orders = Span {
        resource: resource("orders", None),
        ..server(|work| work.status = Some(503))
    };
    let spans = [server(|_| ()), orders, server(|_| ())];
    let request = decoded(&otlp::encode(&spans));
    let counts: Vec<usize> = request
        .resource_spans
        .iter()
        .map(|group| group.scope_spans[0].spans.len())
        .collect();
    assert_eq!(counts, [2, 1]);
    let group = &request.resource_spans[0];
    let attributes = &group.resource.as_ref().expect("a resource").attributes;
    let named: Vec<(&str, Option<Value>)> = attributes
        .iter()
        .map(|attribute| {
            let value = attribute.value.clone().and_then(|value| value.value);
            (attribute.key.as_str(), value)
        })
        .collect();
    let text = |text: &str| Some(Value::StringValue(text.to_owned()));
    for expected in [
        ("service.name", text("users")),
        ("service.namespace", text("shop")),
        ("service.version", text("1.2.0")),
    ] {
        assert!(named.contains(&expected), "{expected:?} in {named:?}");
    }
    let PublicSpan {
        trace_id,
        span_id,
        trace_state,
        parent_span_id,
        flags,
        name,
        kind,
        start_time_unix_nano,
        end_time_unix_nano,
        attributes,
        status,
        ..
    } = group.scope_spans[0].spans[0].clone();
    assert_eq!((trace_id, span_id), (vec![0xab; 16], vec![1; 8]));
    assert_eq!(
        (trace_state.as_str(), parent_span_id),
        ("vendor=1,other=2", vec![2; 8])
    );
    assert_eq!((flags, name.as_str(), kind), (0x303, "GET", 2));
    let length = Duration::from_nanos(end_time_unix_nano - start_time_unix_nano);
    assert_eq!(length, Duration::from_millis(20));
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    let ended = Duration::from_nanos(end_time_unix_nano);
    assert!(
        now.abs_diff(ended) < Duration::from_secs(5),
        "{now:?} {ended:?}"
    );
    assert_eq!(attributes.len(), 8, "{attributes:?}");
    assert_eq!(status, None);
    let failed = &request.resource_spans[1].scope_spans[0].spans[0];
    assert_eq!(failed.status.as_ref().map(|status| status.code), Some(2));
}

/// Nothing is said in a way of our own: the public definitions write the same.
#[test]
fn what_is_encoded_is_what_the_public_definitions_encode() {
    let paths = [0, 1, 127, 128, 300, 2048].map(|length| "p".repeat(length));
    let spans = paths.iter().flat_map(|path| {
        let path = || Path(path.as_str().into());
        let rooted = server(|work| work.path = path());
        let mut alone = client(|work| {
            work.path = path();
            work.status = None;
            work.host = None;
        });
        alone.ids.parent = None;
        alone.ids.state = None;
        alone.ids.random = false;
        [rooted, alone]
    });
    let mut spans: Vec<Span> = spans.collect();
    for number in [0, 127, 128, u16::MAX] {
        spans.push(server(|work| work.status = Some(number)));
    }
    let body = otlp::encode(&spans);
    let request = decoded(&body);
    assert_eq!(request.resource_spans[0].scope_spans[0].spans.len(), 16);
    assert_eq!(request.encode_to_vec(), body);
    assert_eq!(otlp::encode(&[]), b"");
}

#[test]
fn a_host_has_a_name_and_perhaps_a_port() {
    for (asked, name, port) in [
        ("api.example", Some("api.example"), None),
        ("api.example:81", Some("api.example"), Some("81")),
        ("api.example:", Some("api.example"), None),
        ("[2001:db8::1]", Some("2001:db8::1"), None),
        ("[2001:db8::1]:81", Some("2001:db8::1"), Some("81")),
        ("127.0.0.1:99999", Some("127.0.0.1"), None),
        ("[", None, None),
    ] {
        let words = words(&server(|work| {
            work.host = Some(Host::Asked(asked.into()));
        }));
        let found = |key| words.get(key).map(String::as_str);
        assert_eq!(
            (found("server.address"), found("server.port")),
            (name, port),
            "{asked}"
        );
    }
}

#[test]
fn a_request_in_the_words_of_the_conventions() {
    let expected = [
        ("client.address", "127.0.0.1"),
        ("http.request.method", "GET"),
        ("http.response.status_code", "200"),
        ("network.protocol.version", "1.1"),
        ("server.address", "::1"),
        ("server.port", "3001"),
        ("url.path", "/cart/7"),
        ("url.scheme", "http"),
    ];
    let expected = expected.map(|(name, value)| (name, value.to_owned()));
    assert_eq!(words(&server(|_| ())), BTreeMap::from(expected));
    let odd = server(|work| {
        work.method = Method::from_bytes(b"BREW").expect("a token");
        work.host = None;
        work.path = Path::of(None);
    });
    assert_eq!(odd.describe().name, "HTTP");
    let odd = words(&odd);
    assert_eq!(odd["http.request.method"], "_OTHER");
    assert_eq!(odd["http.request.method_original"], "BREW");
    assert_eq!(odd["url.path"], "/");
}

#[test]
fn a_call_in_the_words_of_the_conventions() {
    let call = client(|work| {
        work.host = Some(Host::Known {
            host: Arc::from("payments.internal"),
            port: 8080,
        });
        work.client = None;
        work.dialled = Some(Arc::from("10.0.0.7:8080"));
        work.peer = Some(Arc::from("shop/payments"));
        work.resends = 2;
    });
    let expected = [
        ("http.request.method", "GET"),
        ("http.request.resend_count", "2"),
        ("http.response.status_code", "200"),
        ("network.peer.address", "10.0.0.7"),
        ("network.peer.port", "8080"),
        ("peer.service", "payments"),
        ("server.address", "payments.internal"),
        ("server.port", "8080"),
        ("url.full", "http://payments.internal:8080/cart/7"),
    ];
    let expected = expected.map(|(name, value)| (name, value.to_owned()));
    assert_eq!(words(&call), BTreeMap::from(expected));
}

#[test]
fn long_paths_are_cut() {
    let long = format!("/{}", "a".repeat(10_000));
    let target: PathAndQuery = long.parse().expect("a path");
    let span = server(|work| work.path = Path::of(Some(&target)));
    assert_eq!(words(&span)["url.path"], long[..2048]);
}

#[test]
fn whose_error_it_is() {
    let failed = |span: &Span| {
        let failed = span.describe().failed;
        (failed, words(span).get("error.type").cloned())
    };
    let of = |status: Option<u16>, cause: Option<Cause>| {
        let change = |work: &mut HttpWork| (work.status, work.cause) = (status, cause);
        (failed(&server(change)), failed(&client(change)))
    };
    let error = |text: &str| (true, Some(text.to_owned()));
    let fine = (false, None);
    assert_eq!(of(Some(200), None), (fine.clone(), fine.clone()));
    assert_eq!(of(Some(404), None), (fine.clone(), error("404")));
    assert_eq!(of(Some(500), None), (error("500"), error("500")));
    let denied = of(Some(401), Some(Cause::AuthDenied));
    assert_eq!(denied, (fine.clone(), error("auth_denied")));
    let broken_off = of(Some(200), Some(Cause::UpstreamClosed));
    assert_eq!(
        broken_off,
        (error("upstream_closed"), error("upstream_closed"))
    );
    let left = of(None, Some(Cause::ClientClosed));
    assert_eq!(left, (fine.clone(), fine));
}

#[test]
fn endpoints_name_the_receiver_or_not() {
    for (endpoint, expected) in [
        ("http://c:4318", "http://c:4318/v1/traces"),
        ("http://c:4318/", "http://c:4318/v1/traces"),
        ("http://c:4318/v1/traces/", "http://c:4318/v1/traces"),
        ("https://[::1]/otlp", "https://[::1]/otlp/v1/traces"),
        (
            "https://c/otlp/?key=a&b",
            "https://c/otlp/v1/traces?key=a&b",
        ),
        ("https://c?", "https://c/v1/traces"),
    ] {
        let found = address(endpoint).map(|uri| uri.to_string());
        assert_eq!(found.as_deref(), Some(expected), "{endpoint}");
    }
}

#[test]
fn statements_have_words_too() {
    for (error, is_sqlstate) in [("23505", true), ("40P01", true), ("no_answer", false)] {
        let statement = SqlWork {
            operation: "SELECT",
            database: Arc::from("shop"),
            host: Some(Host::Known {
                host: Arc::from("db"),
                port: 5432,
            }),
            error: Some(Arc::from(error)),
        };
        let span = span(SpanKind::Client, Work::Sql(Box::new(statement)));
        assert_eq!(span.describe().name, "SELECT shop");
        let words = words(&span);
        assert_eq!(words["db.system.name"], "postgresql");
        assert_eq!(words["db.namespace"], "shop");
        assert_eq!(words["error.type"], error);
        assert_eq!(words.contains_key("db.response.status_code"), is_sqlstate);
    }
}

#[test]
fn the_queue_is_bounded_and_counts_what_it_loses() {
    let dropped = Arc::new(AtomicU64::new(0));
    let (queue, source) = channel(Arc::clone(&dropped));
    assert!(!queue.wants_spans());
    queue.set_capacity(10);
    let some = |count: usize| (0..count).map(|_| server(|_| ())).collect::<Vec<_>>();
    queue.send(some(7));
    queue.send(some(7));
    assert_eq!(dropped.load(Ordering::Relaxed), 4);
    queue.send(some(1));
    assert_eq!(dropped.load(Ordering::Relaxed), 5);
    let Source(mut outlet) = source;
    // What was taken out still counts until it is let go.
    let taken = outlet.receiver.try_recv().expect("a message");
    queue.send(some(1));
    assert_eq!(dropped.load(Ordering::Relaxed), 6);
    drop(taken);
    queue.send(some(7));
    assert_eq!(dropped.load(Ordering::Relaxed), 6);
    drop(outlet);
    queue.send(some(1));
    assert_eq!(dropped.load(Ordering::Relaxed), 7);
}

#[test]
fn a_worker_gathers_spans_until_told_to_hurry() {
    let (queue, Source(mut outlet)) = channel(Arc::default());
    queue.set_capacity(1000);
    let buffer = SpanBuffer::new(queue);
    let mut received = || match outlet.receiver.try_recv() {
        Ok(queue::Message::Spans(held)) => held.spans.len(),
        _ => 0,
    };
    for _ in 0..70 {
        buffer.push(server(|_| ()));
    }
    assert_eq!((received(), received()), (64, 0));
    buffer.flush();
    assert_eq!(received(), 6);
    buffer.flush();
    assert_eq!(received(), 0);
    buffer.push(server(|_| ()));
    buffer.hurry();
    assert_eq!(received(), 1);
    buffer.push(server(|_| ()));
    assert_eq!(received(), 1);
}

#[test]
fn answers_are_judged_as_otlp_says() {
    let now = UNIX_EPOCH + Duration::from_secs(784_111_777);
    let of = |status: u16, retry_after: Option<&str>, body: &[u8]| {
        let mut response = Response::builder().status(status);
        if let Some(value) = retry_after {
            response = response.header("retry-after", value);
        }
        let body = Bytes::copy_from_slice(body);
        judge(&response.body(body).expect("a response"), now)
    };
    assert_eq!(of(200, None, b""), Verdict::Taken { rejected: 0 });
    assert_eq!(of(200, None, b"\xff\xff"), Verdict::Taken { rejected: 0 });
    let partial = collector::ExportTraceServiceResponse {
        partial_success: Some(collector::ExportTracePartialSuccess {
            rejected_spans: 3,
            error_message: "too old".to_owned(),
        }),
    };
    let partial = of(200, None, &partial.encode_to_vec());
    assert_eq!(partial, Verdict::Taken { rejected: 3 });
    for status in [400, 401, 404, 413, 500, 501, 302] {
        assert!(
            matches!(of(status, None, b""), Verdict::Refused(_)),
            "{status}"
        );
    }
    for (value, expected) in [
        (None, None),
        (Some("7"), Some(7)),
        (Some("Sun, 06 Nov 1994 08:49:40 GMT"), Some(3)),
        (Some("Sun, 06 Nov 1994 08:49:00 GMT"), Some(0)),
        (Some("soon"), None),
    ] {
        for status in [429, 502, 503, 504] {
            let Verdict::Later { after, .. } = of(status, value, b"") else {
                panic!("{status} is to be tried again");
            };
            assert_eq!(after, expected.map(Duration::from_secs), "{value:?}");
        }
    }
}
