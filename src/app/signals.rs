//! Signals as a stream.

use std::io;

use rustix::process::Signal;
use tokio::signal::unix::{self, SignalKind};

/// Ask the process to end.
const ENDING: &[Signal] = &[Signal::TERM, Signal::INT];
/// Handed on to a command that runs beside; see [`is_ending`] for what the
/// first two mean besides.
const FORWARDED: &[Signal] = &[
    Signal::TERM,
    Signal::INT,
    Signal::HUP,
    Signal::QUIT,
    Signal::USR1,
    Signal::USR2,
];

/// The signals to listen for, alone or with a command beside.
pub(super) fn handled(with_command: bool) -> &'static [Signal] {
    if with_command { FORWARDED } else { ENDING }
}

/// Whether the process is asked to end.
pub(super) fn is_ending(signal: Signal) -> bool {
    ENDING.contains(&signal)
}

/// Signals of some kinds, from the moment of [`Signals::listen`] on.
pub(super) struct Signals(Vec<(Signal, unix::Signal)>);

impl Signals {
    /// Must be called in a runtime.
    pub(super) fn listen(signals: &[Signal]) -> io::Result<Self> {
        let listen = |signal: &Signal| {
            let kind = SignalKind::from_raw(signal.as_raw());
            Ok((*signal, unix::signal(kind)?))
        };
        signals
            .iter()
            .map(listen)
            .collect::<io::Result<_>>()
            .map(Self)
    }

    /// The next one; several of a kind may come as one.
    pub(super) async fn next(&mut self) -> Signal {
        std::future::poll_fn(|context| {
            for (signal, stream) in &mut self.0 {
                if stream.poll_recv(context).is_ready() {
                    return std::task::Poll::Ready(*signal);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }

    /// The next one that asks for an end.
    pub(super) async fn ending(&mut self) -> Signal {
        loop {
            let signal = self.next().await;
            if is_ending(signal) {
                return signal;
            }
        }
    }
}
