//! What was found out about files, for as long as they do not change: their digest, and what they are compressed.

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;

/// Files that are known at once; of more, the one that was not asked for the longest is forgotten.
const MOST_FILES: usize = 4096;

/// A file that was changed less than so long ago is not kept: before Linux 6.13 two changes within one tick of the clock
/// (up to 10 ms) have one `ctime`.
const SETTLED_AFTER_NS: i128 = 100_000_000;

/// One state of one file. Who changes a file changes at least its `ctime`, which nobody can set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) size: u64,
    pub(crate) modified_ns: i128,
    pub(crate) changed_ns: i128,
}

#[derive(Debug, Default)]
struct Known {
    digest: Option<String>,
    /// Empty where compressing it is of no use.
    compressed: Option<Bytes>,
    used: u64,
}

/// What is known, bounded in files and in bytes.
#[derive(Debug)]
pub(crate) struct Cache {
    most_bytes: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    files: HashMap<Identity, Known>,
    bytes: usize,
    clock: u64,
}

impl Cache {
    /// One that keeps at most so many compressed bytes.
    pub(crate) fn new(most_bytes: usize) -> Self {
        Self { most_bytes, state: Mutex::default() }
    }

    /// A file's digest, found out by `find` where it is not known. Two that ask at once both find it out.
    pub(crate) fn digest(&self, file: Identity, find: impl FnOnce() -> io::Result<String>) -> io::Result<String> {
        if let Some(digest) = self.look(file, |known| known.digest.clone()) {
            return Ok(digest);
        }
        let digest = find()?;
        self.learn(file, |known| known.digest = Some(digest.clone()));
        Ok(digest)
    }

    /// A file compressed, by `compress` where that is not known; `None` where it is of no use.
    pub(crate) fn compressed(
        &self,
        file: Identity,
        compress: impl FnOnce() -> io::Result<Bytes>,
    ) -> io::Result<Option<Bytes>> {
        let known = self.look(file, |known| known.compressed.clone());
        let bytes = match known {
            Some(bytes) => bytes,
            None => {
                let mut bytes = compress()?;
                if bytes.len() as u64 >= file.size {
                    bytes = Bytes::new();
                }
                self.learn(file, |known| known.compressed = Some(bytes.clone()));
                bytes
            }
        };
        Ok((!bytes.is_empty()).then_some(bytes))
    }

    fn look<T>(&self, file: Identity, what: impl FnOnce(&Known) -> Option<T>) -> Option<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.clock += 1;
        let clock = state.clock;
        let known = state.files.get_mut(&file)?;
        known.used = clock;
        what(known)
    }

    fn learn(&self, file: Identity, what: impl FnOnce(&mut Known)) {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
        if i128::try_from(now).is_ok_and(|now| now - file.changed_ns < SETTLED_AFTER_NS) {
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *state;
        state.clock += 1;
        let known = state.files.entry(file).or_default();
        let before = known.compressed.as_ref().map_or(0, Bytes::len);
        what(known);
        known.used = state.clock;
        state.bytes = state.bytes - before + known.compressed.as_ref().map_or(0, Bytes::len);
        while state.files.len() > MOST_FILES || state.bytes > self.most_bytes {
            let Some(oldest) = state.files.iter().min_by_key(|(_, known)| known.used).map(|(file, _)| *file) else {
                break;
            };
            let forgotten = state.files.remove(&oldest).and_then(|known| known.compressed);
            state.bytes -= forgotten.map_or(0, |bytes| bytes.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(inode: u64) -> Identity {
        Identity { device: 1, inode, size: 100, modified_ns: 0, changed_ns: 0 }
    }

    #[test]
    fn what_is_known_is_not_found_out_again() {
        let cache = Cache::new(100);
        let find = || Ok("x".to_owned());
        let never = || panic!("it is known");
        assert_eq!(cache.digest(file(1), find).unwrap(), "x");
        assert_eq!(cache.digest(file(1), never).unwrap(), "x");
        assert_eq!(cache.compressed(file(1), || Ok(vec![0; 100].into())).unwrap(), None);
        assert_eq!(cache.compressed(file(1), || panic!("of no use, which is known")).unwrap(), None);
    }

    #[test]
    fn what_may_still_change_is_not_kept() {
        let cache = Cache::new(100);
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as i128;
        let fresh = Identity { changed_ns: now, ..file(1) };
        for digest in ["x", "y"] {
            assert_eq!(cache.digest(fresh, || Ok(digest.to_owned())).unwrap(), digest);
        }
    }

    #[test]
    fn memory_is_bounded() {
        let cache = Cache::new(100);
        let compress = || Ok(Bytes::from(vec![0; 40]));
        for inode in [1, 2, 1, 3] {
            assert!(cache.compressed(file(inode), compress).unwrap().is_some());
        }
        let kept = |inode| cache.look(file(inode), |known| known.compressed.clone()).is_some();
        assert_eq!([kept(1), kept(2), kept(3)], [true, false, true]);
        for inode in 10..10 + 2 * MOST_FILES as u64 {
            cache.digest(file(inode), || Ok(String::new())).unwrap();
        }
        let state = cache.state.lock().unwrap();
        assert_eq!((state.files.len(), state.bytes), (MOST_FILES, 0));
    }
}
