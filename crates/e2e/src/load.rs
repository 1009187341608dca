//! Requests without a pause over several connections, to see that none is dropped while something happens.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use sampan_testkit::wait_until;

use crate::http::{Connection, split};

/// The most failures that are kept.
const FAILURES: usize = 20;
/// How long a number of requests may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Load that goes on until it is stopped.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    requests: AtomicUsize,
    seen: Mutex<Seen>,
}

/// What came back.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    /// How many requests were answered or failed.
    pub requests: usize,
    /// The different bodies of answers 200.
    pub bodies: BTreeSet<String>,
    /// Whatever was no answer 200, the first few.
    pub failures: Vec<String>,
}

impl Load {
    /// Starts asking for the URL over so many connections.
    pub fn start(url: &str, connections: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let threads = (0..connections)
            .map(|_| {
                let (shared, url) = (shared.clone(), url.to_owned());
                thread::spawn(move || shared.ask(&url))
            })
            .collect();
        Self { shared, threads }
    }

    /// Waits for so many more requests to be answered.
    ///
    /// # Panics
    /// Where that takes too long.
    #[track_caller]
    pub fn more(&self, count: usize) {
        let goal = self.shared.requests.load(Ordering::Relaxed) + count;
        let what = format!("{count} requests");
        wait_until(&what, PATIENCE, || self.shared.requests.load(Ordering::Relaxed) >= goal);
    }

    /// Ends and tells.
    ///
    /// # Panics
    /// Where a thread of it did.
    pub fn stop(self) -> Seen {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("asking does not panic");
        }
        let mut seen = self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        seen.requests = self.shared.requests.load(Ordering::Relaxed);
        seen
    }
}

impl Shared {
    fn ask(&self, url: &str) {
        let (host, port, path) = split(url);
        let mut connection = None;
        while !self.stop.load(Ordering::Relaxed) {
            let answer = match &mut connection {
                Some(connection) => Connection::get(connection, &host, &path),
                None => Connection::open(port).and_then(|opened| connection.insert(opened).get(&host, &path)),
            };
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let failure = match answer {
                Ok(response) if response.status == 200 => {
                    seen.bodies.insert(response.body);
                    None
                }
                Ok(response) => Some(format!("{}: {}", response.status, response.body)),
                Err(error) => {
                    connection = None;
                    Some(error.to_string())
                }
            };
            if let Some(failure) = failure.filter(|_| seen.failures.len() < FAILURES) {
                let number = self.requests.load(Ordering::Relaxed);
                seen.failures.push(format!("about request {number}: {failure}"));
            }
            drop(seen);
            self.requests.fetch_add(1, Ordering::Relaxed);
        }
    }
}
