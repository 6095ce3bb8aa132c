//! One request under examination: what is read at most once.

use std::cell::{Cell, OnceCell};
use std::time::SystemTime;

use http::Method;
use http::header::{ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, UPGRADE};

use super::call::{Call, Denied};
use super::carrier::Carried;
use super::jwks::Refetch;
use super::jwt::{Jwt, Known};

/// A call with its credentials and the time, both read when first asked for.
pub(super) struct Request<'a> {
    pub(super) call: &'a Call<'a>,
    /// Which worker's copies and caches to use; `None` uses no cache.
    pub(super) worker: Option<usize>,
    carried: OnceCell<Carried<'a>>,
    /// The token among them, where it was verified before.
    pub(super) known: OnceCell<Known>,
    now: Cell<Option<SystemTime>>,
    /// Whether newer keys were asked for on behalf of this request, and how that
    /// went.
    pub(super) refetched: Cell<Option<Refetch>>,
}

impl<'a> Request<'a> {
    pub(super) fn new(call: &'a Call<'a>, worker: Option<usize>) -> Self {
        Self {
            call,
            worker,
            carried: OnceCell::new(),
            known: OnceCell::new(),
            now: Cell::new(None),
            refetched: Cell::new(None),
        }
    }

    #[cfg(test)]
    pub(super) fn at(call: &'a Call<'a>, now: SystemTime) -> Self {
        let request = Self::new(call, Some(0));
        request.now.set(Some(now));
        request
    }

    /// The worker whose copies to clone.
    pub(super) fn copies(&self) -> usize {
        self.worker.unwrap_or(0)
    }

    /// The credentials.
    ///
    /// # Errors
    /// See [`Carried::read`].
    pub(super) fn carried(&self) -> Result<Carried<'a>, Denied> {
        self.carried_to(None)
    }

    /// The same where tokens are judged by `jwt`, which may know this one.
    pub(super) fn carried_to(&self, jwt: Option<&Jwt>) -> Result<Carried<'a>, Denied> {
        if let Some(carried) = self.carried.get() {
            return Ok(*carried);
        }
        let carried = Carried::read(self.call.headers, |token| {
            let (Some(jwt), Some(worker)) = (jwt, self.worker) else {
                return false;
            };
            let known = jwt.known(token, worker);
            known.is_some_and(|known| self.known.set(known).is_ok())
        })?;
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
            // A tunnel is for who is known (UPG-1).
            && !self.call.headers.contains_key(UPGRADE)
    }
}
