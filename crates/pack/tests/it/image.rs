//! What is in the image of a program.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use sampan_pack::collect::{CollectError, collect};
use sampan_pack::tree::{Content, Entry, Tree};
use sampan_pack::{Options, Packed, prepare};
use serde_json::Value;

use crate::{directory, without_tools, words};

/// The path at which a loader finds `path` in the tree, following its links.
fn resolve(tree: &Tree, path: &Path) -> Option<PathBuf> {
    let entries: BTreeMap<&Path, &Entry> = tree.iter().collect();
    let mut path = path.to_owned();
    'again: for _ in 0..40 {
        let mut above: Vec<&Path> = path.ancestors().collect();
        above.reverse();
        for part in above {
            if let Some(Entry::Symlink { target }) = entries.get(part) {
                let rest = path.strip_prefix(part).expect("an ancestor");
                let joined = part.parent().expect("a parent").join(target);
                path = if rest.as_os_str().is_empty() { joined } else { joined.join(rest) };
                continue 'again;
            }
        }
        return matches!(entries.get(path.as_path()), Some(Entry::File { .. })).then_some(path);
    }
    None
}

/// The tree as a directory, for the loader to be run in.
fn unpack(tree: &Tree, root: &Path) {
    for (path, entry) in tree.iter() {
        let to = root.join(path.strip_prefix("/").expect("absolute"));
        match entry {
            Entry::Directory { .. } => std::fs::create_dir_all(&to),
            Entry::Symlink { target } => std::os::unix::fs::symlink(target, &to),
            Entry::File { content: Content::Bytes(bytes), .. } => std::fs::write(&to, bytes),
            Entry::File { content: Content::Of(from), .. } => std::fs::copy(from, &to).map(drop),
        }
        .expect("unpack");
    }
}

fn compile_c(directory: &Path, arguments: &[&str]) {
    let status = Command::new("cc").args(arguments).current_dir(directory).status().expect("a C compiler");
    assert!(status.success(), "cc {arguments:?}");
}

/// Whether the program ends well where there is nothing but the tree.
fn assert_runs(tree: &Tree, program: &Path) {
    let root = tempfile::tempdir().expect("temporary directory");
    unpack(tree, root.path());
    std::fs::copy(program, root.path().join("app/app")).expect("copy");
    let status = Command::new("chroot").arg(root.path()).arg("/app/app").status().expect("chroot");
    assert!(status.success(), "in a root of its own, the program ended with {status}");
}

#[test]
fn the_machines_programs_find_their_libraries() {
    for program in ["/bin/sh", "/bin/ls", "/usr/bin/env"] {
        let tree = collect(Path::new(program)).expect(program);
        let loader =
            if cfg!(target_arch = "x86_64") { "/lib64/ld-linux-x86-64.so.2" } else { "/lib/ld-linux-aarch64.so.1" };
        assert!(resolve(&tree, Path::new(loader)).is_some(), "{program} has no loader");
        assert!(tree.iter().any(|(path, _)| path.ends_with("libc.so.6")), "{program} has no libc");
        for path in ["/tmp", "/etc/passwd", "/etc/group", "/etc/nsswitch.conf"] {
            assert!(tree.contains(Path::new(path)), "{program} has no {path}");
        }
    }
}

#[test]
fn a_static_program_needs_no_libraries() {
    let files = directory(&[("main.c", "int main(void) { return 0; }")]);
    compile_c(files.path(), &["-static", "-o", "app", "main.c"]);
    let tree = collect(&files.path().join("app")).expect("collect");
    assert!(!tree.iter().any(|(path, _)| path.to_string_lossy().contains("lib")), "{tree:?}");
}

/// Libraries found through `$ORIGIN`, one of which needs another: the hardest case for a loader in another place.
#[test]
fn private_libraries_come_along_and_are_found() {
    let files = directory(&[
        ("inner.c", "int inner(void) { return 6; }"),
        ("outer.c", "int inner(void); int outer(void) { return inner() * 7; }"),
        ("main.c", "int outer(void); int main(void) { return outer() == 42 ? 0 : 1; }"),
    ]);
    std::fs::create_dir(files.path().join("lib")).expect("directory");
    compile_c(files.path(), &["-shared", "-fPIC", "-o", "lib/libinner.so.1", "-Wl,-soname,libinner.so.1", "inner.c"]);
    compile_c(
        files.path(),
        &[
            "-shared",
            "-fPIC",
            "-o",
            "lib/libouter.so.1",
            "-Wl,-soname,libouter.so.1",
            "outer.c",
            "lib/libinner.so.1",
            "-Wl,-rpath,$ORIGIN",
        ],
    );
    compile_c(
        files.path(),
        &["-o", "app", "main.c", "lib/libouter.so.1", "-Wl,-rpath,$ORIGIN/lib", "-Wl,-rpath-link,lib"],
    );
    let app = files.path().join("app");
    let tree = collect(&app).expect("collect");
    let here = files.path().canonicalize().expect("canonical");
    assert!(!tree.iter().any(|(path, _)| path.starts_with(&here)), "the image tells where it was built: {tree:?}");

    assert_runs(&tree, &app);

    std::fs::remove_file(files.path().join("lib/libinner.so.1")).expect("remove");
    let error = collect(&app).expect_err("a library is gone");
    assert!(
        matches!(&error, CollectError::MissingLibrary { name, needed_by } if name == "libinner.so.1" && needed_by.ends_with("libouter.so.1")),
        "{error}"
    );
}

#[test]
fn system_libraries_keep_their_paths() {
    let files = directory(&[(
        "main.c",
        "const char *zlibVersion(void); int main(void) { return zlibVersion()[0] == '1' ? 0 : 1; }",
    )]);
    // by file name, so that the headers and the link that developers need may be missing
    compile_c(files.path(), &["-o", "app", "main.c", "-l:libz.so.1"]);
    let tree = collect(&files.path().join("app")).expect("collect");
    let libz = tree.iter().map(|(path, _)| path).find(|path| path.ends_with("libz.so.1")).expect("libz is there");
    let real = libz.canonicalize().expect("it is on the machine at the same path");
    assert_eq!(resolve(&tree, libz), Some(real));
    assert_runs(&tree, &files.path().join("app"));
}

#[test]
fn a_missing_loader_is_named() {
    let files = directory(&[("main.c", "int main(void) { return 0; }")]);
    compile_c(files.path(), &["-o", "app", "main.c", "-Wl,--dynamic-linker=/lib/ld-none.so.1"]);
    let error = collect(&files.path().join("app")).expect_err("no loader");
    assert!(words(&error, files.path()).starts_with("DIR/app asks for the loader /lib/ld-none.so.1"), "{error}");
    for odd in ["/", "..", "/lib/.."] {
        compile_c(files.path(), &["-o", "app", "main.c", &format!("-Wl,--dynamic-linker={odd}")]);
        let error = collect(&files.path().join("app")).expect_err("no loader");
        assert!(
            matches!(&error, CollectError::MissingLoader { interpreter, .. } if interpreter == odd),
            "{odd}: {error}"
        );
    }
}

fn packed(source: &Path, out: &Path) -> Packed {
    let env = without_tools();
    prepare(source, &Options::default(), &env).expect("prepare").pack(&env, out, &mut (), None).expect("pack")
}

fn json(packed: &Packed, index: usize) -> Value {
    serde_json::from_slice(&std::fs::read(&packed.blobs[index].path).expect("read")).expect("JSON")
}

#[test]
fn the_same_program_is_the_same_image_wherever_it_lies() {
    let toml = ("sampan.toml", "port = 3000\nargs = [\"-c\", \"true\"]\n[env]\nSECRET = \"s\"\n");
    let (a, b) = (directory(&[("app*", "copy of /bin/sh"), toml]), directory(&[("app*", "copy of /bin/sh"), toml]));
    let outs = [tempfile::tempdir().expect("out"), tempfile::tempdir().expect("out")];
    let (first, second) = (packed(a.path(), outs[0].path()), packed(b.path(), outs[1].path()));
    assert_eq!(first.manifest, second.manifest);
    assert_eq!(first.port, Some(3000));

    // every file is what its name says, and nothing else is left
    let mut names: Vec<String> = first.blobs.iter().map(|blob| blob.digest.hex().into()).collect();
    names.sort();
    let mut there: Vec<String> = outs[0]
        .path()
        .read_dir()
        .expect("out")
        .map(|entry| entry.expect("entry").file_name().into_string().expect("text"))
        .collect();
    there.sort();
    assert_eq!(names, there);
    for blob in &first.blobs {
        use sha2::{Digest as _, Sha256};
        let bytes = std::fs::read(&blob.path).expect("read");
        assert_eq!(blob.digest, sampan_model::Digest::from_sha256(Sha256::digest(&bytes).into()));
        assert_eq!(blob.size, bytes.len() as u64);
        assert!(!bytes.windows(6).any(|window| window == b"SECRET"));
    }
    assert_eq!(first.blobs.last().map(|blob| &blob.digest), Some(&first.manifest));

    let config = &json(&first, 2)["config"];
    assert_eq!(config["Entrypoint"], serde_json::json!(["/app/app"]));
    assert_eq!(config["Cmd"], serde_json::json!(["-c", "true"]));
    assert_eq!(config["User"], "65532:65532");
    assert_eq!(config["WorkingDir"], "/app");
    assert_eq!(config["ExposedPorts"], serde_json::json!({"3000/tcp": {}}));
    assert_eq!(config["Labels"], serde_json::json!({"org.opencontainers.image.title": "app"}));
    assert_eq!(json(&first, 3)["layers"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_site_is_served_by_the_file_server_beside_it() {
    let files = [("index.html", "<h1>"), ("a/b.css", "b{}"), (".env", "SECRET"), ("sampan.toml", "name = \"docs\"\n")];
    let (site, out) = (directory(&files), tempfile::tempdir().expect("out"));
    let prepared = prepare(site.path(), &Options::default(), &without_tools()).expect("prepare");
    let error = prepared.pack(&without_tools(), out.path(), &mut (), None).expect_err("no file server");
    assert!(error.to_string().contains("the sampan program"), "{error}");

    let env = without_tools().with_sampan("/bin/sh");
    let packed = prepared.pack(&env, out.path(), &mut (), None).expect("pack");
    let config = &json(&packed, 3)["config"];
    assert_eq!(config["Entrypoint"], serde_json::json!(["/app/sampan", "file-server"]));
    assert_eq!(config["Labels"], serde_json::json!({"org.opencontainers.image.title": "docs"}));
    let names = |index: usize| {
        let layer = std::fs::read(&packed.blobs[index].path).expect("read");
        let output = Command::new("tar").arg("-tf").arg(&packed.blobs[index].path).output().expect("tar");
        assert!(!layer.windows(6).any(|window| window == b"SECRET"));
        String::from_utf8(output.stdout).expect("text").split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(names(1), ["app/", "app/sampan"]);
    assert_eq!(names(2), ["srv/", "srv/a/", "srv/a/b.css", "srv/index.html"]);
}
