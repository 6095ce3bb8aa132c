//! HTTP/1 on a connection, however long it is silent between requests.

use std::cell::RefCell;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;

use super::listening::Listening;
use crate::drain::Phase;
use crate::net::stream::Stream;
use crate::net::{self, ClientIo, End, ParserLimits, Stalled, Watch};

/// Serves until the connection ends. While it is silent it is parked: then it
/// holds its socket and nothing else, neither buffers nor parser, which are
/// most of what a connection takes.
pub(super) async fn serve_http1<F, R, B>(
    mut io: ClientIo,
    watch: &Rc<Watch>,
    limits: ParserLimits,
    listening: &Listening,
    service: F,
) -> (End, Stream, Bytes)
where
    F: Fn(Request<Incoming>) -> R,
    R: Future<Output = Result<Response<B>, Infallible>>,
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    loop {
        // All of it is given back while the connection is parked, so both are
        // boxed, and neither outlives this.
        let (end, mut stream, leftover) = {
            let place = Place::default();
            let service = service_fn(|request| place.put(service(request)));
            let phase = listening.phase();
            Box::pin(net::serve_http1(io, watch, limits, phase, service)).await
        };
        if !matches!(end, End::Stalled(Stalled::Quiet)) {
            return (end, stream, leftover);
        }
        if leftover.is_empty() {
            watch.parks();
            let parked = |context: &mut Context<'_>| {
                poll_parked(&mut stream, watch, listening.phase().get(), context)
            };
            if let Some(end) = std::future::poll_fn(parked).await {
                return (end, stream, leftover);
            }
        }
        io = ClientIo::resumed(stream, Rc::clone(watch), leftover);
    }
}

/// Ready when the client says something, `None`, or is to be let go.
fn poll_parked(
    stream: &mut Stream,
    watch: &Watch,
    phase: Phase,
    context: &mut Context<'_>,
) -> Poll<Option<End>> {
    if phase == Phase::Cut {
        return Poll::Ready(Some(End::Cut));
    }
    // First what has come already. An error shows when it is read.
    if stream.poll_readable(context).is_ready() {
        return Poll::Ready(None);
    }
    if phase >= Phase::Closing {
        return Poll::Ready(Some(End::Finished));
    }
    // Registers for the call that announces a drain, too.
    watch
        .poll_stalled(context)
        .map(|stalled| Some(End::Stalled(stalled)))
}

/// Where the request that is being served lies: made with the first one of a
/// connection, instead of a large allocation for each.
struct Place<R>(Rc<RefCell<Pin<Box<Option<R>>>>>);

/// The request in a [`Place`]; ended when this is dropped.
struct Placed<R>(Rc<RefCell<Pin<Box<Option<R>>>>>);

impl<R> Default for Place<R> {
    fn default() -> Self {
        Self(Rc::new(RefCell::new(Box::pin(None))))
    }
}

impl<R> Place<R> {
    /// HTTP/1 has one request at a time: the one before has ended.
    fn put(&self, request: R) -> Placed<R> {
        self.0.borrow_mut().as_mut().set(Some(request));
        Placed(Rc::clone(&self.0))
    }
}

impl<R: Future> Future for Placed<R> {
    type Output = R::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<R::Output> {
        let mut place = self.0.borrow_mut();
        match place.as_mut().as_pin_mut() {
            Some(request) => request.poll(context),
            // Only after its end, when nobody polls it.
            None => Poll::Pending,
        }
    }
}

impl<R> Drop for Placed<R> {
    fn drop(&mut self) {
        self.0.borrow_mut().as_mut().set(None);
    }
}
