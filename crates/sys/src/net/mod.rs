//! Networking by way of the kernel's own messages: netlink, and network namespaces to use it in.
//!
//! | module | what it is |
//! |---|---|
//! | [`netlink`] | messages, and the socket they are exchanged on |
//! | [`rtnetlink`] | interfaces, addresses, routes, neighbours |
//! | [`nftables`] | tables, chains and rules of the firewall |
//! | [`ethtool`] | whether a wire has another end |
//! | [`namespace`] | running code in another network namespace |
//!
//! What it deliberately does not do: decide anything (names, addresses and rules are `sampan-network`'s), listen to
//! the kernel's notifications, or run `ip`, `nft` and `iptables`.

pub mod ethtool;
pub mod namespace;
pub mod netlink;
pub mod nftables;
pub mod rtnetlink;
