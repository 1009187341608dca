//! What keeps others from reaching services and published ports: firewalls that drop what comes in.
//!
//! The edge listens on the machine's own addresses, so what comes in passes through the firewalls' chains for input, as
//! with any other server program; no rule of ours lets it around them. What servers send out is passed on, which
//! `sampan_network::check` looks at.

use std::path::Path;

use sampan_sys::net::netlink::{Protocol, Socket};
use sampan_sys::net::nftables::{Chain, chains};

use super::{Finding, text};

const WHAT: &str = "reached from elsewhere";
/// `NF_INET_LOCAL_IN` (linux/netfilter.h).
const HOOK_INPUT: u32 = 1;

pub(super) fn findings() -> Vec<Finding> {
    let ports = Finding::ok("low ports", "the daemon opens them as root: --http 80 needs no sysctl");
    if !rustix::process::geteuid().is_root() {
        return vec![ports];
    }
    let chains = Socket::open(Protocol::Netfilter).and_then(|mut socket| chains(&mut socket)).unwrap_or_default();
    let machine = Firewalls {
        ufw: is_on(&text("/etc/ufw/ufw.conf")),
        firewalld: Path::new("/run/firewalld").exists() || chains.iter().any(|chain| chain.table == "firewalld"),
        legacy: text("/proc/net/ip_tables_names").lines().any(|table| table == "filter"),
    };
    [vec![ports], machine.findings(&chains)].concat()
}

/// Who manages rules on this machine.
struct Firewalls {
    ufw: bool,
    firewalld: bool,
    /// Rules of the old iptables, which nf_tables does not show.
    legacy: bool,
}

/// `ENABLED=yes`, as ufw.conf has it.
fn is_on(ufw_conf: &str) -> bool {
    ufw_conf.lines().any(|line| line.trim().eq_ignore_ascii_case("ENABLED=yes"))
}

impl Firewalls {
    fn findings(&self, chains: &[Chain]) -> Vec<Finding> {
        let mut findings = Vec::new();
        if self.ufw {
            findings.push(Finding::warn(
                WHAT,
                "ufw lets in only what it is told to: others reach no service and no published port by default",
                "for each port that others are to reach: `ufw allow 80/tcp`",
            ));
        }
        if self.firewalld {
            findings.push(Finding::warn(
                WHAT,
                "firewalld lets in only what its zones name: others reach no service and no published port by default",
                "for each port: `firewall-cmd --permanent --add-port=80/tcp`, then `firewall-cmd --reload`",
            ));
        }
        // what those two manage has been told of already
        if findings.is_empty() {
            findings.extend(chains.iter().filter(|chain| chain.hook == Some((HOOK_INPUT, true))).map(dropping));
        }
        if self.legacy {
            findings.push(Finding::warn(
                WHAT,
                "there are rules of the old iptables, which cannot be looked at from here",
                "look at them with `iptables-legacy -S`: INPUT decides on services, FORWARD on what servers send out",
            ));
        }
        if findings.is_empty() {
            findings.push(Finding::ok(WHAT, "no firewall of this machine drops by default what comes in"));
        }
        findings
    }
}

fn dropping(chain: &Chain) -> Finding {
    let Chain { table, name, .. } = chain;
    let detail = format!("the firewall table {table} drops in {name} whatever it does not know that comes in");
    let fix = match (table.as_str(), name.as_str()) {
        ("filter", "INPUT") => "for each port: `iptables -I INPUT -p tcp --dport 80 -j ACCEPT`".to_owned(),
        _ => format!("for each port: `nft insert rule inet {table} {name} tcp dport 80 accept`"),
    };
    Finding::warn(WHAT, detail, fix)
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn firewalls_are_named_with_the_way_to_open_them() {
        let check = |machine: &Firewalls, chains: &[Chain], expected: &[&str]| {
            let fixes: Vec<_> = machine.findings(chains).into_iter().filter_map(|finding| finding.fix).collect();
            assert_eq!(fixes.len(), expected.len(), "{fixes:?}");
            for (fix, part) in fixes.iter().zip(expected) {
                assert!(fix.contains(part), "{fix}: no {part}");
            }
        };
        let chain = |table: &str, name: &str, hook| Chain {
            family: 1,
            table: table.into(),
            name: name.into(),
            hook: Some(hook),
        };
        let none = Firewalls { ufw: false, firewalld: false, legacy: false };
        assert_eq!(none.findings(&[]).iter().map(|finding| finding.level).collect::<Vec<_>>(), [Level::Ok]);
        check(&none, &[chain("x", "in", (HOOK_INPUT, false)), chain("x", "fwd", (2, true))], &[]);
        check(&none, &[chain("filter", "INPUT", (HOOK_INPUT, true))], &["iptables -I INPUT"]);
        check(&none, &[chain("mine", "in", (HOOK_INPUT, true))], &["nft insert rule inet mine in "]);
        let ufw = Firewalls { ufw: true, legacy: true, ..none };
        check(&ufw, &[chain("filter", "INPUT", (HOOK_INPUT, true))], &["ufw allow", "iptables-legacy"]);
        check(&Firewalls { firewalld: true, ufw: false, legacy: false }, &[], &["firewall-cmd"]);
    }

    #[test]
    fn ufw_s_own_word() {
        for (conf, expected) in [("# x\nENABLED=yes\n", true), ("ENABLED=no\n", false), ("", false)] {
            assert_eq!(is_on(conf), expected, "{conf}");
        }
    }
}
