use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use proptest::prelude::*;

use super::*;
use crate::unpack_layer;

fn layer(
    write: impl FnOnce(&mut LayerWriter<Vec<u8>>) -> Result<(), WriteError>,
) -> Result<(Layer, Vec<u8>), WriteError> {
    let mut writer = LayerWriter::new(Vec::new());
    write(&mut writer)?;
    writer.finish()
}

fn unpacked(layer: &Layer, tar: &[u8]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("tar"), tar).unwrap();
    fs::create_dir(dir.path().join("fs")).unwrap();
    let blob = File::open(dir.path().join("tar")).unwrap();
    unpack_layer(blob, layer.media_type, &layer.diff_id, &dir.path().join("fs")).unwrap();
    dir
}

#[test]
fn a_layer_is_the_same_bytes_each_time() {
    let write = || {
        layer(|writer| {
            writer.directory("/app", 0o750)?;
            writer.file("app/a", 0o4755, 5, &b"hello"[..])?;
            writer.symlink("app/b", "a")?;
            writer.file("lib/deep/er", 0o644, 0, io::empty())?;
            writer.directory("tmp", 0o1777)
        })
        .unwrap()
    };
    let (layer, tar) = write();
    assert_eq!(write(), (layer.clone(), tar.clone()));
    assert_eq!((layer.size, &layer.digest), (tar.len() as u64, &layer.diff_id));
    let dir = unpacked(&layer, &tar);
    let stat = |name: &str| fs::symlink_metadata(dir.path().join("fs").join(name)).unwrap();
    for (name, mode) in [
        ("app", 0o750),
        ("app/a", 0o4755),
        ("lib", 0o755),
        ("lib/deep", 0o755),
        ("lib/deep/er", 0o644),
        ("tmp", 0o1777),
    ] {
        assert_eq!(stat(name).permissions().mode() & 0o7777, mode, "{name}");
        assert_eq!((stat(name).mtime(), stat(name).uid()), (TIME.cast_signed(), 0), "{name}");
    }
    assert_eq!(fs::read_link(dir.path().join("fs/app/b")).unwrap(), Path::new("a"));
}

#[test]
fn what_is_refused() {
    let check = |result: Result<(Layer, Vec<u8>), WriteError>, words: &str| {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    check(layer(|w| w.directory("b", 0o755).and_then(|()| w.directory("a", 0o755))), "a comes after b");
    check(layer(|w| w.directory("a", 0o755).and_then(|()| w.directory("a", 0o755))), "a comes after a");
    check(layer(|w| w.file("a/b", 0o644, 0, io::empty()).and_then(|()| w.directory("a", 0o755))), "a comes after a/b");
    check(layer(|w| w.symlink("a", "x").and_then(|()| w.directory("a/b", 0o755))), "is below a, which is no directory");
    check(layer(|w| w.file("a", 0o644, 3, &b"12"[..])), "did not have the 3 bytes");
    check(layer(|w| w.file("a", 0o644, 1, &b"12"[..])), "did not have the 1 bytes");
    for name in ["", "/", ".", "a/../b", "a/.wh.b"] {
        check(layer(|w| w.directory(name, 0o755)), "no name in a layer");
    }
}

#[test]
fn directories_may_be_left_out_anywhere() {
    let (layer, tar) = layer(|writer| {
        writer.file("a/b/c", 0o644, 0, io::empty())?;
        writer.file("a/b/d/e", 0o644, 0, io::empty())?;
        writer.file("a/f/g", 0o644, 0, io::empty())?;
        writer.directory("h", 0o700)?;
        writer.file("h/i", 0o644, 0, io::empty())?;
        writer.file("h-", 0o644, 0, io::empty())
    })
    .unwrap();
    let dir = unpacked(&layer, &tar);
    assert!(["a/b/c", "a/b/d/e", "a/f/g", "h/i", "h-"].iter().all(|name| dir.path().join("fs").join(name).is_file()));
    // one header of 512 bytes each: a, a/b, a/b/c, a/b/d, a/b/d/e, a/f, a/f/g, h, h/i, h-; two for the end
    assert_eq!(tar.len(), 12 * 512);
}

#[test]
fn the_end_is_in_blocks_and_large_sizes_are_told() {
    let mut record = Vec::new();
    pax_record(&mut record, "path", &[b'x'; 92]);
    assert!(record.starts_with(b"102 path=x") && record.len() == 102, "{}", record.len());
    let mut sink = LayerWriter::new(io::sink());
    sink.header(Path::new("large"), EntryType::Regular, 0o644, SMALL + 1, &[]).unwrap();
    assert_eq!(sink.out.size, 3 * 512);
}

#[test]
fn composed_images_are_the_same_bytes_each_time() {
    let config = ImageConfig {
        entrypoint: vec!["/app/hello".into()],
        user: "app".into(),
        exposed_ports: vec!["9/udp".into(), "8080/tcp".into()],
        labels: BTreeMap::from([("b".into(), "2".into()), ("a".into(), "1".into())]),
        architecture: "amd64".into(),
        ..ImageConfig::default()
    };
    let (layer, _) = layer(|_| Ok(())).unwrap();
    let composed = compose(&config, std::slice::from_ref(&layer));
    assert_eq!(
        String::from_utf8(composed.config.clone()).unwrap(),
        format!(
            concat!(
                r#"{{"architecture":"amd64","os":"linux","config":{{"User":"app","ExposedPorts":{{"8080/tcp":{{}},"#,
                r#""9/udp":{{}}}},"Entrypoint":["/app/hello"],"Labels":{{"a":"1","b":"2"}}}},"#,
                r#""rootfs":{{"type":"layers","diff_ids":["{}"]}},"history":[{{"created_by":"sampan"}}]}}"#
            ),
            layer.diff_id
        )
    );
    assert_eq!(
        String::from_utf8(composed.manifest.clone()).unwrap(),
        format!(
            concat!(
                r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"#,
                r#""mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":{}}},"layers":[{{"#,
                r#""mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{}","size":1024}}]}}"#
            ),
            composed.config_digest,
            composed.config.len(),
            layer.digest
        )
    );
}

#[derive(Debug, Clone)]
enum Node {
    Directory(u32),
    File(u32, Vec<u8>),
    Symlink(String),
}

fn tree() -> impl Strategy<Value = BTreeMap<PathBuf, Node>> {
    // long enough for PAX headers, with characters that sort around '/'
    let part = prop_oneof!["[a-c.é-]{1,3}", "[ab]{90,110}"].prop_filter("a name", |p| p != "." && p != "..");
    let path = prop::collection::vec(part, 1..4).prop_map(|parts| parts.iter().collect::<PathBuf>());
    let node = prop_oneof![
        (0u32..0o1000).prop_map(Node::Directory),
        (0u32..0o1000, prop::collection::vec(any::<u8>(), 0..1500)).prop_map(|(mode, data)| Node::File(mode, data)),
        "[a-z/.]{1,150}".prop_map(Node::Symlink),
    ];
    prop::collection::btree_map(path, node, 0..12).prop_map(|mut tree| {
        // nothing below what is no directory
        let directory =
            |tree: &BTreeMap<PathBuf, Node>, path: &Path| matches!(tree.get(path), None | Some(Node::Directory(_)));
        let all = tree.clone();
        tree.retain(|path, _| path.ancestors().skip(1).all(|above| directory(&all, above)));
        tree
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn trees_come_back(tree in tree()) {
        let (layer, tar) = layer(|writer| {
            for (path, node) in &tree {
                match node {
                    Node::Directory(mode) => writer.directory(path, *mode)?,
                    Node::File(mode, data) => writer.file(path, *mode, data.len() as u64, data.as_slice())?,
                    Node::Symlink(target) => writer.symlink(path, target)?,
                }
            }
            Ok(())
        })
        .unwrap();
        let dir = unpacked(&layer, &tar);
        for (path, node) in &tree {
            let path = dir.path().join("fs").join(path);
            let stat = fs::symlink_metadata(&path).unwrap();
            match node {
                Node::Directory(mode) => prop_assert!(stat.is_dir() && stat.mode() & 0o7777 == *mode),
                Node::File(mode, data) => {
                    prop_assert_eq!(stat.mode() & 0o7777, *mode);
                    prop_assert_eq!(&fs::read(&path).unwrap(), data);
                }
                Node::Symlink(target) => prop_assert_eq!(fs::read_link(&path).unwrap(), PathBuf::from(target)),
            }
        }
    }
}
