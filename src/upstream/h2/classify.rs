//! What an HTTP/2 failure means.

use std::error::Error;

use h2::Reason;

use crate::model::Kind;
use crate::upstream::body::BodyError;

/// What failed, and whether the request may have reached the app.
pub(super) fn classify(error: &hyper::Error) -> (Kind, bool) {
    if error.is_canceled() {
        // hyper's word for: never handed to the connection.
        return (Kind::UpstreamClosed, false);
    }
    if let Some(error) = find::<BodyError>(error) {
        return (error.kind(), true);
    }
    match find::<h2::Error>(error) {
        // Not processed, by RFC 9113 §8.7.
        Some(error) if error.reason() == Some(Reason::REFUSED_STREAM) && error.is_remote() => {
            (Kind::UpstreamClosed, false)
        }
        // What the app sent made our side end it.
        Some(error) if error.is_library() => (Kind::UpstreamProtocol, true),
        Some(error) if error.is_io() || error.is_go_away() => (Kind::UpstreamClosed, true),
        Some(error) if error.is_reset() => (Kind::UpstreamClosed, true),
        Some(_) => (Kind::UpstreamProtocol, true),
        None => (Kind::UpstreamClosed, true),
    }
}

/// Whether the connection is of no use any more, though its driver may not
/// have said so yet.
pub(super) fn loses_connection(error: &hyper::Error) -> bool {
    match find::<h2::Error>(error) {
        Some(error) => !error.is_reset(),
        None => find::<BodyError>(error).is_none(),
    }
}

/// Whether the app ended this stream, and only this stream.
pub(super) fn is_reset(error: &hyper::Error) -> bool {
    find::<h2::Error>(error).is_some_and(|error| error.is_reset() && error.is_remote())
}

fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut current = Some(error);
    while let Some(error) = current {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        current = error.source();
    }
    None
}

pub(super) fn error_text(error: &hyper::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
