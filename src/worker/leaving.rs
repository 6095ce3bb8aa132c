//! The end of a connection: what is recorded of it, and what the client is
//! told.

use std::net::IpAddr;
use std::rc::Rc;

use super::listening::refusal;
use crate::model::{Kind, ServiceName};
use crate::net::stream::Stream;
use crate::net::{self, End, Stalled};
use crate::reply;
use crate::telemetry::recorder::Recorder;

/// Whose connections they are.
pub(super) trait Host {
    /// Where it is recorded what never became a request.
    fn recorder(&self) -> Option<Rc<Recorder>>;

    /// Named in answers.
    fn service(&self) -> Option<ServiceName>;
}

/// Answers a connection on which no request became complete, and closes it.
pub(super) async fn answer_unread(
    host: &impl Host,
    kind: Kind,
    detail: &'static str,
    stream: Stream,
    peer: IpAddr,
) {
    record_unread(host, kind, detail, peer);
    net::answer_and_close(stream, &reply::raw(kind, host.service().as_ref())).await;
}

/// Leaves a connection as its end asks for.
pub(super) async fn leave(host: &impl Host, end: End, stream: Stream, peer: IpAddr) {
    // Boxed: every connection is as large as this.
    Box::pin(leave_so(host, end, stream, peer)).await;
}

async fn leave_so(host: &impl Host, end: End, stream: Stream, peer: IpAddr) {
    match end {
        End::Finished => net::linger(stream).await,
        End::Agreed => net::close(stream).await,
        End::Refused(status) => {
            if let Some(recorder) = host.recorder() {
                let mut refusal = refusal(Kind::BadRequest, "refused by the parser");
                refusal.status = status;
                recorder.parser_refused(&refusal, peer.to_canonical());
            }
            net::linger(stream).await;
        }
        End::Stalled(Stalled::Head) => {
            let detail = "no complete request head in time";
            answer_unread(host, Kind::ClientTimeout, detail, stream, peer).await;
        }
        End::Stalled(Stalled::Idle | Stalled::Quiet) => {}
        End::Stalled(Stalled::Write) | End::Flooded | End::Cut => stream.reset_on_close(),
        End::Broken(error) => {
            tracing::debug!(%error, "a connection broke off");
            stream.reset_on_close();
        }
    }
}

/// An HTTP/2 connection has ended, and closed itself.
pub(super) fn left_http2(host: &impl Host, end: End, peer: IpAddr) {
    match end {
        End::Broken(error) => tracing::debug!(%error, "an HTTP/2 connection broke off"),
        End::Flooded => record_unread(host, Kind::BadRequest, "a flood of HTTP/2 frames", peer),
        End::Finished | End::Agreed | End::Refused(_) | End::Stalled(_) | End::Cut => {}
    }
}

fn record_unread(host: &impl Host, kind: Kind, detail: &'static str, peer: IpAddr) {
    if let Some(recorder) = host.recorder() {
        recorder.answered_unread(&refusal(kind, detail), peer.to_canonical());
    }
}
