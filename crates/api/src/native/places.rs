//! How much of the daemon one user has at once.
//!
//! Files are read and written, and containers started, on threads that block, and the runtime has so many of them. Who
//! sends the bytes of an archive or a blob one by one would have one of those for hours; with enough of such requests one
//! user would keep all others waiting. So each user other than root has so many places, and what is beyond them waits
//! for one, on no thread.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::Request;
use axum::http::Method;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The requests of one user that are carried out at once: the runtime has 512 threads that may block.
const MOST: usize = 64;

/// The places of all users.
#[derive(Default)]
pub(super) struct Places(Mutex<HashMap<u32, Arc<Semaphore>>>);

/// A place, until the last of its clones is dropped.
#[derive(Clone)]
pub(super) struct Place {
    _permit: Arc<OwnedSemaphorePermit>,
}

impl Places {
    /// Waits for a place of the user's.
    pub(super) async fn enter(&self, uid: u32) -> Place {
        let places = {
            let mut users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(users.entry(uid).or_insert_with(|| Arc::new(Semaphore::new(MOST))))
        };
        let permit = places.acquire_owned().await.expect("the semaphore is never closed");
        Place { _permit: Arc::new(permit) }
    }
}

/// Whether a request of this user's needs a place.
pub(super) fn needs(uid: u32, request: &Request) -> bool {
    uid != 0 && !only_waits(request)
}

/// Waiting for a container's end takes days, and no thread.
fn only_waits(request: &Request) -> bool {
    let path = request.uri().path();
    request.method() == Method::POST && path.starts_with("/v1/containers/") && path.ends_with("/wait")
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn one_user_s_requests_are_in_no_other_s_way() {
        let places = Places::default();
        let enter = |uid| places.enter(uid).now_or_never();
        let mut held: Vec<_> = (0..MOST).map(|_| enter(1000).expect("a place")).collect();
        assert!(enter(1000).is_none(), "it waits");
        assert!(enter(1001).is_some());
        // what an answer's body keeps is a place still
        let kept = held[0].clone();
        held.remove(0);
        assert!(enter(1000).is_none());
        drop(kept);
        assert!(enter(1000).is_some());
    }

    #[test]
    fn who_needs_a_place() {
        for (uid, method, path, expected) in [
            (1000, "PUT", "/v1/blobs/x", true),
            (0, "PUT", "/v1/blobs/x", false),
            (1000, "POST", "/v1/containers/x/wait", false),
            // a container, and an image, of that name
            (1000, "DELETE", "/v1/containers/wait", true),
            (1000, "GET", "/v1/images/x/wait", true),
        ] {
            let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
            assert_eq!(needs(uid, &request), expected, "{uid} {method} {path}");
        }
    }
}
