use std::collections::BTreeMap;
use std::fs;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn open() -> (tempfile::TempDir, Records) {
    let dir = tempfile::tempdir().unwrap();
    let records = Records::open(&dir.path().join("records.db")).unwrap();
    (dir, records)
}

const KEY: &str = "default/service/hello";

#[test]
fn records_come_back_with_their_revisions() {
    let (dir, records) = open();
    assert_eq!(records.revision(), 0);
    assert_eq!(records.get::<Value>(KEY).unwrap(), None);
    assert_eq!(records.put(KEY, &json!({"a": 1}), Durability::Intent).unwrap(), 1);
    assert_eq!(records.put("default/service/other", &2, Durability::RunState).unwrap(), 2);
    assert_eq!(records.put(KEY, &json!({"a": 3}), Durability::RunState).unwrap(), 3);
    assert_eq!(records.put("default/servicex/hello", &4, Durability::Intent).unwrap(), 4);
    drop(records);

    let records = Records::open(&dir.path().join("records.db")).unwrap();
    assert_eq!(records.revision(), 4);
    assert_eq!(records.get(KEY).unwrap(), Some(Record { revision: 3, value: json!({"a": 3}) }));
    let listed = records.list::<Value>("default/service/").unwrap();
    let keys: Vec<_> = listed.iter().map(|(key, record)| (key.as_str(), record.revision)).collect();
    assert_eq!(keys, [(KEY, 3), ("default/service/other", 2)]);
    assert_eq!(records.delete(KEY).unwrap(), Some(5));
    assert_eq!(records.delete(KEY).unwrap(), None);
    assert_eq!(records.get::<Value>(KEY).unwrap(), None);
    use std::os::unix::fs::MetadataExt as _;
    assert_eq!(fs::metadata(dir.path().join("records.db")).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn kinds_have_revisions_of_their_own() {
    let (_dir, records) = open();
    let kinds = || ["default/service/", "default/image/"].map(|kind| records.revision_of(kind));
    assert_eq!(kinds(), [0, 0]);
    records.put(KEY, &1, Durability::RunState).unwrap();
    records.put("default/image/a|b:1/2", &1, Durability::RunState).unwrap_err();
    records.put("default/image/a|b:1", &1, Durability::RunState).unwrap();
    assert_eq!(kinds(), [1, 2]);
    records.delete(KEY).unwrap();
    records.delete(KEY).unwrap();
    assert_eq!(kinds(), [3, 2], "what changes nothing is no change");
    let undone = records.transaction(Durability::RunState, |transaction| {
        transaction.put("default/image/c", &1)?;
        transaction.put("nonsense", &1)
    });
    undone.unwrap_err();
    assert_eq!(kinds(), [3, 2]);
}

#[test]
fn compare_and_swap() {
    let (_dir, records) = open();
    let put = |expected, value| records.put_if(KEY, expected, &value, Durability::Intent);
    assert_eq!(put(None, 1).unwrap(), 1);
    let error = put(None, 2).unwrap_err();
    assert!(matches!(error, RecordsError::Conflict { expected: None, found: Some(1), .. }), "{error}");
    assert_eq!(put(Some(1), 3).unwrap(), 2);
    let error = put(Some(1), 4).unwrap_err().to_string();
    assert!(error.contains("its revision is 2, not 1"), "{error}");
    assert_eq!(records.get::<i32>(KEY).unwrap().unwrap().value, 3);
    assert_eq!(records.revision(), 2);
}

#[test]
fn what_is_refused() {
    let (_dir, records) = open();
    let error = records.put("hello", &1, Durability::Intent).unwrap_err().to_string();
    assert!(error.contains("TENANT/KIND/NAME"), "{error}");
    let error = records.put(KEY, &"x".repeat(LARGEST_VALUE), Durability::Intent).unwrap_err().to_string();
    assert!(error.contains("the limit is 1048576"), "{error}");
    records.put(KEY, &"text", Durability::Intent).unwrap();
    let error = records.get::<u64>(KEY).unwrap_err();
    assert!(matches!(&error, RecordsError::Value { key, .. } if key == KEY), "{error}");
}

#[test]
fn a_transaction_is_all_or_nothing() {
    let (_dir, records) = open();
    records.put(KEY, &1, Durability::Intent).unwrap();
    let both = records.transaction(Durability::Intent, |transaction| {
        transaction.put("default/a/a", &1)?;
        transaction.delete(KEY)
    });
    assert_eq!(both.unwrap(), Some(3));
    let neither: Result<(), RecordsError> = records.transaction(Durability::Intent, |transaction| {
        transaction.put("default/a/b", &1)?;
        assert_eq!(transaction.get::<i32>("default/a/b")?.unwrap().revision, 4);
        assert_eq!(transaction.list::<i32>("default/a/")?.len(), 2);
        transaction.put("no key", &1).map(drop)
    });
    neither.unwrap_err();
    assert_eq!(records.revision(), 3);
    assert_eq!(records.list::<i32>("default/").unwrap().len(), 1);
    // a panic is an error like another, and the next write goes on
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = records.transaction::<(), RecordsError>(Durability::Intent, |transaction| {
            transaction.put(KEY, &1)?;
            panic!("in the middle")
        });
    }));
    panicked.unwrap_err();
    assert_eq!(records.get::<i32>(KEY).unwrap(), None);
    assert_eq!(records.put(KEY, &1, Durability::Intent).unwrap(), 4);
}

#[tokio::test(flavor = "current_thread")]
async fn a_watch_sees_each_change_once_in_order() {
    let (_dir, records) = open();
    records.put(KEY, &1, Durability::Intent).unwrap();
    let mut watch = records.watch(0).unwrap();
    let mut late = records.watch(1).unwrap();
    assert_eq!(watch.next().await.unwrap(), Change { revision: 1, key: KEY.into(), json: Some("1".into()) });
    assert_eq!(watch.try_next().unwrap(), None);
    let waiting = tokio::spawn(async move { (late.next().await.unwrap(), late.next().await.unwrap()) });
    // polled and dropped: nothing is lost
    tokio::select! {
        biased;
        _ = watch.next() => unreachable!(),
        () = tokio::task::yield_now() => {}
    }
    records.put(KEY, &2, Durability::RunState).unwrap();
    records.delete(KEY).unwrap();
    let (second, third) = waiting.await.unwrap();
    assert_eq!((second.revision, second.json.as_deref()), (2, Some("2")));
    assert_eq!((third.revision, third.json.as_deref()), (3, None));
    assert_eq!(watch.next().await.unwrap().revision, 2);
    assert_eq!(watch.revision(), 2);
    let mut resumed = records.watch(watch.revision()).unwrap();
    assert_eq!(resumed.try_next().unwrap().unwrap().revision, 3);
}

#[test]
fn a_watch_that_is_too_slow_is_told_so() {
    let (_dir, records) = open();
    records.put(KEY, &0, Durability::Intent).unwrap();
    let mut slow = records.watch(1).unwrap();
    let mut written = 0;
    while written < CHANGES_KEPT + 2 * COMPACT_EVERY.0 {
        let put_some =
            |transaction: &mut Transaction<'_>| (0..500).try_for_each(|n| transaction.put(KEY, &n).map(drop));
        records.transaction::<_, RecordsError>(Durability::RunState, put_some).unwrap();
        written += 500;
    }
    let error = slow.try_next().unwrap_err();
    let WatchError::TooOld(RevisionTooOld { asked: 1, oldest, newest }) = error else { panic!("{error}") };
    assert_eq!(newest, written + 1);
    assert!((CHANGES_KEPT..CHANGES_KEPT + COMPACT_EVERY.0).contains(&(newest - oldest)), "{oldest}..{newest}");
    assert!(slow.try_next().is_err());
    assert_eq!(records.watch(oldest).unwrap().try_next().unwrap().unwrap().revision, oldest + 1);
    assert!(matches!(records.watch(oldest - 1), Err(WatchError::TooOld(_))));
    assert!(matches!(records.watch(newest + 1), Err(WatchError::TooOld(_))));
}

#[test]
fn the_log_is_bounded_in_bytes() {
    let (_dir, records) = open();
    let large = "x".repeat(LARGEST_VALUE - 2);
    for _ in 0..100 {
        records.put(KEY, &large, Durability::RunState).unwrap();
    }
    let WatchError::TooOld(error) = records.watch(0).unwrap_err() else { panic!() };
    assert!(error.newest - error.oldest <= (CHANGE_BYTES_KEPT + COMPACT_EVERY.1) >> 20, "{error}");
}

#[test]
fn files_that_are_not_ours_are_left_alone() {
    let check = |make: &dyn Fn(&Path), words: &str| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records.db");
        make(&path);
        let before = fs::read(&path).unwrap();
        let error = Records::open(&path).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(fs::read(&path).unwrap(), before);
    };
    let sql = |path: &Path, sql: &str| Connection::open(path).unwrap().execute_batch(sql).unwrap();
    let ours = |path: &Path| {
        let records = Records::open(path).unwrap();
        for n in 0..200 {
            let key = format!("default/service/n{n}");
            records.put(&key, &"x".repeat(500), Durability::RunState).unwrap();
        }
    };
    check(&|path| fs::write(path, "a text of somebody's").unwrap(), "not a file of Sampan's records");
    check(&|path| fs::write(path, "x").unwrap(), "not a file of Sampan's records");
    check(&|path| sql(path, "CREATE TABLE t (a)"), "not a file of Sampan's records");
    check(
        &|path| {
            ours(path);
            sql(path, "PRAGMA user_version = 99");
        },
        "has format 99, this Sampan knows up to 1",
    );
    check(
        &|path| {
            ours(path);
            let mut bytes = fs::read(path).unwrap();
            let page = bytes.len() / 4096 / 2 * 4096;
            bytes[page..page + 4096].fill(0xa5);
            fs::write(path, bytes).unwrap();
        },
        "is damaged",
    );
    check(
        &|path| {
            ours(path);
            let bytes = fs::read(path).unwrap();
            fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
        },
        "is damaged",
    );
}

#[test]
fn what_was_written_survives_a_kill() {
    let (dir, records) = open();
    records.put(KEY, &1, Durability::RunState).unwrap();
    // the file and its log as they are while the writer still runs
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    let reopened = Records::open(&copy.path().join("records.db")).unwrap();
    assert_eq!(reopened.get::<i32>(KEY).unwrap().unwrap().value, 1);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

    /// Playing the changes back from any revision, onto what was there then, gives what is there now.
    #[test]
    fn a_watch_replays_to_what_is_there(steps in prop::collection::vec((0u8..4, prop::option::of(0u32..9)), 1..30), from in 0usize..30) {
        let (_dir, records) = open();
        let mut at = (0, BTreeMap::new());
        for (n, (key, value)) in steps.iter().enumerate() {
            if n <= from {
                at = (records.revision(), snapshot(&records));
            }
            let key = format!("default/kind/{key}");
            match value {
                Some(value) => drop(records.put(&key, value, Durability::RunState).unwrap()),
                None => drop(records.delete(&key).unwrap()),
            }
        }
        let (revision, before) = at;
        for is_in_memory in [true, false] {
            if !is_in_memory {
                *lock(&records.inner.recent) = Recent::default();
            }
            let mut state = before.clone();
            let mut watch = records.watch(revision).unwrap();
            while let Some(change) = watch.try_next().unwrap() {
                match change.value().unwrap() {
                    Some(value) => state.insert(change.key.to_string(), value),
                    None => state.remove(&*change.key),
                };
            }
            prop_assert_eq!(state, snapshot(&records));
            prop_assert_eq!(watch.revision(), records.revision());
        }
    }
}

fn snapshot(records: &Records) -> BTreeMap<String, Value> {
    records.list::<Value>("").unwrap().into_iter().map(|(key, record)| (key, record.value)).collect()
}

#[test]
fn a_watch_reads_no_more_the_longer_the_log_is() {
    let (_dir, records) = open();
    let reader = lock(&records.inner.reader);
    let mut statement = reader.prepare(&format!("EXPLAIN QUERY PLAN {LOG_BOUNDS}")).unwrap();
    let plan: Vec<String> = statement.query_map([], |row| row.get(3)).unwrap().map(Result::unwrap).collect();
    assert!(
        plan.iter().any(|step| step == "SEARCH changes") && !plan.iter().any(|step| step == "SCAN changes"),
        "{plan:?}"
    );
}

#[test]
fn the_last_changes_are_in_memory_within_bounds() {
    let change =
        |revision: u64, bytes: usize| Change { revision, key: KEY.into(), json: Some("x".repeat(bytes).into()) };
    let mut recent = Recent::default();
    assert_eq!(recent.after(0, 64), None);
    recent.add((11..=14).map(|revision| change(revision, 1)).collect());
    let revisions = |recent: &Recent, from, limit| {
        let changes = recent.after(from, limit)?;
        Some(changes.into_iter().map(|change| change.revision).collect::<Vec<_>>())
    };
    assert_eq!(revisions(&recent, 10, 3), Some(vec![11, 12, 13]));
    assert_eq!(revisions(&recent, 14, 3), Some(vec![]));
    assert_eq!((revisions(&recent, 9, 3), revisions(&recent, 15, 3)), (None, None));
    recent.add((15..1000).map(|revision| change(revision, 1)).collect());
    assert_eq!((recent.changes.len(), recent.bytes), (Recent::MOST.0, Recent::MOST.0));
    recent.add(vec![change(1000, Recent::MOST.1 + 1)]);
    assert_eq!(revisions(&recent, 999, 3), Some(vec![1000]));
    assert_eq!(revisions(&recent, 998, 3), None);
}
