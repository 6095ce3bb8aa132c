//! A protocol switch on its way from the request to the connection.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::Bytes;

use crate::drain::Phase;
use crate::forward::{self, TunnelEnd};
use crate::net::Permit;
use crate::net::deadline::Deadlines;
use crate::net::stream::Stream;
use crate::telemetry::record::Record;
use crate::upstream::h1::Switched;

/// Where a request leaves the tunnel for its connection to run.
pub type TunnelSlot = Rc<RefCell<Option<PendingTunnel>>>;

/// A switch both sides have agreed to. Counts as in flight until it ends.
pub struct PendingTunnel {
    pub(super) switched: Box<Switched>,
    pub(super) record: Box<Record>,
    pub(super) permit: Option<Permit>,
    pub(super) idle: std::time::Duration,
}

impl PendingTunnel {
    /// Copies until both sides are done, idle for too long, or drained.
    pub async fn run(
        self,
        client: Stream,
        leftover: Bytes,
        deadlines: &Deadlines,
        phase: &Cell<Phase>,
    ) {
        let Self {
            switched,
            mut record,
            permit,
            idle,
        } = self;
        let end = forward::tunnel(client, leftover, *switched, idle, deadlines, phase).await;
        match end {
            TunnelEnd::Closed | TunnelEnd::Idle | TunnelEnd::Drained => {}
            TunnelEnd::Broken(error) => record.tunnel_broke(&error),
        }
        record.completed();
        drop(permit);
    }
}
