//! One request under examination: what is read at most once.

use std::cell::{Cell, OnceCell};
use std::time::SystemTime;

use http::Method;
use http::header::{ACCESS_CONTROL_REQUEST_METHOD, ORIGIN};

use super::call::{Call, Denied};
use super::carrier::Carried;

/// A call with its credentials and the time, both read when first asked for.
pub(super) struct Request<'a> {
    pub(super) call: &'a Call<'a>,
    /// Which worker's copies to use.
    pub(super) worker: usize,
    carried: OnceCell<Carried<'a>>,
    now: Cell<Option<SystemTime>>,
}

impl<'a> Request<'a> {
    pub(super) fn new(call: &'a Call<'a>, worker: usize) -> Self {
        Self {
            call,
            worker,
            carried: OnceCell::new(),
            now: Cell::new(None),
        }
    }

    #[cfg(test)]
    pub(super) fn at(call: &'a Call<'a>, now: SystemTime) -> Self {
        let request = Self::new(call, 0);
        request.now.set(Some(now));
        request
    }

    /// The credentials.
    ///
    /// # Errors
    /// See [`Carried::read`].
    pub(super) fn carried(&self) -> Result<Carried<'a>, Denied> {
        if let Some(carried) = self.carried.get() {
            return Ok(*carried);
        }
        let carried = Carried::read(self.call.headers)?;
        Ok(*self.carried.get_or_init(|| carried))
    }

    /// The wall clock, one reading for the whole decision.
    pub(super) fn now(&self) -> SystemTime {
        let now = self.now.get().unwrap_or_else(SystemTime::now);
        self.now.set(Some(now));
        now
    }

    /// Whether a browser asks what it may send (Fetch standard, CORS-preflight).
    pub(super) fn is_preflight(&self) -> bool {
        *self.call.method == Method::OPTIONS
            && self.call.headers.contains_key(ORIGIN)
            && self
                .call
                .headers
                .contains_key(ACCESS_CONTROL_REQUEST_METHOD)
    }
}
