use std::sync::atomic::AtomicUsize;

use sampan_store::Blobs;

use super::*;
use crate::LayerMediaType;
use crate::testing::{Tar, digest};

/// Blobs that count how often one was opened.
struct Counted(Blobs, AtomicUsize);

impl BlobSource for Counted {
    fn open_blob(&self, digest: &Digest) -> Result<File, BlobError> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.open_blob(digest)
    }

    fn size(&self, digest: &Digest) -> Result<u64, BlobError> {
        self.0.size(digest)
    }
}

struct Fixture {
    dir: tempfile::TempDir,
    blobs: Counted,
    layer: Layer,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let tar = Tar::new().dir("bin/").file("bin/a", "hello").finish();
    let blobs = Counted(Blobs::open(&dir.path().join("blobs")).unwrap(), AtomicUsize::new(0));
    let digest = digest(&tar);
    blobs.0.put(&tar).unwrap();
    let layer =
        Layer { digest: digest.clone(), diff_id: digest, size: tar.len() as u64, media_type: LayerMediaType::Tar };
    Fixture { dir, blobs, layer }
}

impl Fixture {
    fn open(&self) -> Layers {
        Layers::open(&self.dir.path().join("layers")).unwrap()
    }

    fn unpacked(&self) -> usize {
        self.blobs.1.load(Ordering::Relaxed)
    }
}

#[test]
fn a_layer_is_unpacked_once() {
    let fixture = fixture();
    let layers = fixture.open();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let path = layers.ensure(&fixture.layer, &fixture.blobs).unwrap();
                assert_eq!(fs::read_to_string(path.join("bin/a")).unwrap(), "hello");
            });
        }
    });
    fixture.open().ensure(&fixture.layer, &fixture.blobs).unwrap();
    assert_eq!(fixture.unpacked(), 1);
    assert_eq!(layers.list().unwrap(), std::slice::from_ref(&fixture.layer.diff_id));
}

#[test]
fn a_layer_that_was_not_synced_does_not_outlive_its_boot() {
    let fixture = fixture();
    let next_boot = || {
        let mut layers = fixture.open();
        layers.boot = "another".to_owned();
        // what `open` knew was of this boot
        layers.slots = Mutex::default();
        layers
    };
    let home = fixture.dir.path().join("layers").join(fixture.layer.diff_id.hex());

    fixture.open().ensure(&fixture.layer, &fixture.blobs).unwrap();
    fs::write(home.join("fs/bin/a"), "").unwrap(); // as a power cut leaves it
    let path = next_boot().ensure(&fixture.layer, &fixture.blobs).unwrap();
    assert_eq!(fs::read_to_string(path.join("bin/a")).unwrap(), "hello");
    assert_eq!(fixture.unpacked(), 2);

    let layers = fixture.open();
    layers.ensure(&fixture.layer, &fixture.blobs).unwrap(); // of another boot again
    assert_eq!((layers.sync().unwrap(), layers.sync().unwrap()), (1, 0));
    next_boot().ensure(&fixture.layer, &fixture.blobs).unwrap();
    assert_eq!(fixture.unpacked(), 3);

    fs::write(home.join("state"), "{").unwrap(); // written when the power went
    next_boot().ensure(&fixture.layer, &fixture.blobs).unwrap();
    assert_eq!(fixture.unpacked(), 4);
}

#[test]
fn what_is_left_of_a_crash_is_invisible_and_removed() {
    let fixture = fixture();
    let dir = fixture.dir.path().join("layers");
    fs::create_dir_all(dir.join(".partial-0/fs/bin")).unwrap();
    fs::create_dir_all(dir.join(".gone-1/fs")).unwrap();
    let layers = fixture.open();
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    // killed between unpacking and the rename: there is no state under the layer's name
    fs::create_dir_all(dir.join(fixture.layer.diff_id.hex()).join("fs")).unwrap();
    let path = layers.ensure(&fixture.layer, &fixture.blobs).unwrap();
    assert_eq!(fs::read_to_string(path.join("bin/a")).unwrap(), "hello");
}

#[test]
fn a_layer_that_fails_leaves_nothing() {
    let fixture = fixture();
    let layers = fixture.open();
    let wrong = Layer { diff_id: digest(b"another"), ..fixture.layer.clone() };
    let error = layers.ensure(&wrong, &fixture.blobs).unwrap_err();
    assert!(matches!(error, LayersError::Unpack { .. }), "{error}");
    let missing = Layer { digest: digest(b"missing"), ..wrong };
    let error = layers.ensure(&missing, &fixture.blobs).unwrap_err();
    assert!(matches!(error, LayersError::Blob { source: BlobError::Missing(_), .. }), "{error}");
    assert_eq!(fs::read_dir(fixture.dir.path().join("layers")).unwrap().count(), 0);
}

#[test]
fn a_removed_layer_is_unpacked_again() {
    let fixture = fixture();
    let layers = fixture.open();
    layers.ensure(&fixture.layer, &fixture.blobs).unwrap();
    layers.set_aside(&fixture.layer.diff_id).unwrap();
    layers.set_aside(&fixture.layer.diff_id).unwrap();
    layers.sweep().unwrap();
    assert_eq!(fs::read_dir(fixture.dir.path().join("layers")).unwrap().count(), 0);
    assert_eq!(layers.sync().unwrap(), 0);
    layers.ensure(&fixture.layer, &fixture.blobs).unwrap();
    assert_eq!(fixture.unpacked(), 2);
}

#[test]
fn a_tree_is_compared_with_its_blob() {
    let fixture = fixture();
    let layers = fixture.open();
    let check = || layers.check(&fixture.layer, &fixture.blobs).unwrap().map(|fault| (fault.path, fault.what));
    assert_eq!(check(), None, "not unpacked");
    let fs_dir = layers.ensure(&fixture.layer, &fixture.blobs).unwrap();
    assert_eq!(check(), None);
    let file = fs_dir.join("bin/a");
    let spoil: [(&dyn Fn(), &str); 6] = [
        (&|| fs::write(&file, "jello").unwrap(), "it has another content"),
        (&|| fs::write(&file, "hell").unwrap(), "it has another size"),
        (&|| fs::set_permissions(&file, fs::Permissions::from_mode(0o4755)).unwrap(), "it has another mode"),
        (&|| fs::remove_file(&file).unwrap(), "it is missing"),
        (&|| fs::create_dir(&file).unwrap(), "it is of another kind"),
        (&|| fs::remove_dir_all(fs_dir.join("bin")).unwrap(), "the directory it is in is missing"),
    ];
    for (spoil, what) in spoil {
        spoil();
        let found = check().map(|(_, what)| what);
        // a directory that is missing is told before what was in it
        let expected = if what.starts_with("the directory") { "it is missing" } else { what };
        assert_eq!(found, Some(expected));
    }
    fs::write(fs_dir.parent().unwrap().join("state"), "{").unwrap();
    assert_eq!(check().unwrap().1, "what was noted of it cannot be read");
    layers.set_aside(&fixture.layer.diff_id).unwrap();
    assert_eq!(check(), None);
}

#[test]
fn packed_layers_are_unpacked() {
    let fixture = fixture();
    let tar = fs::read(fixture.blobs.0.path(&fixture.layer.digest)).unwrap();
    let blob = crate::testing::gzip(&tar);
    let digest = fixture.blobs.0.put(&blob).unwrap();
    let size = blob.len() as u64;
    let layer = Layer { digest, size, media_type: LayerMediaType::TarGzip, ..fixture.layer.clone() };
    let layers = fixture.open();
    let path = layers.ensure(&layer, &fixture.blobs).unwrap();
    assert_eq!(fs::read_to_string(path.join("bin/a")).unwrap(), "hello");
    assert_eq!(layers.check(&layer, &fixture.blobs).unwrap(), None);
}
