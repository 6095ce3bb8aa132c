//! gRPC with a real client and a real server on either side.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request};

use super::front::Front;
use super::grpc_app::{GrpcApp, IDLE, Stub, runtime};
use crate::support::ports::free_port;
use crate::support::wait::{SOON, wait_until};

fn calls(upstream: &str, limits: &str) -> (GrpcApp, Front) {
    let app = GrpcApp::start();
    let front = Front::of(app.port, upstream, limits);
    (app, front)
}

#[test]
fn all_four_kinds_of_calls() {
    // `auto` speaks HTTP/2 to the app when gRPC comes in.
    for protocol in ["protocol: h2c", "protocol: auto"] {
        let (app, front) = calls(protocol, "");
        runtime().block_on(async {
            let mut stub = Stub::connect(front.port).await;
            let mut request = Request::new(Bytes::from_static(b"hello"));
            let value = MetadataValue::from_bytes(b"\x00\x01\xff");
            request
                .metadata_mut()
                .insert_bin("x-echo-bin", value.clone());
            let answer = stub.unary("/test.Echo/Unary", request).await.unwrap();
            assert_eq!(answer.metadata().get_bin("x-echo-bin"), Some(&value));
            assert_eq!(answer.metadata().get("x-end").unwrap(), "yes");
            let end = answer.metadata().get_bin("x-end-bin").unwrap();
            assert_eq!(end.to_bytes().unwrap(), &b"\x00\xfe\xff"[..]);
            assert_eq!(answer.into_inner(), "hello");
            assert_eq!(app.seen.last().get("te").unwrap(), "trailers");

            let messages = futures_util::stream::iter((0..500).map(|_| Bytes::from(vec![7; 1000])));
            let answer = stub.streaming("/test.Echo/Sum", messages).await.unwrap();
            let sum: Vec<_> = answer.into_inner().take(1).collect().await;
            assert_eq!(sum[0].as_ref().unwrap(), "500000");

            let one = futures_util::stream::iter([Bytes::from(vec![9; 5000])]);
            let answer = stub.streaming("/test.Echo/Repeat", one).await.unwrap();
            let mut messages = answer.into_inner();
            let mut count = 0;
            while let Some(message) = messages.message().await.unwrap() {
                assert_eq!(message.len(), 5000);
                count += 1;
            }
            assert_eq!(count, 1000);
            let trailers = messages.trailers().await.unwrap().unwrap();
            assert_eq!(trailers.get("x-end").unwrap(), "yes");

            chat(&mut stub).await;
        });
        front.wait_for_rest();
        assert_eq!(front.counted(200), 4.0);
        assert_eq!(front.errors("client_closed"), 0.0);
    }
}

/// Each message is answered before the next is sent.
async fn chat(stub: &mut Stub) {
    let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(1);
    let messages = futures_util::stream::unfold(receiver, async |mut receiver| {
        let message = receiver.recv().await?;
        Some((message, receiver))
    });
    let answer = stub.streaming("/test.Echo/Chat", messages).await.unwrap();
    let mut answers = answer.into_inner();
    for number in 0..50_u32 {
        let message = Bytes::from(number.to_string());
        sender.send(message.clone()).await.unwrap();
        assert_eq!(answers.message().await.unwrap().unwrap(), message);
    }
    drop(sender);
    assert_eq!(answers.message().await.unwrap(), None);
}

#[test]
fn large_messages_and_the_health_protocol() {
    let (_app, front) = calls("protocol: h2c", "");
    let before = front.daemon.resident_kib();
    runtime().block_on(async {
        let mut stub = Stub::connect(front.port).await;
        let message = Bytes::from(vec![b'm'; 32 * 1024 * 1024]);
        let request = Request::new(message.clone());
        let answer = stub.unary("/test.Echo/Unary", request).await.unwrap();
        assert!(answer.into_inner() == message);
        let request = Request::new(Bytes::new());
        let health = stub.unary("/grpc.health.v1.Health/Check", request).await;
        assert_eq!(health.unwrap().into_inner(), &b"\x08\x01"[..]);
    });
    let grown = front.daemon.resident_kib().saturating_sub(before);
    println!("32 MiB both ways: resident memory +{grown} KiB");
    assert!(grown < 16 * 1024, "+{grown} KiB");
}

#[test]
fn errors_deadlines_and_cancels_pass() {
    let (app, front) = calls("protocol: h2c", "");
    let seen = &app.seen;
    let cancelled = |count: usize| {
        wait_until(&format!("the server sees cancel {count}"), SOON, || {
            seen.cancelled.load(Ordering::Acquire) == count
        });
    };
    let runtime = runtime();
    let mut stub = runtime.block_on(Stub::connect(front.port));
    runtime.block_on(async {
        let request = Request::new(Bytes::new());
        let status = stub.unary("/test.Echo/Fail", request).await.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(status.message(), "no stock: 100 % gone\n");
        let why = status.metadata().get_bin("x-why-bin").unwrap();
        assert_eq!(why.to_bytes().unwrap(), &b"\x01\xff"[..]);
        let request = Request::new(Bytes::new());
        let status = stub.unary("/test.Echo/None", request).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented);
        // The deadline is the client's; the server sees it, and its end.
        let mut request = Request::new(Bytes::new());
        request.set_timeout(Duration::from_millis(300));
        let begun = Instant::now();
        let status = stub.unary("/test.Echo/Hang", request).await.unwrap_err();
        assert!(matches!(
            status.code(),
            Code::Cancelled | Code::DeadlineExceeded
        ));
        assert!(begun.elapsed() < Duration::from_secs(5));
    });
    let deadline = seen
        .last()
        .get("grpc-timeout")
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    assert!(deadline.starts_with("300000"), "{deadline}");
    cancelled(1);
    runtime.block_on(async {
        // Dropped before the head.
        let request = Request::new(Bytes::new());
        let call = stub.unary("/test.Echo/Hang", request);
        let begun = async {
            while seen.begun.load(Ordering::Acquire) < 4 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            _ = call => panic!("it hangs"),
            () = begun => {}
        }
    });
    cancelled(2);
    runtime.block_on(async {
        // Dropped within the answers.
        let one = futures_util::stream::iter([Bytes::new()]);
        let answer = stub.streaming("/test.Echo/HangLater", one).await;
        let mut answers = answer.unwrap().into_inner();
        assert_eq!(answers.message().await.unwrap().unwrap(), "first");
    });
    cancelled(3);
    // The connection goes, with the client's half of a stream still open.
    runtime.block_on(async {
        let mut stub = Stub::connect(front.port).await;
        let pending = futures_util::stream::pending();
        let answer = stub.streaming("/test.Echo/HangLater", pending).await;
        let mut answers = answer.unwrap().into_inner();
        assert_eq!(answers.message().await.unwrap().unwrap(), "first");
    });
    drop((stub, runtime));
    cancelled(4);
    front.wait_for_rest();
    assert_eq!(front.errors("client_closed"), 4.0);
}

/// No limit on silence breaks a stream that both ends keep open.
#[test]
fn a_stream_may_be_silent() {
    let upstream = "protocol: h2c, responseTimeout: 1s, bodyIdleTimeout: 1s";
    let (_app, front) = calls(upstream, "idleTimeout: 1s, headerTimeout: 1s");
    runtime().block_on(async {
        let mut stub = Stub::connect(front.port).await;
        let begun = Instant::now();
        let never = futures_util::stream::pending();
        let idle = async {
            let mut stub = stub.clone();
            let answer = stub.streaming("/test.Echo/Idle", never).await.unwrap();
            let mut answers = answer.into_inner();
            assert_eq!(answers.message().await.unwrap().unwrap(), "first");
            assert_eq!(answers.message().await.unwrap().unwrap(), "late");
        };
        // The client streams for longer than the response timeout before the
        // server has anything to answer.
        let slow = async {
            let mut stub = stub.clone();
            let ticks = futures_util::stream::unfold(0, async |count| {
                tokio::time::sleep(Duration::from_millis(500)).await;
                (count < 5).then(|| (Bytes::from_static(b"tick"), count + 1))
            });
            let answer = stub.streaming("/test.Echo/Sum", ticks).await.unwrap();
            let sum = answer.into_inner().message().await.unwrap().unwrap();
            assert_eq!(sum, "20");
        };
        tokio::join!(idle, slow);
        assert!(begun.elapsed() >= IDLE);
        // The connection is as good as before.
        let request = Request::new(Bytes::from_static(b"x"));
        assert!(stub.unary("/test.Echo/Unary", request).await.is_ok());
    });
}

#[test]
fn failures_of_the_sidecar_are_grpc_statuses() {
    let call = |front: &Front| {
        runtime().block_on(async {
            let mut stub = Stub::connect(front.port).await;
            let request = Request::new(Bytes::from_static(b"x"));
            stub.unary("/test.Echo/Hang", request).await.unwrap_err()
        })
    };
    let front = Front::of(free_port(), "protocol: h2c", "");
    let status = call(&front);
    assert_eq!(status.code(), Code::Unavailable);
    let proxy = status.metadata().get("proxy-status").unwrap();
    assert_eq!(proxy, "users.shop; error=connection_refused");
    let (app, front) = calls("protocol: h2c, responseTimeout: 300ms", "bodyBytes: 1KiB");
    assert_eq!(call(&front).code(), Code::DeadlineExceeded);
    wait_until("the server sees the cancel", SOON, || {
        app.seen.cancelled.load(Ordering::Acquire) == 1
    });
    let status = runtime().block_on(async {
        let mut stub = Stub::connect(front.port).await;
        let request = Request::new(Bytes::from(vec![1; 10_000]));
        stub.unary("/test.Echo/Unary", request).await.unwrap_err()
    });
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let key = "auth: {apiKey: {keys: [{id: web, key: 0123456789abcdef0123456789abcdef}]}}";
    let front = Front::with(&Front::yaml(app.port, "protocol: h2c", "", key), "");
    assert_eq!(call(&front).code(), Code::Unauthenticated);
    front.wait_for_rest();
}
