//! Heads of requests whose memory is used again.

use std::cell::RefCell;

use http::request::Parts;
use http::{Method, Request, Uri};

/// Heads that are kept: as many as are usually being read and answered at one
/// time in one worker.
const KEPT: usize = 64;
/// Fields that a kept map may have room for; few heads have more.
const KEPT_FIELDS: usize = 64;

/// Heads of requests that are over, of one worker: making a head anew, with its
/// map, costs more than filling it.
#[derive(Debug, Default)]
#[expect(clippy::vec_box, reason = "the boxes themselves are used again")]
pub struct Spares(RefCell<Vec<Box<Parts>>>);

impl Spares {
    /// A head as if it were new.
    pub(super) fn take(&self) -> Box<Parts> {
        let spare = self.0.borrow_mut().pop();
        spare.unwrap_or_else(|| Box::new(Request::new(()).into_parts().0))
    }

    /// Gives back a head whose request is over. Nothing of it is kept but room.
    pub fn give(&self, mut head: Box<Parts>) {
        let mut spares = self.0.borrow_mut();
        if spares.len() >= KEPT || head.headers.capacity() > KEPT_FIELDS {
            return;
        }
        head.headers.clear();
        head.extensions.clear();
        head.method = Method::GET;
        head.uri = Uri::default();
        spares.push(head);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn head(fields: usize) -> Box<Parts> {
        let mut head = Box::new(Request::new(()).into_parts().0);
        head.method = Method::POST;
        head.uri = Uri::from_static("/secret");
        for number in 0..fields {
            let name = http::HeaderName::try_from(format!("x-{number}")).expect("a name");
            head.headers
                .append(name, HeaderValue::from_static("secret"));
        }
        head
    }

    #[test]
    fn nothing_is_left_but_room() {
        let spares = Spares::default();
        spares.give(head(20));
        let again = spares.take();
        assert!(again.headers.is_empty() && again.headers.capacity() >= 20);
        assert_eq!(
            (again.method, again.uri),
            (Method::GET, Uri::from_static("/"))
        );
        assert!(spares.0.borrow().is_empty());
    }

    #[test]
    fn what_is_kept_has_a_bound() {
        let spares = Spares::default();
        spares.give(head(200));
        assert!(spares.0.borrow().is_empty());
        for _ in 0..100 {
            spares.give(head(1));
        }
        assert_eq!(spares.0.borrow().len(), KEPT);
    }
}
