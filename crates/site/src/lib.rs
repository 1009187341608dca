//! The file server of static sites: `sampan file-server`, which is inside the image that `sampan up` makes of a
//! directory with an `index.html`.
//!
//! ```text
//! request ─▶ target ─▶ files (openat2 below the root) ─▶ representation (plain, or compressed) ─▶ conditions ─▶ range ─▶ body
//! ```
//!
//! It answers `GET` and `HEAD` over HTTP/1.1 with what lies below one directory, and nothing from outside of it, be the
//! way there a link, a `..` or a race: the kernel resolves each path (`RESOLVE_BENEATH`). Names that start with a dot are
//! not there, but `.well-known` is (RFC 8615). A directory is its `index.html`; what is missing is `404.html`, where there
//! is one.
//!
//! Deliberately not here: TLS, virtual hosts and rewriting (the edge's, or nobody's), listings of directories, and
//! headers about content security, which only the site's author can know.
//!
//! Vocabulary: a *representation* is a file as it is sent, plain or with one *coding* (RFC 9110 §8.4); its *validators*
//! are the entity tag and the time of its last change (§8.8).

#![forbid(unsafe_code)]

mod body;
mod cache;
mod conditions;
mod encoding;
mod files;
mod kinds;
mod range;
mod respond;
mod server;
mod target;

use std::ffi::OsString;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

pub use server::{Limits, ServeError, serve};

/// Where an image has the site.
const ROOT: &str = "/srv";
/// Where it listens, unless `PORT` or `--port` says otherwise.
const PORT: u16 = 8080;
/// Files are opened and read on these: as many as a disk has use for.
const BLOCKING_THREADS: usize = 32;
/// More do not serve a site faster: what is left to do is the kernel's.
const MOST_WORKERS: usize = 4;

const USAGE: &str = "usage: sampan file-server [--root DIR] [--port PORT]\n\
    Serves the files below DIR (default /srv) at PORT (default $PORT, else 8080) until SIGTERM.\n";

/// The role `sampan file-server`. `args` are the words after it.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let options = match Options::parse(args, std::env::var_os("PORT")) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprint!("sampan file-server: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            eprintln!("sampan file-server: {error}{cause}");
            ExitCode::FAILURE
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Options {
    root: PathBuf,
    port: u16,
}

impl Options {
    /// `None`: help is asked for.
    fn parse(mut args: impl Iterator<Item = OsString>, port: Option<OsString>) -> Result<Option<Self>, String> {
        let number = |text: OsString, whose: &str| match text.to_str().and_then(|text| text.parse().ok()) {
            Some(port) => Ok(port),
            None => Err(format!("{whose} is {text:?}, which is no port")),
        };
        let port = port.filter(|port| !port.is_empty()).map(|port| number(port, "the variable PORT")).transpose()?;
        let mut options = Self { root: ROOT.into(), port: port.unwrap_or(PORT) };
        while let Some(word) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{} wants a value", word.display()));
            match word.to_str() {
                Some("--root") => options.root = value()?.into(),
                Some("--port") => options.port = number(value()?, "--port")?,
                Some("--help" | "-h") => return Ok(None),
                _ => return Err(format!("no option {}", word.display())),
            }
        }
        Ok(Some(options))
    }
}

fn run(options: &Options) -> Result<(), ServeError> {
    let limits = getrlimit(Resource::Nofile);
    // as many files as there may be; with fewer it works as well, for fewer at once
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limits.maximum, ..limits });
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_WORKERS);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()
        .map_err(ServeError::Runtime)?;
    runtime.block_on(async {
        // as the first process of a container, it has to ask for signals to be ended by one
        let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Runtime)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Runtime)?;
        let listener = listen(options.port).await?;
        eprintln!("serving {} on port {}", options.root.display(), options.port);
        serve(listener, &options.root, Limits::default(), async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        })
        .await
    })
}

/// On IPv6 and with it IPv4, else on IPv4 alone.
async fn listen(port: u16) -> Result<TcpListener, ServeError> {
    let (all, all_v4) =
        (SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)), SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)));
    match TcpListener::bind(all).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind(all_v4).await.map_err(|source| ServeError::Listen { port, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options() {
        let check = |words: &[&str], port: Option<&str>, expected: Result<Option<(&str, u16)>, &str>| {
            let got = Options::parse(words.iter().map(OsString::from), port.map(OsString::from));
            let expected = expected.map(|options| options.map(|(root, port)| Options { root: root.into(), port }));
            assert_eq!(got, expected.map_err(str::to_owned), "{words:?} {port:?}");
        };
        check(&[], None, Ok(Some(("/srv", 8080))));
        check(&[], Some("3000"), Ok(Some(("/srv", 3000))));
        check(&["--port", "1", "--root", "/x"], Some("3000"), Ok(Some(("/x", 1))));
        check(&["--help"], None, Ok(None));
        check(&["--port"], None, Err("--port wants a value"));
        check(&["--prot", "1"], None, Err("no option --prot"));
        check(&[], Some("http"), Err("the variable PORT is \"http\", which is no port"));
    }
}
