//! HTTP/1 on a connection, however long it is silent between requests.

use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;

use super::listening::Listening;
use crate::drain::Phase;
use crate::net::http1::{Answer, Spares};
use crate::net::stream::Stream;
use crate::net::{self, ClientIo, ClientRequest, End, ParserLimits, Stalled, Watch};

/// Serves until the connection ends. While it is silent it is parked: then it
/// holds its socket and nothing else, neither buffers nor parser, which are
/// most of what a connection takes.
pub(super) async fn serve_http1<F, R, B>(
    mut io: ClientIo,
    watch: &Rc<Watch>,
    (limits, spares): (ParserLimits, &Spares),
    listening: &Listening,
    service: F,
) -> (End, Stream, Bytes)
where
    F: Fn(ClientRequest) -> R,
    R: Future<Output = Response<B>>,
    B: Answer<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    loop {
        // All of it is given back while the connection is parked, so it is boxed
        // and does not outlive this.
        let (end, mut stream, leftover) = {
            let phase = listening.phase();
            Box::pin(net::serve_http1(
                io,
                watch,
                (limits, spares),
                phase,
                &service,
            ))
            .await
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
