//! A real gRPC server and client (tonic), with messages that are plain bytes.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use futures_util::Stream;
use futures_util::StreamExt;
use http::uri::PathAndQuery;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::server::StreamingService;
use tonic::{Code, Request, Response, Status, Streaming};

/// Messages are bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct BytesCodec;

impl Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(source.copy_to_bytes(source.remaining())))
    }
}

/// What the server has seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Metadata of each call.
    pub(super) metadata: Mutex<Vec<MetadataMap>>,
    pub(super) begun: AtomicUsize,
    /// Calls that were dropped before their end.
    pub(super) cancelled: AtomicUsize,
    /// What it says of itself when asked for its health.
    not_serving: AtomicBool,
}

impl Seen {
    #[track_caller]
    pub(crate) fn last(&self) -> MetadataMap {
        let all = self.metadata.lock().unwrap_or_else(PoisonError::into_inner);
        all.last().expect("the server was called").clone()
    }
}

/// Notices when a call is dropped.
struct Guard(Arc<Seen>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.cancelled.fetch_add(1, Ordering::AcqRel);
    }
}

/// How long [`Method::Idle`] says nothing.
pub(super) const IDLE: Duration = Duration::from_secs(8);

type Answers = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;
type Answering = Pin<Box<dyn Future<Output = Result<Response<Answers>, Status>> + Send>>;

struct Call {
    path: String,
    seen: Arc<Seen>,
}

/// `x-end` and `x-end-bin` behind the last message.
fn trailers() -> Status {
    let mut metadata = MetadataMap::new();
    metadata.insert("x-end", MetadataValue::from_static("yes"));
    let value = MetadataValue::from_bytes(b"\x00\xfe\xff");
    metadata.insert_bin("x-end-bin", value);
    Status::with_metadata(Code::Ok, "", metadata)
}

/// Ends a stream with [`trailers`].
fn ended(messages: impl Stream<Item = Result<Bytes, Status>> + Send + 'static) -> Answers {
    Box::pin(messages.chain(futures_util::stream::once(async { Err(trailers()) })))
}

impl StreamingService<Bytes> for Call {
    type Response = Bytes;
    type ResponseStream = Answers;
    type Future = Answering;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Answering {
        let (seen, path) = (Arc::clone(&self.seen), self.path.clone());
        Box::pin(async move { answer(&path, seen, request).await })
    }
}

/// HealthCheckResponse { status: SERVING or NOT_SERVING }.
fn health(seen: &Seen) -> Answers {
    let message: &[u8] = match seen.not_serving.load(Ordering::Acquire) {
        false => b"\x08\x01",
        true => b"\x08\x02",
    };
    ended(futures_util::stream::iter([Ok(Bytes::from_static(
        message,
    ))]))
}

async fn answer(
    path: &str,
    seen: Arc<Seen>,
    request: Request<Streaming<Bytes>>,
) -> Result<Response<Answers>, Status> {
    let (metadata, _, mut messages) = request.into_parts();
    let echoed = metadata.get_bin("x-echo-bin").cloned();
    seen.metadata
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(metadata);
    seen.begun.fetch_add(1, Ordering::AcqRel);
    let answers: Answers = match path {
        "/test.Echo/Unary" => {
            let message = messages.message().await?.unwrap_or_default();
            ended(futures_util::stream::iter([Ok(message)]))
        }
        "/test.Echo/Sum" => {
            let mut sum = 0;
            while let Some(message) = messages.message().await? {
                sum += message.len();
            }
            ended(futures_util::stream::iter([Ok(Bytes::from(
                sum.to_string(),
            ))]))
        }
        "/test.Echo/Repeat" => {
            let message = messages.message().await?.unwrap_or_default();
            ended(futures_util::stream::iter(
                (0..1000).map(move |_| Ok(message.clone())),
            ))
        }
        "/test.Echo/Chat" => ended(messages),
        "/test.Echo/Idle" => {
            let later = futures_util::stream::once(async {
                tokio::time::sleep(IDLE).await;
                Ok(Bytes::from_static(b"late"))
            });
            let first = futures_util::stream::iter([Ok(Bytes::from_static(b"first"))]);
            ended(first.chain(later))
        }
        "/test.Echo/Fail" => {
            let mut status = Status::failed_precondition("no stock: 100 % gone\n");
            let value = MetadataValue::from_bytes(b"\x01\xff");
            status.metadata_mut().insert_bin("x-why-bin", value);
            return Err(status);
        }
        "/test.Echo/Hang" => {
            let guard = Guard(seen);
            std::future::pending::<()>().await;
            drop(guard);
            return Err(Status::aborted("never"));
        }
        "/test.Echo/HangLater" => {
            let guard = Guard(seen);
            let first = futures_util::stream::iter([Ok(Bytes::from_static(b"first"))]);
            let hang = futures_util::stream::once(async move {
                std::future::pending::<()>().await;
                drop(guard);
                Err(Status::aborted("never"))
            });
            Box::pin(first.chain(hang))
        }
        "/grpc.health.v1.Health/Check" => health(&seen),
        _ => return Err(Status::unimplemented("no such method")),
    };
    let mut response = Response::new(answers);
    if let Some(echoed) = echoed {
        response.metadata_mut().insert_bin("x-echo-bin", echoed);
    }
    Ok(response)
}

/// A gRPC server on a runtime of its own; ends when dropped.
pub(crate) struct GrpcApp {
    pub(crate) port: u16,
    pub(crate) seen: Arc<Seen>,
    _runtime: tokio::runtime::Runtime,
}

impl GrpcApp {
    pub(crate) fn start() -> Self {
        let runtime = runtime();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = runtime.block_on(TcpListener::bind(any)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Seen::default());
        let shared = Arc::clone(&seen);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let seen = Arc::clone(&shared);
                tokio::spawn(async move {
                    let service = service_fn(move |request| serve(request, Arc::clone(&seen)));
                    // A client that leaves is no news.
                    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self {
            port,
            seen,
            _runtime: runtime,
        }
    }

    /// Whether it says that it serves, when asked for its health.
    pub(crate) fn serves(&self, serves: bool) {
        self.seen.not_serving.store(!serves, Ordering::Release);
    }
}

async fn serve(
    request: http::Request<Incoming>,
    seen: Arc<Seen>,
) -> Result<http::Response<tonic::body::Body>, std::convert::Infallible> {
    let path = request.uri().path().to_owned();
    let call = Call { path, seen };
    let mut grpc = tonic::server::Grpc::new(BytesCodec).max_decoding_message_size(64 * 1024 * 1024);
    Ok(grpc.streaming(call, request).await)
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// A client's stub.
#[derive(Clone)]
pub(super) struct Stub(tonic::client::Grpc<tonic::transport::Channel>);

impl Stub {
    pub(super) async fn connect(port: u16) -> Self {
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://127.0.0.1:{port}"));
        let channel = endpoint.unwrap().connect().await.unwrap();
        Self(tonic::client::Grpc::new(channel).max_decoding_message_size(64 * 1024 * 1024))
    }

    async fn ready(&mut self) -> Result<(), Status> {
        let ready = self.0.ready().await;
        ready.map_err(|error| Status::unknown(error.to_string()))
    }

    pub(super) async fn unary(
        &mut self,
        method: &'static str,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, Status> {
        self.ready().await?;
        let path = PathAndQuery::from_static(method);
        self.0.unary(request, path, BytesCodec).await
    }

    pub(super) async fn streaming(
        &mut self,
        method: &'static str,
        messages: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Result<Response<Streaming<Bytes>>, Status> {
        self.ready().await?;
        let path = PathAndQuery::from_static(method);
        let request = Request::new(messages);
        self.0.streaming(request, path, BytesCodec).await
    }
}
