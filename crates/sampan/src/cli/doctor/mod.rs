//! `sampan doctor`: what this machine offers and lacks, and the fix for each.
//!
//! It looks and changes nothing. A `fail` keeps Sampan from working; a `warn` costs something that it says.

mod limits;
mod machine;
mod reach;

use std::fs;
use std::net::{Ipv4Addr, TcpListener};

use sampan_client::{Client, Listen, Root};
use serde::Serialize;

use super::args::Globals;
use super::failure::Failure;
use super::output;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Level {
    Ok,
    Warn,
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    what: String,
    level: Level,
    detail: String,
    fix: Option<String>,
}

impl Finding {
    fn ok(what: &str, detail: impl Into<String>) -> Self {
        Self { what: what.into(), level: Level::Ok, detail: detail.into(), fix: None }
    }

    fn warn(what: &str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { what: what.into(), level: Level::Warn, detail: detail.into(), fix: Some(fix.into()) }
    }

    fn fail(what: &str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { level: Level::Fail, ..Self::warn(what, detail, fix) }
    }
}

pub async fn doctor(globals: &Globals) -> Result<u8, Failure> {
    let root = globals.root()?;
    let mut findings = vec![
        machine::kernel(&text("/proc/sys/kernel/osrelease")),
        machine::user_namespaces(),
        machine::cgroups(),
        machine::machine(),
        machine::proc_mounts(&text("/proc/self/mountinfo")),
        machine::root_file_system(&root),
        machine::space(&root),
        limits::overlay(&text("/proc/filesystems")),
        limits::seccomp(&text("/proc/sys/kernel/seccomp/actions_avail")),
        limits::ids(&text("/etc/subuid")),
        machine::descriptors(),
        limits::inotify(&text("/proc/sys/fs/inotify/max_user_instances")),
        machine::privilege(),
        limits::security_modules(&text("/sys/fs/selinux/enforce"), &text("/sys/module/apparmor/parameters/enabled")),
        limits::clock(jiff::Timestamp::now()),
        limits::systemd(&root),
    ];
    findings.push(daemon_or_port(globals, &root).await);
    findings.extend(network());
    findings.extend(reach::findings());
    findings.extend([
        machine::toolchain("cargo", "Rust", "install it from https://rustup.rs"),
        machine::toolchain("go", "Go", "install it from https://go.dev/dl or with `apt-get install golang-go`"),
    ]);
    if globals.json {
        output::print_json(&findings)?;
    } else {
        output::print(&render(&findings, globals.quiet))?;
    }
    Ok(u8::from(findings.iter().any(|finding| finding.level == Level::Fail)))
}

/// A file of the kernel's or the machine's; empty where it is not there.
fn text(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// A line each, the fix below; with `--quiet` only what is not well.
fn render(findings: &[Finding], quiet: bool) -> String {
    let width = findings.iter().map(|finding| finding.what.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for finding in findings.iter().filter(|finding| !quiet || finding.level != Level::Ok) {
        let level = match finding.level {
            Level::Ok => "ok  ",
            Level::Warn => "warn",
            Level::Fail => "FAIL",
        };
        text.push_str(&format!("{level}  {:width$}  {}\n", finding.what, finding.detail));
        if let Some(fix) = &finding.fix {
            text.push_str(&format!("      {:width$}  fix: {fix}\n", ""));
        }
    }
    text
}

async fn daemon_or_port(globals: &Globals, root: &Root) -> Finding {
    if let Ok(client) = Client::connect(root).await
        && let Ok(daemon) = client.daemon().await
    {
        let http: Vec<_> = daemon.http.iter().map(ToString::to_string).collect();
        let detail = format!("version {} runs, services at {}", daemon.version, http.join(", "));
        return match daemon.warnings.first() {
            None => Finding::ok("daemon", detail),
            Some(warning) => Finding::warn("daemon", warning.clone(), "see `sampan daemon status`"),
        };
    }
    let (asked, address) = match globals.http {
        None => (false, (Ipv4Addr::LOCALHOST, 8080).into()),
        Some(Listen::Port(port)) => (true, (Ipv4Addr::LOCALHOST, port).into()),
        Some(Listen::Address(address)) => (true, address),
    };
    let port = address.port();
    let Err(error) = TcpListener::bind(address) else {
        return Finding::ok("port", format!("{port} is free for services"));
    };
    let who = sampan_network::listening::who_has(port).map(|who| format!(" by {who}")).unwrap_or_default();
    let detail = match error.kind() {
        std::io::ErrorKind::AddrInUse => format!("{port} is taken{who}"),
        _ => format!("{address} cannot be listened on: {error}"),
    };
    match asked {
        true => Finding::fail("port", detail, "choose another with --http"),
        false => Finding::warn("port", detail, "the next free one will be used; choose one with --http"),
    }
}

fn network() -> Vec<Finding> {
    if !rustix::process::geteuid().is_root() {
        return Vec::new();
    }
    let convert = |finding: sampan_network::Finding| Finding {
        what: finding.what,
        level: if finding.ok { Level::Ok } else { Level::Warn },
        detail: finding.detail,
        fix: finding.fix,
    };
    sampan_network::check().into_iter().map(convert).map(essential).collect()
}

/// Without these two there is no network at all.
fn essential(finding: Finding) -> Finding {
    let is_essential = matches!(finding.what.as_str(), "nf_tables" | "veth");
    if is_essential && finding.level == Level::Warn { Finding { level: Level::Fail, ..finding } } else { finding }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn for_people() {
        let findings = [Finding::ok("kernel", "Linux 6.18"), Finding::fail("veth", "there is none", "modprobe veth")];
        let expected = "\
ok    kernel  Linux 6.18
FAIL  veth    there is none
              fix: modprobe veth
";
        assert_eq!(render(&findings, false), expected);
        assert_eq!(render(&findings, true), "FAIL  veth    there is none\n              fix: modprobe veth\n");
    }
}
