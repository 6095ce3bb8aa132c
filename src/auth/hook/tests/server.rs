//! A hook server that says what a test wants.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::model::HookPolicy;

/// Head of a request as received.
#[derive(Debug, Clone, Default)]
pub(super) struct Asked {
    pub(super) line: String,
    pub(super) fields: Vec<(String, String)>,
}

impl Asked {
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        let mut all = self.fields.iter().filter(|(field, _)| field == name);
        let found = all.next().map(|(_, value)| value.as_str());
        assert!(all.next().is_none(), "{name} twice");
        found
    }
}

type Script = dyn Fn(&Asked) -> Vec<u8> + Send + Sync;

/// A hook server on loopback; its threads end with the test process.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    /// An empty answer closes the connection; `hang` as its text never answers.
    pub(super) fn start(script: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, script): (_, Arc<Script>) = (Arc::clone(&asked), Arc::new(script));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                let (log, script) = (Arc::clone(&log), Arc::clone(&script));
                thread::spawn(move || {
                    while let Some(asked) = read_head(&mut stream) {
                        log.lock().unwrap().push(asked.clone());
                        let answer = script(&asked);
                        if answer == b"hang" {
                            thread::park();
                        }
                        if answer.is_empty() || stream.write_all(&answer).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, asked }
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    pub(super) fn policy(&self) -> HookPolicy {
        HookPolicy {
            url: format!("http://{}/auth?x=1", self.address),
            preset: None,
            timeout: Duration::from_millis(300),
            fail_open: false,
            request_headers: None,
            response_headers: Vec::new(),
            sign_in: None,
            cache: Duration::ZERO,
            max_in_flight: 256,
            tls: None,
        }
    }
}

fn read_head(stream: &mut impl Read) -> Option<Asked> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    let text = String::from_utf8(head).unwrap();
    let mut lines = text.trim_end().split("\r\n");
    Some(Asked {
        line: lines.next()?.to_owned(),
        fields: lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
    })
}

pub(super) fn respond(status: u16, fields: &[(&str, &str)], body: &str) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in fields {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    text.push_str(body);
    text.into_bytes()
}
