//! Waiting for what a test cannot watch: something in another process, seen from outside.
//!
//! Whatever is waited for is looked at again and again, at first every millisecond, until it is there or the limit is
//! over. A limit is generous: it only decides how long a broken test takes.

use std::thread::sleep;
use std::time::{Duration, Instant};

const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Looks until there is something, and returns it.
///
/// # Panics
/// When the limit is over; it says what was waited for.
#[track_caller]
pub fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < limit, "waited {} s in vain for {what}", limit.as_secs_f32());
        sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Looks until it is true.
///
/// # Panics
/// As [`wait_for`].
#[track_caller]
pub fn wait_until(what: &str, limit: Duration, mut look: impl FnMut() -> bool) {
    wait_for(what, limit, || look().then_some(()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_until_it_is_there() {
        let mut looks = 0;
        wait_until("the third look", Duration::from_secs(10), || {
            looks += 1;
            looks == 3
        });
        assert_eq!(looks, 3);
    }

    #[test]
    #[should_panic(expected = "in vain for godot")]
    fn gives_up() {
        wait_until("godot", Duration::ZERO, || false);
    }
}
