//! The byte stream of a session: plain, or TLS.

use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use crate::net::stream::Stream;

/// A connected stream: plain on the left, TLS on the right.
pub(in crate::pg) type Transport = Either<Stream, Box<TlsStream<Stream>>>;
