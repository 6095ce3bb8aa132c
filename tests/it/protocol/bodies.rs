//! Large bodies and streams: passed on as they come, never held.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::front::{Front, front, limited};
use crate::support::app::{Connection, Next, Received};
use crate::support::client::Request;
use crate::support::scripts;
use crate::support::wait::{SOON, wait_until};

const GIB: u64 = 1024 * 1024 * 1024;
/// Issue's bound on resident memory.
const MOST_GROWTH_KIB: u64 = 16 * 1024;

/// An app that answers with a gibibyte, or takes one, without looking at it.
fn large_app() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            // The client may leave.
            std::thread::spawn(move || serve_large(stream).unwrap_or_default());
        }
    });
    port
}

fn serve_large(mut stream: TcpStream) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    if head.starts_with(b"GET") {
        let block = vec![b'd'; 256 * 1024];
        stream.write_all(
            format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {GIB}\r\n\r\n")
                .as_bytes(),
        )?;
        for _ in 0..GIB / block.len() as u64 {
            stream.write_all(&block)?;
        }
    } else {
        let mut block = vec![0; 256 * 1024];
        let mut taken = 0;
        while taken < GIB {
            let count = stream.read(&mut block)?;
            if count == 0 {
                return Ok(());
            }
            taken += count as u64;
        }
        let body = taken.to_string();
        let length = body.len();
        stream.write_all(
            format!(
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
            )
            .as_bytes(),
        )?;
    }
    // Until the client has it.
    stream.read_exact(&mut byte)
}

/// The highest resident memory while `work` runs, in KiB.
fn peak_during(front: &Front, work: impl FnOnce() + Send) -> u64 {
    std::thread::scope(|scope| {
        let working = scope.spawn(work);
        let mut peak = 0;
        while !working.is_finished() {
            peak = peak.max(front.daemon.resident_kib());
            crate::support::wait::pause(Duration::from_millis(20));
        }
        working.join().unwrap();
        peak
    })
}

#[test]
fn a_gibibyte_down_and_up() {
    let front = Front::of(large_app(), "", "");
    let before = front.daemon.resident_kib();
    let begun = Instant::now();
    let peak = peak_during(&front, || {
        let mut stream = TcpStream::connect(("127.0.0.1", front.port)).unwrap();
        stream.write_all(&Request::get("/").bytes()).unwrap();
        let mut block = vec![0; 256 * 1024];
        let mut taken = 0;
        while taken < GIB {
            let count = stream.read(&mut block).unwrap();
            assert!(count > 0, "ended after {taken}");
            taken += count as u64;
        }
    });
    let down = (peak.saturating_sub(before), begun.elapsed());
    let begun = Instant::now();
    let peak = peak_during(&front, || {
        let mut stream = TcpStream::connect(("127.0.0.1", front.port)).unwrap();
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {GIB}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let block = vec![b'u'; 256 * 1024];
        for _ in 0..GIB / block.len() as u64 {
            stream.write_all(&block).unwrap();
        }
        let mut answer = [0; 4096];
        let count = stream.read(&mut answer).unwrap();
        assert!(answer[..count].starts_with(b"HTTP/1.1 200 OK"));
    });
    let up = (peak.saturating_sub(before), begun.elapsed());
    println!(
        "1 GiB down: +{} KiB, {:?}; up: +{} KiB, {:?}",
        down.0, down.1, up.0, up.1
    );
    assert!(
        down.0 <= MOST_GROWTH_KIB && up.0 <= MOST_GROWTH_KIB,
        "{down:?} {up:?}"
    );
    front.wait_for_rest();
}

/// Neither end can run ahead of the other by more than buffers hold.
#[test]
fn a_slow_reader_slows_the_app() {
    let (_app, front) = front(scripts::download(256 * 1024 * 1024));
    let before = front.daemon.resident_kib();
    let mut clients: Vec<_> = (0..8).map(|_| front.client()).collect();
    for client in &mut clients {
        client.send(&Request::get("/").bytes()).unwrap();
        client.head().unwrap();
        client.exactly(1000).unwrap();
    }
    let settled = || {
        let now = front.daemon.resident_kib();
        crate::support::wait::pause(Duration::from_millis(200));
        front.daemon.resident_kib() == now
    };
    wait_until("memory settles", SOON, settled);
    let grown = front.daemon.resident_kib().saturating_sub(before);
    println!("eight stalled downloads: +{grown} KiB");
    assert!(grown <= MOST_GROWTH_KIB, "+{grown} KiB");
}

/// Each event is written when the client has seen the one before.
#[test]
fn events_arrive_as_they_are_sent() {
    let (sender, receiver) = std::sync::mpsc::sync_channel::<()>(1);
    let receiver = std::sync::Mutex::new(receiver);
    let events = move |_: &Received, stream: &mut Connection| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        for number in 10..30 {
            if receiver.lock().unwrap().recv_timeout(SOON).is_err() {
                return Ok(Next::Close);
            }
            stream.write_all(format!("a\r\ndata: {number}\n\n\r\n").as_bytes())?;
        }
        stream.write_all(b"0\r\n\r\n")?;
        Ok(Next::KeepAlive)
    };
    let (_app, front) = limited(events, "bodyIdleTimeout: 1s", "");
    let mut client = front.client();
    client
        .send(
            &Request::get("/")
                .header("Accept", "text/event-stream")
                .bytes(),
        )
        .unwrap();
    let (status, head) = client.head().unwrap();
    assert_eq!(
        (status, head.header("content-type")),
        (200, Some("text/event-stream"))
    );
    for number in 10..30 {
        sender.send(()).unwrap();
        assert_eq!(
            client.chunk().unwrap(),
            format!("data: {number}\n\n").as_bytes()
        );
    }
    assert!(client.chunk().unwrap().is_empty());
    front.wait_for_rest();
}

/// An app may answer while it still reads, and both go on.
#[test]
fn bodies_stream_both_ways_at_once() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let front = Front::of(listener.local_addr().unwrap().port(), "", "");
    let app = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut reader = crate::support::message::Reader::new(stream.try_clone().unwrap());
        reader.head().unwrap();
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n")
            .unwrap();
        loop {
            let (data, _) = reader.chunk().unwrap();
            stream
                .write_all(format!("{:x}\r\n", data.len()).as_bytes())
                .unwrap();
            stream.write_all(&data).unwrap();
            stream.write_all(b"\r\n").unwrap();
            if data.is_empty() {
                return;
            }
        }
    });
    let mut client = front.client();
    client
        .send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        .unwrap();
    assert_eq!(client.head().unwrap().0, 200);
    for number in 0..50_usize {
        let data = vec![b'x'; 1 + number * 37];
        client
            .send(format!("{:x}\r\n", data.len()).as_bytes())
            .unwrap();
        client.send(&data).unwrap();
        client.send(b"\r\n").unwrap();
        let mut back = Vec::new();
        while back.len() < data.len() {
            back.extend(client.chunk().unwrap());
        }
        assert_eq!(back, data);
    }
    client.send(b"0\r\n\r\n").unwrap();
    assert!(client.chunk().unwrap().is_empty());
    app.join().unwrap();
    front.wait_for_rest();
}
