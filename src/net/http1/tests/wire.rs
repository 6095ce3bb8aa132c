//! The bytes of a connection, with a peer that is slow to take them.

use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::LIMITS;
use crate::net::deadline::{Clock, Deadlines};
use crate::net::http1::Spares;
use crate::net::http1::wire::Wire;
use crate::net::stream::Stream;
use crate::net::watch::{ClientTimeouts, Watch};

/// A connection's two ends, ours with small buffers.
async fn wires() -> (Wire, tokio::net::TcpStream) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("bound");
    let client = tokio::net::TcpSocket::new_v4().expect("a socket");
    client.set_recv_buffer_size(8 * 1024).expect("set");
    let (client, accepted) = tokio::join!(client.connect(address), listener.accept());
    let (stream, _) = accepted.expect("accepted");
    let socket = socket2::SockRef::from(&stream);
    socket.set_send_buffer_size(8 * 1024).expect("set");
    let deadlines = Deadlines::new(Clock::start());
    let timeouts = ClientTimeouts {
        header: Duration::from_secs(60),
        idle: Duration::from_secs(60),
        write_stall: Duration::from_secs(60),
    };
    let watch = Watch::new(timeouts, &deadlines);
    let wire = Wire::new(Stream::accepted(stream), Bytes::new(), watch);
    (wire, client.expect("connected"))
}

fn flush(wire: &mut Wire) -> Poll<()> {
    let mut context = Context::from_waker(Waker::noop());
    wire.poll_flush(&mut context)
        .map(|written| written.expect("open"))
}

/// A client that is always a little behind holds what it has not read, and not
/// what it has.
#[tokio::test]
async fn what_was_written_is_let_go() {
    let (mut wire, mut client) = wires().await;
    let piece = Bytes::from(vec![b'x'; 1000]);
    while wire.staged_bytes() < 32_000 {
        wire.stage(piece.clone());
        let _ = flush(&mut wire);
    }
    let mut room = vec![0; 4000];
    for _ in 0..2000 {
        let read = client.read(&mut room).await.expect("open");
        wire.stage_slice(&vec![b'y'; read]);
        // As much as was read may still be in the kernel of the other side.
        tokio::task::yield_now().await;
        let _ = flush(&mut wire);
        assert!(wire.room() < 256 * 1024, "{}", wire.room());
    }
    assert!(wire.staged_bytes() > 0, "it was never behind");
}

/// The client waits for it, whoever else waits for what.
#[tokio::test]
async fn a_continue_that_finds_no_room_goes_out_later() {
    let (mut wire, mut client) = wires().await;
    client
        .write_all(b"POST / HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n")
        .await
        .expect("sent");
    let spares = Spares::default();
    let head = std::future::poll_fn(|context| wire.poll_head(LIMITS, &spares, context)).await;
    assert!(matches!(head, Ok(Some(_))));
    let mut before = 0;
    while flush(&mut wire).is_ready() {
        wire.stage(Bytes::from(vec![b'x'; 8000]));
        before += 8000;
    }
    let mut context = Context::from_waker(Waker::noop());
    assert!(wire.poll_piece(&mut context).is_pending());
    let sending = async {
        std::future::poll_fn(|context| wire.poll_continue(context))
            .await
            .expect("open");
    };
    let mut received = vec![0; before + 25];
    let reading = client.read_exact(&mut received);
    let both = async { tokio::join!(sending, reading) };
    let (_, read) = tokio::time::timeout(Duration::from_secs(20), both)
        .await
        .expect("comes");
    read.expect("open");
    assert_eq!(&received[before..], b"HTTP/1.1 100 Continue\r\n\r\n");
}
