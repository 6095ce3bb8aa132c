//! A key-set server in every mood.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::json;

/// What the server answers next.
#[derive(Debug, Clone)]
pub(super) enum Mood {
    Keys(Vec<&'static str>),
    Raw(Vec<u8>),
    Status(u16),
    /// Accepts and says nothing.
    Hang,
}

/// A key-set server on loopback, one thread, until it is dropped.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    mood: Arc<Mutex<Mood>>,
    served: Arc<AtomicUsize>,
}

impl Server {
    pub(super) fn start(mood: Mood) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap(), mood)
    }

    pub(super) fn on(listener: TcpListener, mood: Mood) -> Self {
        let address = listener.local_addr().unwrap();
        let mood = Arc::new(Mutex::new(mood));
        let served = Arc::new(AtomicUsize::new(0));
        let (shared, count) = (Arc::clone(&mood), Arc::clone(&served));
        // Ends with the test process.
        thread::spawn(move || {
            let mut hanging = Vec::new();
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                let mut head = [0; 4096];
                if stream.read(&mut head).unwrap_or(0) == 0 {
                    continue;
                }
                count.fetch_add(1, Ordering::SeqCst);
                let mood = shared.lock().unwrap().clone();
                let (status, body) = match mood {
                    Mood::Hang => {
                        hanging.push(stream);
                        continue;
                    }
                    Mood::Status(status) => (status, b"{\"keys\":[]}".to_vec()),
                    Mood::Raw(body) => (200, body),
                    Mood::Keys(kids) => (200, document(&kids)),
                };
                let answer = format!(
                    "HTTP/1.1 {status} X\r\nlocation: /elsewhere\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all(answer.as_bytes());
                let _ = stream.write_all(&body);
            }
        });
        Self {
            address,
            mood,
            served,
        }
    }

    pub(super) fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    pub(super) fn served(&self) -> usize {
        self.served.load(Ordering::SeqCst)
    }
}

/// The private key a kid stands for.
pub(super) fn key(kid: &str) -> EncodingKey {
    let pem = match kid {
        "one" => include_str!("../../tests/keys/ec-P-256.pem"),
        _ => include_str!("../../tests/keys/other-ec-P-256.pem"),
    };
    EncodingKey::from_ec_pem(pem.as_bytes()).unwrap()
}

pub(super) fn document(kids: &[&str]) -> Vec<u8> {
    let keys: Vec<_> = kids
        .iter()
        .map(|kid| {
            let mut jwk = Jwk::from_encoding_key(&key(kid), Algorithm::ES256).unwrap();
            jwk.common.key_id = Some((*kid).to_owned());
            jwk
        })
        .collect();
    json!({ "keys": keys }).to_string().into_bytes()
}
