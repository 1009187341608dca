//! `sampan cp`: files in and out of containers, with Docker's rules of where they go.
//!
//! | source | destination is | it goes to |
//! |---|---|---|
//! | anything | a directory | into it, under its own name |
//! | a file, a link | a file, or nothing in a directory that is there | that name |
//! | a directory | nothing, in a directory that is there | a new directory of that name |
//! | a directory, with `/.` | a directory | its content, into it |
//!
//! What comes out of a container is a stranger's archive: it is unpacked below the destination, by the same code that
//! unpacks archives in containers, and no name or link in it leads out of there.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::fs::{CWD, Mode, OFlags};
use sampan_client::{Client, FileStream};
use sampan_container::files::{Become, FilesError, Owners, Pack, Unpack};
use sampan_model::view::{FileKind, FileStatus};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::args::{CpArgs, Globals};
use super::connect::connect;
use super::failure::Failure;

/// Pieces between the connection and the disk.
const PIECES: usize = 8;
const PIECE: usize = 64 << 10;

/// One side.
#[derive(Debug, PartialEq, Eq)]
enum Side<'a> {
    Here(&'a str),
    In { container: &'a str, path: String },
    Stream,
}

impl<'a> Side<'a> {
    /// As Docker: what begins with a dot or a slash is here, whatever colons it has.
    fn parse(text: &'a str) -> Self {
        match text.split_once(':') {
            _ if text == "-" => Self::Stream,
            Some((container, path)) if !text.starts_with(['.', '/']) && !container.is_empty() => {
                let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
                Self::In { container, path }
            }
            _ => Self::Here(text),
        }
    }
}

pub async fn cp(globals: &Globals, args: CpArgs) -> Result<(), Failure> {
    let sides = (Side::parse(&args.source), Side::parse(&args.dest));
    match sides {
        (Side::In { container, path }, Side::Here(dest)) => {
            let client = connect(globals).await?;
            out(&client, &args, (container, &path), Path::new(dest)).await
        }
        (Side::In { container, path }, Side::Stream) => {
            let stream = connect(globals).await?.read_files(container, &path, args.follow_link).await?;
            to_stdout(stream).await
        }
        (Side::Here(source), Side::In { container, path }) => {
            let client = connect(globals).await?;
            into(&client, &args, source, (container, &path)).await
        }
        (Side::Stream, Side::In { container, path }) => {
            let client = connect(globals).await?;
            Ok(client.write_files(container, &path, stdin()).await?)
        }
        (Side::In { .. }, Side::In { .. }) => Err(Failure::new("both sides are in containers")
            .with_hint("sampan cp A:/path - | sampan cp - B:/path")
            .with_code(2)),
        _ => Err(Failure::new("neither side is in a container").with_hint("name one: NAME:/path").with_code(2)),
    }
}

/// Where something goes.
#[derive(Debug, PartialEq, Eq)]
struct Goal {
    /// Into this directory.
    directory: PathBuf,
    /// Under this name; `None`: its content, into the directory itself.
    name: Option<Vec<u8>>,
}

/// What is at a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum There {
    Nothing,
    Directory,
    Other,
}

impl Goal {
    /// By the table above. `name` is the source's own; `content`: it is given with `/.`.
    fn of(dest: &Path, there: There, is_directory: bool, content: bool, name: &[u8]) -> Result<Self, Failure> {
        let shown = dest.display();
        let under = |directory: &Path, name: &[u8]| Self { directory: directory.into(), name: Some(name.into()) };
        let wants_directory = dest.as_os_str().as_bytes().ends_with(b"/");
        match there {
            There::Directory if content || name == b"." => Ok(Self { directory: dest.into(), name: None }),
            There::Directory => Ok(under(dest, name)),
            There::Other if is_directory => {
                Err(Failure::new(format!("a directory cannot be copied to {shown}, which is none")))
            }
            There::Other if wants_directory => Err(Failure::new(format!("{shown} is no directory"))),
            There::Nothing if wants_directory && !is_directory => {
                Err(Failure::new(format!("there is no directory {shown}"))
                    .with_hint("without the last slash it is a name"))
            }
            There::Nothing | There::Other => {
                let last = dest.file_name().ok_or_else(|| Failure::new(format!("there is no {shown}")))?;
                let parent = dest.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
                Ok(under(parent, last.as_bytes()))
            }
        }
    }
}

fn is_content(path: &str) -> bool {
    path.ends_with("/.") || path == "."
}

/// Out of a container.
async fn out(client: &Client, args: &CpArgs, (container, path): (&str, &str), dest: &Path) -> Result<(), Failure> {
    let FileStatus { name, kind, .. } = client.file_status(container, path, args.follow_link).await?;
    let there = match std::fs::metadata(dest) {
        Ok(found) if found.is_dir() => There::Directory,
        Ok(_) => There::Other,
        Err(_) => There::Nothing,
    };
    let goal = Goal::of(dest, there, kind == FileKind::Directory, is_content(path), name.as_bytes())?;
    // the container's "/" has no name: its archive has none to be replaced
    let rename = match (name.as_str(), &goal.name) {
        (".", Some(name)) => {
            let new = goal.directory.join(std::ffi::OsStr::from_bytes(name));
            std::fs::create_dir(&new).map_err(|error| cannot("make", &new, &error))?;
            return receive(client, args, (container, path), new, None).await;
        }
        (".", None) => None,
        (_, name) => Some(name.clone().unwrap_or_default()),
    };
    receive(client, args, (container, path), goal.directory, rename).await
}

async fn receive(
    client: &Client,
    args: &CpArgs,
    (container, path): (&str, &str),
    directory: PathBuf,
    rename: Option<Vec<u8>>,
) -> Result<(), Failure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, &directory, flags, Mode::empty())
        .map_err(|errno| cannot("open", &directory, &errno.into()))?;
    let owners = if args.archive && rustix::process::geteuid().is_root() { Become::Kept } else { Become::Mine };
    let mut stream = client.read_files(container, path, args.follow_link).await?;
    let (sender, receiver) = mpsc::channel(PIECES);
    let unpacked = tokio::task::spawn_blocking(move || {
        let rename = rename.as_deref();
        let unpack = Unpack { root: &root, at: b"", rename, owners, refuse_kernel: false };
        unpack.unpack(Receiver { pieces: receiver, piece: Bytes::new() })
    });
    let mut lost = None;
    while let Some(piece) = stream.next().await {
        match piece {
            Ok(piece) => {
                if sender.send(Ok(piece)).await.is_err() {
                    break; // it has failed, and says why
                }
            }
            Err(error) => {
                drop(sender.send(Err(io::ErrorKind::UnexpectedEof.into())).await);
                lost = Some(error);
                break;
            }
        }
    }
    drop(sender);
    let unpacked = unpacked.await.map_err(|error| Failure::new(format!("unpack the archive: {error}")))?;
    match (lost, unpacked) {
        (Some(error), _) => Err(error.into()),
        (None, Ok(_)) => Ok(()),
        (None, Err(error)) => Err(Failure::of(&error).about(&format!("copy to {}", directory.display()))),
    }
}

/// Into a container.
async fn into(client: &Client, args: &CpArgs, source: &str, (container, path): (&str, &str)) -> Result<(), Failure> {
    let found = Path::new(source);
    let follow = args.follow_link || source.ends_with('/') || is_content(source);
    let looked = if follow { std::fs::metadata(found) } else { std::fs::symlink_metadata(found) };
    let is_directory = looked.map_err(|error| cannot("find", found, &error))?.is_dir();
    let there = match client.file_status(container, path, true).await {
        Ok(FileStatus { kind: FileKind::Directory, .. }) => There::Directory,
        Ok(_) => There::Other,
        Err(error) if error.is("not_found") && client.container(container).await.is_ok() => There::Nothing,
        Err(error) => return Err(error.into()),
    };
    let own = found.canonicalize().ok().filter(|_| found.file_name().is_none());
    let name = own.as_deref().unwrap_or(found).file_name().map_or(&b"."[..], |name| name.as_bytes());
    let goal = Goal::of(Path::new(path), there, is_directory, is_content(source), name)?;
    let flags = if follow { OFlags::PATH } else { OFlags::PATH | OFlags::NOFOLLOW };
    let opened: OwnedFd = rustix::fs::openat(CWD, found, flags | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| cannot("open", found, &errno.into()))?;
    let owners = if args.archive { Owners::Kept } else { Owners::Root };
    let name = goal.name.unwrap_or_else(|| b".".to_vec());
    let (sender, receiver) = mpsc::channel(PIECES);
    let packed = tokio::task::spawn_blocking(move || {
        let failed = sender.clone();
        let sent = Sender { pieces: sender, piece: Vec::with_capacity(PIECE) };
        let packed = Pack { owners, refuse_kernel: false }
            .pack(&opened, &name, sent)
            .and_then(|mut sent| sent.flush().map_err(FilesError::Stream));
        if packed.is_err() {
            // an archive that is not whole is not to be taken for one
            drop(failed.blocking_send(Err(io::ErrorKind::UnexpectedEof.into())));
        }
        packed
    });
    let directory = goal.directory.to_string_lossy().into_owned();
    let written = client.write_files(container, &directory, stream(receiver)).await;
    match packed.await {
        // what broke off was broken off by the other side, which says why
        Ok(Ok(()) | Err(FilesError::Stream(_))) => Ok(written?),
        Ok(Err(error)) => Err(Failure::of(&error).about(&format!("copy {source}"))),
        Err(error) => Err(Failure::new(format!("pack {source}: {error}"))),
    }
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("{what} {}: {error}", path.display()))
}

fn stream(
    receiver: mpsc::Receiver<io::Result<Bytes>>,
) -> impl futures_util::Stream<Item = io::Result<Bytes>> + Send + Sync + 'static {
    futures_util::stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) })
}

fn stdin() -> impl futures_util::Stream<Item = io::Result<Bytes>> + Send + Sync + 'static {
    let (sender, receiver) = mpsc::channel(PIECES);
    tokio::spawn(async move {
        let mut stdin = tokio::io::stdin();
        loop {
            let mut piece = vec![0; PIECE];
            let read = stdin.read(&mut piece).await;
            let is_end = !matches!(read, Ok(1..));
            let piece = read.map(|count| {
                piece.truncate(count);
                Bytes::from(piece)
            });
            if sender.send(piece).await.is_err() || is_end {
                return;
            }
        }
    });
    stream(receiver)
}

async fn to_stdout(mut stream: FileStream) -> Result<(), Failure> {
    use std::io::IsTerminal as _;
    if io::stdout().is_terminal() {
        return Err(Failure::new("a tar archive is nothing for a terminal").with_hint("… | tar t, or > FILE.tar"));
    }
    let mut stdout = tokio::io::stdout();
    while let Some(piece) = stream.next().await {
        stdout.write_all(&piece?).await?;
    }
    Ok(stdout.flush().await?)
}

/// An archive that comes, for those who read and wait.
struct Receiver {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl Read for Receiver {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let taken = self.piece.split_to(self.piece.len().min(buffer.len()));
        buffer[..taken.len()].copy_from_slice(&taken);
        Ok(taken.len())
    }
}

/// An archive that goes, for those who write and wait.
struct Sender {
    pieces: mpsc::Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
}

impl Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        if self.piece.len() == PIECE {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        self.pieces.blocking_send(Ok(piece.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides() {
        let inside = |container, path: &str| Side::In { container, path: path.into() };
        for (text, expected) in [
            ("-", Side::Stream),
            ("web:/srv", inside("web", "/srv")),
            ("web:srv/x:y", inside("web", "/srv/x:y")),
            ("web:", inside("web", "/")),
            ("./web:/srv", Side::Here("./web:/srv")),
            ("/a:b", Side::Here("/a:b")),
            ("plain", Side::Here("plain")),
            (":/x", Side::Here(":/x")),
        ] {
            assert_eq!(Side::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn docker_s_rules_of_where_it_goes() {
        let check = |dest: &str, there, (is_directory, content), expected: Option<(&str, Option<&str>)>| {
            let goal = Goal::of(Path::new(dest), there, is_directory, content, b"name").ok();
            let expected = expected.map(|(directory, name)| Goal {
                directory: directory.into(),
                name: name.map(|name| name.as_bytes().to_vec()),
            });
            assert_eq!(goal, expected, "{dest} {there:?}");
        };
        let (file, directory, content) = ((false, false), (true, false), (true, true));
        check("/d", There::Directory, file, Some(("/d", Some("name"))));
        check("/d", There::Directory, directory, Some(("/d", Some("name"))));
        check("/d", There::Directory, content, Some(("/d", None)));
        check("/d/new", There::Nothing, file, Some(("/d", Some("new"))));
        check("new", There::Nothing, directory, Some((".", Some("new"))));
        check("/d/new", There::Nothing, content, Some(("/d", Some("new"))));
        check("/d/new/", There::Nothing, file, None);
        check("/d/new/", There::Nothing, directory, Some(("/d", Some("new"))));
        check("/d/old", There::Other, file, Some(("/d", Some("old"))));
        check("/d/old/", There::Other, file, None);
        check("/d/old", There::Other, directory, None);
    }
}
