//! Reaching what listens on 127.0.0.1 only.

use std::net::Ipv4Addr;

use sampan_sys::net::netlink::{NetlinkError, Protocol, Socket};
use sampan_sys::net::nftables::{Entry, Family, Rule, Table, Test, Transaction};
use sampan_sys::net::rtnetlink::{Ipv4Switch, set_ipv4};

use crate::wire::{INSIDE, INSIDE_INDEX};

/// Redirects TCP connections that the gateway makes to `port` of this network namespace to 127.0.0.1.
///
/// ```text
/// table ip sampan_loopback_PORT { chain in { type nat hook prerouting priority -100
///     iifname "eth0" ip saddr GATEWAY tcp dport PORT dnat to 127.0.0.1:PORT } }
/// ```
///
/// The kernel takes 127.0.0.1 as a destination from outside for an error unless `route_localnet` is on for the
/// interface. That opens nothing to others: what comes by this wire has passed the host, and only the host's own
/// connections are redirected. A table for each port, so that doing it again changes nothing.
pub(crate) fn redirect(gateway: Ipv4Addr, port: u16) -> Result<(), NetlinkError> {
    Socket::open(Protocol::Route)?.all(&[set_ipv4(INSIDE_INDEX, &[(Ipv4Switch::RouteLocalnet, 1)])])?;
    let name = format!("sampan_loopback_{port}");
    let table = Table { family: Family::Ipv4, name: &name };
    let rule = Rule::new()
        .comes_by(Test::Is, INSIDE)
        .source(Test::Is, gateway, 32)
        .tcp_to(port)
        .redirect_to(Ipv4Addr::LOCALHOST, port);
    Transaction::new()
        .renew_table(table)
        .add_entry(table, "in", Entry::NatDestination)
        .add_rule(table, "in", &rule)
        .commit(&mut Socket::open(Protocol::Netfilter)?)
}
