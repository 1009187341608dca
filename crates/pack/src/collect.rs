//! What a program needs around it: its loader and libraries at the paths where the loader looks, certificates, users,
//! `/tmp`.
//!
//! Libraries come from the machine that the program was compiled on, for those are the ones that it was linked with.
//! Nothing is executed to find them (`ldd` runs the program's own loader). What a program loads by itself with
//! `dlopen` cannot be seen and is not collected; name service modules of old glibcs are the one exception. Time zones
//! are left out: 3 MB that few apps read, and those mostly bring their own.
//!
//! # How the loader finds a library in the image
//! There is no `ld.so.cache` in it. A loader without one looks where the program's `RUNPATH` says, then in directories
//! that were built into it, among which is the one that holds the C library (`ld.so(8)`). So each library keeps the
//! path it has on the machine, and one that lies in another directory (`/usr/local/lib`, `/opt/…`) gets a link beside
//! the C library. One from a place that is somebody's own (found through `$ORIGIN` or `LD_LIBRARY_PATH`: a build or
//! home directory) moves there altogether, so that an image does not tell where it was built and is the same when it
//! was built elsewhere.

use std::io;
use std::path::{Path, PathBuf};

use lddtree::{DependencyAnalyzer, DependencyTree, Library};

use crate::elf;
use crate::tree::Tree;

/// The user that apps run as, by number and as `app` in `/etc/passwd`. 65532 is what distroless images and others
/// use: an engine that runs our image without a user namespace then runs it as nobody in particular, where 1000 would
/// be the machine's first human.
pub const USER_ID: u32 = 65532;

/// Where certificates are in the image: the path of Debian and of Go's and Rust's defaults.
pub const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Where distributions keep all certificates in one file: Debian and Alpine, Fedora, SUSE, others.
const CERTIFICATE_FILES: [&str; 4] =
    [CERTIFICATES, "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"];

/// Where the machine's own libraries lie, in contrast to somebody's.
const SYSTEM: [&str; 9] =
    ["/lib", "/lib32", "/lib64", "/libx32", "/usr", "/opt", "/nix/store", "/gnu/store", "/etc/alternatives"];

/// The modules by which glibcs before 2.34 look up users and hosts; since then they are part of `libc.so.6`.
const NAME_SERVICE: [&str; 2] = ["libnss_files.so.2", "libnss_dns.so.2"];

/// The most libraries that one program may need. Chromium, the largest we know of, needs about 150.
pub const MOST_LIBRARIES: usize = 1024;

/// Why a program's surroundings could not be collected.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// The program or one of its libraries cannot be read as what it should be.
    #[error("cannot read which libraries {} needs", path.display())]
    Unreadable {
        /// The program.
        path: PathBuf,
        /// Why.
        source: lddtree::Error,
    },
    /// A library is nowhere.
    #[error(
        "{} needs the library {name}, which is not on this machine: install the package that holds it \
         (`apt-file search {name}` names it on Debian)", needed_by.display()
    )]
    MissingLibrary {
        /// The library's name.
        name: String,
        /// The program or library that needs it.
        needed_by: PathBuf,
    },
    /// The loader that the program names is nowhere.
    #[error(
        "{} asks for the loader {interpreter}, which is not on this machine: it was built for another system", path.display()
    )]
    MissingLoader {
        /// The program.
        path: PathBuf,
        /// The loader's path.
        interpreter: String,
    },
    /// More than [`MOST_LIBRARIES`].
    #[error("{} needs {count} libraries, more than the {MOST_LIBRARIES} that are collected at most", path.display())]
    TooManyLibraries {
        /// The program.
        path: PathBuf,
        /// How many.
        count: usize,
    },
    /// A library was found, and could not be looked at.
    #[error("cannot follow the path {}", path.display())]
    Library {
        /// The library.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Everything around `program`, which itself is not among it.
///
/// # Errors
/// [`CollectError`].
pub fn collect(program: &Path) -> Result<Tree, CollectError> {
    let mut tree = Tree::default();
    base(&mut tree);
    // lddtree panics on some files that are no ELF at all, such as scripts
    if matches!(elf::kind(program), Ok(elf::Kind::Program(_))) {
        libraries(&mut tree, program)?;
    }
    Ok(tree)
}

fn base(tree: &mut Tree) {
    for (path, mode) in
        [("/app", 0o755), ("/dev", 0o755), ("/proc", 0o555), ("/sys", 0o555), ("/run", 0o755), ("/tmp", 0o1777)]
    {
        tree.directory(path, mode);
    }
    tree.bytes(
        "/etc/passwd",
        0o644,
        format!(
            "root:x:0:0:root:/root:/sbin/nologin\n\
             nobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\n\
             app:x:{USER_ID}:{USER_ID}:app:/app:/sbin/nologin\n"
        ),
    );
    tree.bytes("/etc/group", 0o644, format!("root:x:0:\nnogroup:x:65534:\napp:x:{USER_ID}:\n"));
    // without it, glibc asks DNS before it reads /etc/hosts
    tree.bytes("/etc/nsswitch.conf", 0o644, "passwd: files\ngroup: files\nhosts: files dns\n");
    if let Some(file) = CERTIFICATE_FILES.iter().find(|file| Path::new(file).is_file()) {
        tree.file(CERTIFICATES, 0o644, *file);
    }
}

fn libraries(tree: &mut Tree, program: &Path) -> Result<(), CollectError> {
    let found = analyze(program)?;
    let Some(beside) = home_of_libraries(&found) else { return Ok(()) };
    for library in sorted(&found) {
        place(tree, library, &beside)?;
    }
    if let Some(loader) = &found.interpreter {
        // the C library needs the loader as well, by name, so it was found as a library, where no program looks for it
        tree.same_path(Path::new(loader))
            .map_err(|_| CollectError::MissingLoader { path: program.into(), interpreter: loader.clone() })?;
    }
    if has_separate_name_service(&found) {
        for module in NAME_SERVICE {
            let path = beside.join(module);
            if !path.exists() {
                continue;
            }
            for library in sorted(&analyze(&path)?) {
                place(tree, library, &beside)?;
            }
            tree.same_path(&path).map_err(|source| CollectError::Library { path, source })?;
        }
    }
    Ok(())
}

/// All that `program` needs, each of it found.
fn analyze(program: &Path) -> Result<DependencyTree, CollectError> {
    // lddtree panics on a loader without a file name, such as "/"
    if let Ok(Some(loader)) = elf::interpreter(program)
        && loader.file_name().is_none()
    {
        let interpreter = loader.to_string_lossy().into_owned();
        return Err(CollectError::MissingLoader { path: program.into(), interpreter });
    }
    let found = DependencyAnalyzer::default()
        .analyze(program)
        .map_err(|source| CollectError::Unreadable { path: program.into(), source })?;
    if found.libraries.len() > MOST_LIBRARIES {
        return Err(CollectError::TooManyLibraries { path: program.into(), count: found.libraries.len() });
    }
    if let Some(missing) = sorted(&found).into_iter().find(|library| !library.found()) {
        return Err(match &found.interpreter {
            Some(interpreter) if Path::new(interpreter) == missing.path => {
                CollectError::MissingLoader { path: program.into(), interpreter: interpreter.clone() }
            }
            _ => CollectError::MissingLibrary {
                name: missing.name.clone(),
                needed_by: needed_by(&found, missing, program),
            },
        });
    }
    Ok(found)
}

fn needed_by(found: &DependencyTree, missing: &Library, program: &Path) -> PathBuf {
    if found.needed.contains(&missing.name) {
        return program.into();
    }
    let needs = sorted(found).into_iter().find(|library| library.needed.contains(&missing.name));
    needs.map_or_else(|| program.into(), |library| library.path.clone())
}

/// The directory that the loader always looks in: the one of the C library, else (musl: the loader *is* the C
/// library) the loader's. `None` for a static program.
fn home_of_libraries(found: &DependencyTree) -> Option<PathBuf> {
    let libc = found.libraries.get("libc.so.6").and_then(|libc| libc.path.parent()?.canonicalize().ok());
    libc.or_else(|| Path::new(found.interpreter.as_deref()?).parent()?.canonicalize().ok())
}

/// In glibc before 2.34, `libc.so.6` is a link to a file that has the version in its name.
fn has_separate_name_service(found: &DependencyTree) -> bool {
    let libc = found.libraries.get("libc.so.6").and_then(|libc| libc.realpath.as_deref()?.file_name()?.to_str());
    libc.is_some_and(|name| name.starts_with("libc-2."))
}

fn place(tree: &mut Tree, library: &Library, beside: &Path) -> Result<(), CollectError> {
    let path = &library.path;
    let error = |source| CollectError::Library { path: path.clone(), source };
    let name = Path::new(&library.name).file_name().unwrap_or(library.name.as_ref());
    let link = beside.join(name);
    if !SYSTEM.iter().any(|directory| path.starts_with(directory)) {
        let real = library.realpath.as_deref().unwrap_or(path);
        tree.file(link, 0o755, real);
        return Ok(());
    }
    let real = tree.same_path(path).map_err(error)?;
    let directory = path.parent().map(Path::canonicalize).transpose().map_err(error)?;
    if directory.as_deref() != Some(beside) && !tree.contains(&link) && !is_loader(library) {
        tree.symlink(link, real);
    }
    Ok(())
}

/// The loader is opened by the path that the program names, and searched for by nobody.
fn is_loader(library: &Library) -> bool {
    library.name.starts_with("ld-")
}

fn sorted(found: &DependencyTree) -> Vec<&Library> {
    let mut libraries: Vec<&Library> = found.libraries.values().collect();
    libraries.sort_by(|a, b| (&a.name, &a.path).cmp(&(&b.name, &b.path)));
    libraries
}
