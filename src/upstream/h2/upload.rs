//! The body of a request, and who is late until the response head is there.
//!
//! hyper moves a body in a task of its own, so what it does is shared with the
//! future that waits for the head.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::model::Kind;
use crate::net::deadline::Deadline;
use crate::upstream::body::{BodyError, RequestBody};

/// How long either side may take before the response head.
pub(super) struct UploadLimits {
    /// For the app: to take what it was sent, then to answer.
    pub(super) response: Duration,
    /// For the client's next bytes; `None` = for ever.
    pub(super) client: Option<Duration>,
}

/// A body on its way.
pub(super) struct Upload {
    /// `None` once it was taken back.
    body: RefCell<Option<RequestBody>>,
    /// hyper's task, while the client owes bytes.
    waiting: Cell<Option<Waker>>,
    limits: UploadLimits,
    deadline: Deadline,
    awaits_client: Cell<bool>,
    answered: Cell<bool>,
    failure: Cell<Option<Kind>>,
}

/// hyper's side of an [`Upload`]; a failure resets the stream.
pub(super) struct H2RequestBody(Rc<Upload>);

impl Upload {
    /// The clock begins to run.
    pub(super) fn new(body: RequestBody, limits: UploadLimits, deadline: Deadline) -> Rc<Self> {
        deadline.arm(limits.response);
        Rc::new(Self {
            body: RefCell::new(Some(body)),
            waiting: Cell::new(None),
            limits,
            deadline,
            awaits_client: Cell::new(false),
            answered: Cell::new(false),
            failure: Cell::new(None),
        })
    }

    /// The body, for another attempt; this one ends.
    pub(super) fn take_back(&self) -> RequestBody {
        self.give_up()
            .expect("taken back once, by the attempt that owns it")
    }

    /// Nobody wants the rest: a stream that is still open is reset.
    pub(super) fn give_up(&self) -> Option<RequestBody> {
        let body = self.body.borrow_mut().take();
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
        body
    }

    /// The head is there: no limit holds for what is left of the body.
    pub(super) fn answered(&self) {
        self.answered.set(true);
        self.deadline.disarm();
    }

    /// Ready with the failure of whoever is late.
    pub(super) fn poll_late(&self, context: &mut Context<'_>) -> Poll<Kind> {
        self.deadline
            .poll_expired(context)
            .map(|()| match self.awaits_client.get() {
                true => Kind::ClientTimeout,
                false => Kind::ResponseTimeout,
            })
    }

    /// Why the body broke off, if it did.
    pub(super) fn failure(&self) -> Option<Kind> {
        self.failure.get()
    }

    fn await_client(&self) {
        if !self.answered.get() && !self.awaits_client.replace(true) {
            match self.limits.client {
                Some(limit) => self.deadline.arm(limit),
                None => self.deadline.disarm(),
            }
        }
    }

    fn await_app(&self) {
        if !self.answered.get() {
            self.awaits_client.set(false);
            self.deadline.arm(self.limits.response);
        }
    }
}

impl H2RequestBody {
    pub(super) fn new(upload: &Rc<Upload>) -> Self {
        Self(Rc::clone(upload))
    }
}

impl Body for H2RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let upload = &self.0;
        let mut body = upload.body.borrow_mut();
        let Some(body) = body.as_mut() else {
            return Poll::Ready(Some(Err(BodyError::Abandoned)));
        };
        let frame = Pin::new(&mut *body).poll_frame(context);
        match &frame {
            Poll::Pending => {
                upload.waiting.set(Some(context.waker().clone()));
                upload.await_client();
            }
            Poll::Ready(Some(Err(error))) => upload.failure.set(Some(error.kind())),
            Poll::Ready(_) => {
                // What hyper has may have gone out.
                body.sent_some();
                upload.await_app();
            }
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        let body = self.0.body.borrow();
        body.as_ref().is_some_and(RequestBody::is_finished)
    }

    fn size_hint(&self) -> SizeHint {
        let body = self.0.body.borrow();
        body.as_ref()
            .map_or_else(SizeHint::default, Body::size_hint)
    }
}
