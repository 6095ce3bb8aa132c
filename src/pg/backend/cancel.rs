//! Cancel requests: a connection of their own that carries the session's key.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::connect::{Peer, Target};

/// For the whole request.
const PATIENCE: Duration = Duration::from_secs(5);

/// The right to cancel what one session does.
#[derive(Clone)]
pub struct CancelToken {
    pub(super) target: Arc<Target>,
    pub(super) peer: Peer,
    pub(super) process_id: i32,
    pub(super) secret_key: i32,
}

impl CancelToken {
    /// Asks the server to cancel; returns when it has closed the connection, so
    /// when the signal was sent: what is asked afterwards is not hit. Whether
    /// there was anything to cancel is not told (protocol), and a failure means
    /// no more than that.
    pub async fn cancel(&self) {
        let request = async {
            let mut stream = self.target.open(&self.peer).await.ok()?;
            let mut bytes = BytesMut::new();
            frontend::cancel_request(self.process_id, self.secret_key, &mut bytes);
            stream.write_all(&bytes).await.ok()?;
            stream.flush().await.ok()?;
            let mut rest = [0; 16];
            while stream.read(&mut rest).await.ok()? > 0 {}
            Some(())
        };
        if !matches!(timeout(PATIENCE, request).await, Ok(Some(()))) {
            tracing::debug!("a query could not be cancelled");
        }
    }
}
