//! The apps behind the demo's sidecars: three small JSON services that know
//! nothing of authentication, tracing or each other.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// Connections served at once per app; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 256;

/// The running apps; stopped and joined when dropped.
pub(super) struct Apps {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Apps {
    /// Serves each listener as the app of that name, on a thread of their own.
    ///
    /// # Errors
    /// When the thread or its runtime cannot be made.
    pub(super) fn start(listeners: Vec<(&'static str, TcpListener)>) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("demo-apps".to_owned())
            .spawn(move || {
                runtime.block_on(async move {
                    tokio::select! {
                        // Also when the sender is gone.
                        _ = stopped => {}
                        () = serve_all(listeners) => {}
                    }
                });
            })?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Apps {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the apps has already been printed.
            let _ = thread.join();
        }
    }
}

/// Takes a port of loopback for an app.
///
/// # Errors
/// Whatever `bind` says, usually that the port is in use.
pub(super) fn bind(port: u16) -> io::Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn serve_all(listeners: Vec<(&'static str, TcpListener)>) {
    let mut apps = JoinSet::new();
    for (name, listener) in listeners {
        apps.spawn(serve(name, listener));
    }
    while apps.join_next().await.is_some() {}
}

async fn serve(name: &'static str, listener: TcpListener) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
        return;
    };
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= MAX_CONNECTIONS {
            connections.join_next().await;
        }
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                connections.spawn(async move {
                    let service = service_fn(move |request| async move {
                        Ok::<_, Infallible>(answer(name, &request))
                    });
                    // A connection that breaks is the peer's affair.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
            _ = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

fn answer(name: &'static str, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let (status, document) = match (request.method(), path) {
        (&Method::GET | &Method::HEAD, "/health") => (StatusCode::OK, json!({"status": "up"})),
        (&Method::GET | &Method::HEAD, _) => match find(name, path) {
            Some(found) => (
                StatusCode::OK,
                json!({"app": name, "found": found, "seen": seen(request.headers())}),
            ),
            None => (
                StatusCode::NOT_FOUND,
                json!({"app": name, "error": "not found"}),
            ),
        },
        _ => (
            StatusCode::METHOD_NOT_ALLOWED,
            json!({"app": name, "error": "method not allowed"}),
        ),
    };
    let mut response = Response::new(Full::from(document.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        http::HeaderValue::from_static("application/json"),
    );
    response
}

/// `/users` and `/users/1`, likewise for the other apps.
fn find(name: &str, path: &str) -> Option<Value> {
    let all = match name {
        "users" => json!([{"id": "1", "name": "Ada"}, {"id": "2", "name": "Grace"}]),
        "orders" => json!([{"id": "1", "user": "1", "payment": "7", "total": 40}]),
        _ => json!([{"id": "7", "order": "1", "paid": true}]),
    };
    let rest = path.strip_prefix('/')?.strip_prefix(name)?;
    if rest.is_empty() {
        return Some(all);
    }
    let id = rest.strip_prefix('/')?;
    let items = all.as_array()?;
    items.iter().find(|item| item["id"] == id).cloned()
}

/// What the sidecar told the app about the caller and the request.
fn seen(headers: &HeaderMap) -> Value {
    let mut seen = serde_json::Map::new();
    for name in [
        "x-auth-strategy",
        "x-auth-subject",
        "x-service-name",
        "x-request-id",
        "traceparent",
        "x-trace-id",
        "x-forwarded-for",
    ] {
        if let Some(value) = headers.get(name).and_then(|value| value.to_str().ok()) {
            seen.insert(name.to_owned(), Value::from(value));
        }
    }
    Value::Object(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_found_by_id() {
        assert_eq!(find("users", "/users/2").expect("there")["name"], "Grace");
        assert_eq!(find("orders", "/orders").expect("there")[0]["payment"], "7");
        assert_eq!(find("payments", "/payments/9"), None);
        assert_eq!(find("users", "/userss"), None);
        assert_eq!(find("users", "/"), None);
    }
}
