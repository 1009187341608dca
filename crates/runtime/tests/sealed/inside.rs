//! What runs inside: each word of the command line is done in turn, and what it found is printed as a line.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::{ExitCode, Stdio};

pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    for word in args {
        let word = word.into_string().expect("words are UTF-8");
        let (what, of) = word.split_once('=').unwrap_or((&word, ""));
        let found = match what {
            "exit" => return ExitCode::from(of.parse::<u8>().expect("a code")),
            "kill" => {
                rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).expect("kill");
                "still here".into()
            }
            "wait" => loop {
                rustix::event::pause();
            },
            "pid" => std::process::id().to_string(),
            "session" => rustix::process::getsid(None).map_or_else(text, |pid| pid.as_raw_nonzero().to_string()),
            "ids" => format!(
                "{} {} {:?}",
                rustix::process::getuid().as_raw(),
                rustix::process::getgid().as_raw(),
                rustix::process::getgroups().expect("groups").iter().map(|g| g.as_raw()).collect::<Vec<_>>()
            ),
            "cwd" => std::env::current_dir().map_or_else(text, |path| path.display().to_string()),
            "env" => std::env::vars().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" "),
            "fds" => list("/proc/self/fd"),
            "list" => list(of),
            "processes" => std::fs::read_dir("/proc")
                .expect("/proc")
                .flatten()
                .filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok())
                .count()
                .to_string(),
            "read" => std::fs::read_to_string(of).map_or_else(text, |text| text.trim().replace('\n', " ")),
            "length" => std::fs::read(of).map_or_else(text, |bytes| bytes.len().to_string()),
            "status" => status(of),
            "limit" => limit(of),
            "write" => std::fs::write(of, "x").map_or_else(text, |()| "ok".into()),
            "open" => std::fs::File::options().write(true).open(of).map_or_else(text, |_| "ok".into()),
            "setuid" => std::fs::copy("/probe", of)
                .and_then(|_| std::fs::set_permissions(of, std::fs::Permissions::from_mode(0o4755)))
                .map_or_else(text, |()| "ok".into()),
            "chown" => std::os::unix::fs::chown(of, Some(5), Some(6)).map_or_else(text, |()| "ok".into()),
            "owner" => std::fs::symlink_metadata(of)
                .map_or_else(text, |meta| format!("{}:{} {:o}", meta.uid(), meta.gid(), meta.permissions().mode())),
            "space" => rustix::fs::statvfs(of).map_or_else(text, |stat| (stat.f_blocks * stat.f_frsize).to_string()),
            // null's number
            "mknod" => {
                let (kind, mode) = (rustix::fs::FileType::CharacterDevice, rustix::fs::Mode::from_raw_mode(0o666));
                rustix::fs::mknodat(rustix::fs::CWD, of, kind, mode, rustix::fs::makedev(1, 3))
                    .map_or_else(text, |()| "ok".into())
            }
            "zero" => {
                let mut bytes = [1; 4];
                let read = std::fs::File::open("/dev/zero").and_then(|mut file| file.read_exact(&mut bytes));
                read.map_or_else(text, |()| format!("{bytes:?}"))
            }
            "mount" => rustix::mount::mount("none", "/", "tmpfs", rustix::mount::MountFlags::empty(), None)
                .map_or_else(text, |()| "ok".into()),
            "port" => {
                std::net::TcpListener::bind(("0.0.0.0", of.parse().expect("a port"))).map_or_else(text, |_| "ok".into())
            }
            "signals" => format!("{} {}", status("SigBlk"), status("SigIgn")),
            "flood" => {
                let line = [b'x'; 999];
                for _ in 0..of.parse::<usize>().expect("a number") {
                    println!("{}", String::from_utf8_lossy(&line));
                }
                "flooded".into()
            }
            "cat" => {
                let copied = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::stdout().lock());
                copied.map_or_else(text, |count| count.to_string())
            }
            "line" => {
                let mut line = String::new();
                std::io::stdin().read_line(&mut line).map_or_else(text, |_| line.trim_end().to_owned())
            }
            "tty" => rustix::termios::tcgetwinsize(std::io::stdin())
                .map_or_else(text, |size| format!("{} {}", size.ws_row, size.ws_col)),
            "stderr" => {
                eprintln!("{of}");
                "ok".into()
            }
            "fork" => {
                // a child that outlives its parent, unless the namespace takes it along
                std::process::Command::new("/probe").args(["inside", "wait"]).spawn().map_or_else(text, |_| "ok".into())
            }
            "orphans" => {
                // each child leaves one that ends after it, whom nobody but the first process waits for
                let count = of.parse::<usize>().expect("a number");
                let run = |_| {
                    std::process::Command::new("/probe")
                        .args(["inside", "orphan"])
                        .stdout(Stdio::null())
                        .status()
                        .map(drop)
                };
                (0..count).try_for_each(run).map_or_else(text, |()| "ok".into())
            }
            "orphan" => std::process::Command::new("/probe")
                .args(["inside", "exit=0"])
                .spawn()
                .map_or_else(text, |_| "ok".into()),
            "zombies" => {
                // those that have just ended are reaped in a moment, or never
                let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
                let zombies = || {
                    let stats =
                        std::fs::read_dir("/proc").expect("/proc").flatten().map(|entry| entry.path().join("stat"));
                    stats.filter(|stat| std::fs::read_to_string(stat).is_ok_and(|text| text.contains(") Z "))).count()
                };
                while zombies() > 0 && std::time::Instant::now() < until {
                    std::thread::yield_now();
                }
                zombies().to_string()
            }
            _ => panic!("unknown word {word}"),
        };
        println!("{what}: {found}");
        std::io::stdout().flush().expect("stdout");
    }
    ExitCode::SUCCESS
}

fn text(error: impl Into<std::io::Error>) -> String {
    error.into().kind().to_string()
}

fn list(path: &str) -> String {
    let mut names: Vec<String> = match std::fs::read_dir(path) {
        Ok(entries) => entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect(),
        Err(error) => return text(error),
    };
    names.sort();
    names.join(" ")
}

fn status(key: &str) -> String {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.unwrap_or("none").trim().to_owned()
}

fn limit(name: &str) -> String {
    let limits = std::fs::read_to_string("/proc/self/limits").expect("limits");
    let line = limits.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or("none").split_whitespace().collect::<Vec<_>>().join(" ")
}
