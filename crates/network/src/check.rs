//! What this machine offers and lacks for networks, for `sampan doctor`.

use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::path::Path;

use sampan_sys::net::namespace::{fresh, run_in};
use sampan_sys::net::netlink::{NetlinkError, Protocol, Socket};
use sampan_sys::net::nftables::{Chain, Entry, Family, HOOK_FORWARD, Rule, Table, Test, Transaction, chains};
use sampan_sys::net::rtnetlink::{Veth, create_bridge, create_veth};

use crate::firewall::TABLE_PREFIX;

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What: "nf_tables", "veth"…
    pub what: String,
    /// Whether it is as it should be.
    pub ok: bool,
    /// What was found, for people.
    pub detail: String,
    /// What to do about it.
    pub fix: Option<String>,
}

impl Finding {
    fn good(what: &str, detail: impl Into<String>) -> Self {
        Self { what: what.into(), ok: true, detail: detail.into(), fix: None }
    }

    fn bad(what: &str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { what: what.into(), ok: false, detail: detail.into(), fix: Some(fix.into()) }
    }
}

/// Looks at what networks need, in the calling thread's network namespace. Nothing is changed: what has to be tried is
/// tried in a network namespace of its own. Needs root; without it, says so.
pub fn check() -> Vec<Finding> {
    let mut findings = vec![nf_tables(), veth(), forwarding(), reverse_path(), connections(), neighbours()];
    findings.extend(forward_drops());
    findings
}

/// Tries the kinds of rules that an instance's table has, in a network namespace made for it.
fn nf_tables() -> Finding {
    let what = "nf_tables";
    let fix = "use a kernel with CONFIG_NF_TABLES, NF_TABLES_INET, NFT_MASQ, NFT_NAT and NFT_CT, or load the modules: \
               modprobe -a nf_tables nft_masq nft_nat nft_ct";
    match elsewhere(try_rules) {
        Ok(()) => Finding::good(what, "rules for isolation and for the way out can be made"),
        Err(problem) => Finding::bad(what, problem, fix),
    }
}

fn try_rules() -> Result<(), NetlinkError> {
    let table = Table { family: Family::Inet, name: "sampan_doctor" };
    let known = Rule::new().leaves_by(Test::Is, "sp").connection_known().accept();
    let out = Rule::new().ipv4().source(Test::Is, std::net::Ipv4Addr::LOCALHOST, 32).masquerade();
    let back = Rule::new().ipv4().tcp_to(1).redirect_to(std::net::Ipv4Addr::LOCALHOST, 1);
    Transaction::new()
        .add_table(table)
        .add_entry(table, "forward", Entry::Forward)
        .add_rule(table, "forward", &known)
        .add_entry(table, "out", Entry::NatSource)
        .add_rule(table, "out", &out)
        .add_entry(table, "in", Entry::NatDestination)
        .add_rule(table, "in", &back)
        .commit(&mut Socket::open(Protocol::Netfilter)?)
}

/// Tries to make a wire and a bridge, in a network namespace made for it.
fn veth() -> Finding {
    let what = "veth";
    match elsewhere(try_interfaces) {
        Ok(()) => Finding::good(what, "wires and the gateway can be made"),
        Err(problem) => Finding::bad(
            what,
            problem,
            "use a kernel with CONFIG_VETH and CONFIG_BRIDGE, or load the modules: modprobe -a veth bridge",
        ),
    }
}

fn try_interfaces() -> Result<(), NetlinkError> {
    let own = File::open("/proc/thread-self/ns/net").map_err(NetlinkError::Open)?;
    let veth = Veth {
        name: "near",
        index: 1000,
        mac: [2, 0, 0, 0, 0, 1],
        group: 0,
        peer_name: "far",
        peer_index: 1001,
        peer_mac: [2, 0, 0, 0, 0, 2],
        peer_netns: own.as_fd(),
    };
    Socket::open(Protocol::Route)?.all(&[create_veth(&veth), create_bridge("bridge")])
}

/// Runs a trial in a network namespace made for it, and says what went wrong.
fn elsewhere(trial: impl FnOnce() -> Result<(), NetlinkError> + Send) -> Result<(), String> {
    let entered = fresh().and_then(|netns| run_in(netns.as_fd(), trial));
    let result = entered.map_err(|error| format!("no network namespace can be made: {error} (are you root?)"))?;
    result.map_err(|error| match std::error::Error::source(&error) {
        Some(source) => format!("failed to {error}: {source}"),
        None => format!("failed to {error}"),
    })
}

fn forwarding() -> Finding {
    let what = "ip_forward";
    match setting("net/ipv4/ip_forward") {
        Some(0) => Finding::good(what, "off; the daemon switches it on while it runs"),
        Some(_) => Finding::good(what, "on"),
        None => Finding::bad(what, "/proc/sys/net/ipv4/ip_forward cannot be read", "mount /proc with net settings"),
    }
}

fn reverse_path() -> Finding {
    let what = "rp_filter";
    match setting("net/ipv4/conf/all/rp_filter") {
        // the kernel takes the larger of this and the interface's own, and 2 checks less than 1
        Some(2) => Finding::bad(
            what,
            "loose for all interfaces: a server can send under another server's address",
            "sysctl -w net.ipv4.conf.all.rp_filter=0 (each interface then has its own; servers' are strict)",
        ),
        Some(value) => Finding::good(what, format!("{value} for all interfaces; strict for servers")),
        None => Finding::good(what, "not to be read"),
    }
}

fn connections() -> Finding {
    let what = "conntrack";
    let (count, most) = (setting("net/netfilter/nf_conntrack_count"), setting("net/netfilter/nf_conntrack_max"));
    match (count, most) {
        (Some(count), Some(most)) if count.saturating_mul(10) > most.saturating_mul(9) => Finding::bad(
            what,
            format!("{count} of {most} connections are tracked: new ones are about to be dropped"),
            format!("sysctl -w net.netfilter.nf_conntrack_max={}", most.saturating_mul(4)),
        ),
        (Some(count), Some(most)) => Finding::good(what, format!("{count} of {most} connections are tracked")),
        _ => Finding::good(what, "not in use yet"),
    }
}

fn neighbours() -> Finding {
    let what = "neighbour table";
    // ours are permanent and do not count against the limit; but a table that is full of others' stops everybody
    let entries = fs::read_to_string("/proc/net/arp").map_or(0, |table| table.lines().count().saturating_sub(1) as u64);
    match setting("net/ipv4/neigh/default/gc_thresh3") {
        Some(most) if entries.saturating_mul(10) > most.saturating_mul(9) => Finding::bad(
            what,
            format!("{entries} of at most {most} entries"),
            format!("sysctl -w net.ipv4.neigh.default.gc_thresh3={}", most.saturating_mul(8)),
        ),
        Some(most) => Finding::good(what, format!("{entries} of at most {most} entries; servers' do not count")),
        None => Finding::good(what, format!("{entries} entries")),
    }
}

/// Others' firewalls that drop what is passed on unless they know it: our "accept" cannot overrule them.
fn forward_drops() -> Vec<Finding> {
    let what = "forwarding by other firewalls";
    let listed = Socket::open(Protocol::Netfilter).and_then(|mut socket| chains(&mut socket));
    let chains = match listed {
        Ok(chains) => chains,
        Err(error) => return vec![Finding::bad(what, format!("failed to {error}"), "run this as root")],
    };
    let findings: Vec<_> = dropping(&chains).map(|chain| drop_finding(what, chain, &chains)).collect();
    if findings.is_empty() { vec![Finding::good(what, "nobody drops what is passed on by default")] } else { findings }
}

/// The chains of others that drop by default what is passed on.
fn dropping(chains: &[Chain]) -> impl Iterator<Item = &Chain> {
    let sees_ipv4 = |chain: &Chain| [Family::Inet as u8, Family::Ipv4 as u8].contains(&chain.family);
    chains.iter().filter(move |chain| {
        chain.hook == Some((HOOK_FORWARD, true)) && sees_ipv4(chain) && !chain.table.starts_with(TABLE_PREFIX)
    })
}

fn drop_finding(what: &str, dropping: &Chain, chains: &[Chain]) -> Finding {
    let Chain { table, name, family, .. } = dropping;
    let user_chain =
        chains.iter().any(|chain| chain.table == *table && chain.family == *family && chain.name == "DOCKER-USER");
    let by_iptables = *family == Family::Ipv4 as u8 && table == "filter" && name == "FORWARD";
    let back = "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT";
    let fix = match (user_chain, by_iptables) {
        (true, _) => {
            format!("iptables -I DOCKER-USER -i sp+ -j ACCEPT; iptables -I DOCKER-USER -o sp+ {back}")
        }
        (false, true) => format!("iptables -I FORWARD -i sp+ -j ACCEPT; iptables -I FORWARD -o sp+ {back}"),
        (false, false) => {
            let family = if *family == Family::Inet as u8 { "inet" } else { "ip" };
            format!(
                "nft insert rule {family} {table} {name} iifname \"sp*\" accept; \
                 nft insert rule {family} {table} {name} oifname \"sp*\" ct state established,related accept"
            )
        }
    };
    let detail = format!(
        "the firewall table {table} drops in {name} whatever it does not know: servers may be cut off from the outside"
    );
    Finding::bad(what, detail, fix)
}

/// A number below `/proc/sys`.
fn setting(path: &str) -> Option<u64> {
    fs::read_to_string(Path::new("/proc/sys").join(path)).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_who_drop_are_named_with_the_fix() {
        let chain =
            |family, table: &str, name: &str, hook| Chain { family, table: table.into(), name: name.into(), hook };
        let check = |chains: &[Chain], expected: &[&str]| {
            let fixes: Vec<_> =
                dropping(chains).map(|c| drop_finding("x", c, chains).fix.unwrap_or_default()).collect();
            let starts: Vec<_> = fixes.iter().zip(expected).filter(|(fix, start)| fix.starts_with(**start)).collect();
            assert_eq!((fixes.len(), starts.len()), (expected.len(), expected.len()), "{fixes:?}");
        };
        let forward = chain(2, "filter", "FORWARD", Some((HOOK_FORWARD, true)));
        check(&[], &[]);
        check(&[chain(2, "filter", "FORWARD", Some((HOOK_FORWARD, false)))], &[]);
        check(&[chain(2, "filter", "INPUT", Some((1, true)))], &[]);
        check(&[chain(10, "filter", "FORWARD", Some((HOOK_FORWARD, true)))], &[]);
        check(&[chain(1, "sampan_0a", "forward", Some((HOOK_FORWARD, true)))], &[]);
        check(std::slice::from_ref(&forward), &["iptables -I FORWARD -i sp+ "]);
        check(&[chain(2, "filter", "DOCKER-USER", None), forward], &["iptables -I DOCKER-USER -i sp+ "]);
        let firewalld = chain(1, "firewalld", "filter_FORWARD", Some((HOOK_FORWARD, true)));
        check(&[firewalld], &["nft insert rule inet firewalld filter_FORWARD "]);
    }

    #[test]
    fn this_machine_is_looked_at() {
        let findings = check();
        let missing: Vec<_> = findings.iter().filter(|f| ["nf_tables", "veth"].contains(&&*f.what) && !f.ok).collect();
        assert!(missing.is_empty(), "{missing:?}");
        assert!(findings.iter().all(|finding| finding.ok != finding.fix.is_some()), "{findings:?}");
    }
}
