//! Interfaces, addresses, routes and neighbours (`rtnetlink(7)`, `linux/rtnetlink.h`, `linux/if_link.h`).
//!
//! Functions that make a [`Message`] send nothing: whoever calls puts as many of them as belong together into one
//! [`Socket::all`]. That works across messages that build on one another because the index of a new interface can be
//! chosen beforehand, instead of being asked for in between.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd as _, BorrowedFd};

use super::netlink::{CREATE, EXCLUSIVE, Message, NetlinkError, REPLACE, Socket, attributes, ipv4, text};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEIGH: u16 = 28;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_GROUP: u16 = 27;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_INET_CONF: u16 = 1;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
const IFF_UP: u32 = 1;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;
const RTN_UNICAST: u8 = 1;
const RTN_UNREACHABLE: u8 = 7;
const RT_TABLE_MAIN: u8 = 254;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RTNH_F_ONLINK: u32 = 4;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_PERMANENT: u16 = 0x80;

const AF_UNSPEC: u8 = 0;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// The index of `lo` in every network namespace.
pub const LOOPBACK: u32 = 1;

/// An interface's hardware address.
pub type Mac = [u8; 6];

/// A wire with two ends.
#[derive(Debug, Clone, Copy)]
pub struct Veth<'a> {
    /// The near end's name.
    pub name: &'a str,
    /// The near end's index: one that no interface of its namespace has.
    pub index: u32,
    /// The near end's hardware address.
    pub mac: Mac,
    /// The group that the near end is in, to be removed with; 0 for none.
    pub group: u32,
    /// The far end's name.
    pub peer_name: &'a str,
    /// The far end's index, other than `index`: the kernel takes equal ones for an interface without another end, and
    /// then is up to a second late to see that both are up.
    pub peer_index: u32,
    /// The far end's hardware address.
    pub peer_mac: Mac,
    /// The far end's network namespace. The message is to be sent while it is open.
    pub peer_netns: BorrowedFd<'a>,
}

/// A switch of an interface for IPv4: `/proc/sys/net/ipv4/conf/NAME/…`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Ipv4Switch {
    /// Forward what comes in.
    Forwarding = 1,
    /// Answer ARP for others.
    ProxyArp = 3,
    /// Believe ICMP redirects.
    AcceptRedirects = 4,
    /// Send ICMP redirects.
    SendRedirects = 6,
    /// Drop what comes in with a source that is not routed back the same way: 0 no, 1 yes, 2 not routed at all.
    RpFilter = 8,
    /// Treat 127.0.0.0/8 as any other address.
    RouteLocalnet = 26,
}

/// Where a route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// To the interface of this index, directly.
    Interface(u32),
    /// To a gateway behind the interface of this index, taken to be there whatever its addresses say.
    Gateway(Ipv4Addr, u32),
    /// Nowhere: what goes there is refused.
    Unreachable,
}

/// An IPv4 route in the main table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The first address it is for.
    pub network: Ipv4Addr,
    /// How many leading bits of it count.
    pub prefix: u8,
    /// Where it leads.
    pub via: Via,
    /// The source address for what starts here.
    pub source: Option<Ipv4Addr>,
}

/// An interface that there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
}

/// An address that there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// Its interface's index.
    pub index: u32,
    /// The address.
    pub address: IpAddr,
    /// How many leading bits are its network's.
    pub prefix: u8,
}

/// What an IPv4 route that there is, in whichever table, is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination {
    /// The first address.
    pub network: Ipv4Addr,
    /// How many leading bits of it count.
    pub prefix: u8,
}

/// Makes a wire. Both ends are down.
pub fn create_veth(veth: &Veth<'_>) -> Message {
    let queues = |m: Message| m.u32(IFLA_NUM_TX_QUEUES, 1).u32(IFLA_NUM_RX_QUEUES, 1);
    let end = |m: Message, name: &str, mac: &Mac| queues(m.text(IFLA_IFNAME, name).bytes(IFLA_ADDRESS, mac));
    let what = format!("create interface {}", veth.name);
    let message = Message::new(what, RTM_NEWLINK, CREATE | EXCLUSIVE, &link_header(veth.index, 0));
    // one queue an end: the kernel would reserve one a processor
    end(message, veth.name, &veth.mac).u32(IFLA_GROUP, veth.group).nested(IFLA_LINKINFO, |m| {
        m.text(IFLA_INFO_KIND, "veth").nested(IFLA_INFO_DATA, |m| {
            m.nested(VETH_INFO_PEER, |m| {
                end(m.raw(&link_header(veth.peer_index, 0)), veth.peer_name, &veth.peer_mac)
                    .u32(IFLA_NET_NS_FD, veth.peer_netns.as_raw_fd() as u32)
            })
        })
    })
}

/// Makes a bridge without ports. It is down.
pub fn create_bridge(name: &str) -> Message {
    Message::new(format!("create interface {name}"), RTM_NEWLINK, CREATE | EXCLUSIVE, &link_header(0, 0))
        .text(IFLA_IFNAME, name)
        .nested(IFLA_LINKINFO, |m| m.text(IFLA_INFO_KIND, "bridge"))
}

/// Removes an interface, and with it its addresses, routes and neighbours, and a wire's other end.
pub fn delete_link(name: &str) -> Message {
    Message::new(format!("remove interface {name}"), RTM_DELLINK, 0, &link_header(0, 0)).text(IFLA_IFNAME, name)
}

/// Removes all interfaces of a group at once: it takes as long as removing one, which is dozens of milliseconds of waiting
/// for grace periods. Refused with `ENODEV` where there is none.
pub fn delete_group(group: u32) -> Message {
    Message::new("remove the interfaces of a group", RTM_DELLINK, 0, &link_header(0, 0)).u32(IFLA_GROUP, group)
}

/// Switches an interface on.
pub fn link_up(index: u32) -> Message {
    Message::new(format!("switch interface {index} on"), RTM_SETLINK, 0, &link_header(index, IFF_UP))
}

/// Sets an interface's switches for IPv4: the same as writing to `/proc/sys/net/ipv4/conf`, without needing it.
pub fn set_ipv4(index: u32, switches: &[(Ipv4Switch, u32)]) -> Message {
    Message::new(format!("set the IPv4 switches of interface {index}"), RTM_SETLINK, 0, &link_header(index, 0)).nested(
        IFLA_AF_SPEC,
        |m| {
            m.nested(u16::from(AF_INET), |m| {
                m.nested(IFLA_INET_CONF, |m| switches.iter().fold(m, |m, &(switch, value)| m.u32(switch as u16, value)))
            })
        },
    )
}

/// Keeps an interface from giving itself an IPv6 address when it is switched on. Refused with `EAFNOSUPPORT` where
/// there is no IPv6.
pub fn no_ipv6_address(index: u32) -> Message {
    Message::new(format!("keep interface {index} without IPv6 address"), RTM_SETLINK, 0, &link_header(index, 0))
        .nested(IFLA_AF_SPEC, |m| {
            m.nested(u16::from(AF_INET6), |m| m.u8(IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE))
        })
}

/// Gives an interface an address. Nothing changes where it has it.
pub fn add_address(index: u32, address: Ipv4Addr, prefix: u8) -> Message {
    let mut header = [AF_INET, prefix, 0, RT_SCOPE_UNIVERSE, 0, 0, 0, 0];
    header[4..].copy_from_slice(&index.to_ne_bytes());
    let what = format!("give interface {index} the address {address}/{prefix}");
    Message::new(what, RTM_NEWADDR, CREATE | REPLACE, &header).ipv4(IFA_LOCAL, address).ipv4(IFA_ADDRESS, address)
}

/// Adds a route; refused with `EEXIST` where there is one to the same destination.
pub fn add_route(route: &Route) -> Message {
    route_message(route, "add", RTM_NEWROUTE, CREATE | EXCLUSIVE)
}

/// Adds a route, in the place of one to the same destination.
pub fn replace_route(route: &Route) -> Message {
    route_message(route, "set", RTM_NEWROUTE, CREATE | REPLACE)
}

/// Removes a route; refused with `ESRCH` where there is none.
pub fn delete_route(route: &Route) -> Message {
    route_message(route, "remove", RTM_DELROUTE, 0)
}

fn route_message(route: &Route, verb: &str, kind: u16, flags: u16) -> Message {
    let (scope, class, nexthop_flags) = match route.via {
        Via::Interface(_) => (RT_SCOPE_LINK, RTN_UNICAST, 0),
        Via::Gateway(..) => (RT_SCOPE_UNIVERSE, RTN_UNICAST, RTNH_F_ONLINK),
        Via::Unreachable => (RT_SCOPE_UNIVERSE, RTN_UNREACHABLE, 0),
    };
    // family, destination and source bits, tos, table, protocol (4: "static"), scope, type, flags
    let mut header = [AF_INET, route.prefix, 0, 0, RT_TABLE_MAIN, 4, scope, class, 0, 0, 0, 0];
    header[8..].copy_from_slice(&nexthop_flags.to_ne_bytes());
    let what = format!("{verb} the route to {}/{}", route.network, route.prefix);
    let message = Message::new(what, kind, flags, &header).ipv4(RTA_DST, route.network);
    let message = match route.via {
        Via::Interface(index) => message.u32(RTA_OIF, index),
        Via::Gateway(gateway, index) => message.ipv4(RTA_GATEWAY, gateway).u32(RTA_OIF, index),
        Via::Unreachable => message,
    };
    match route.source {
        Some(source) => message.ipv4(RTA_PREFSRC, source),
        None => message,
    }
}

/// Says for good which hardware address has an IPv4 address behind an interface, in the place of what was said before.
pub fn set_neighbour(index: u32, address: Ipv4Addr, mac: Mac) -> Message {
    let mut header = [AF_INET, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..10].copy_from_slice(&NUD_PERMANENT.to_ne_bytes());
    Message::new(format!("set the neighbour {address}"), RTM_NEWNEIGH, CREATE | REPLACE, &header)
        .ipv4(NDA_DST, address)
        .bytes(NDA_LLADDR, &mac)
}

/// Lists the interfaces.
///
/// # Errors
/// The kernel's.
pub fn links(socket: &mut Socket) -> Result<Vec<Link>, NetlinkError> {
    let message = Message::new("list the interfaces", RTM_GETLINK, 0, &link_header(0, 0));
    socket.dump(&message, read_link)
}

/// The interface of a name.
///
/// # Errors
/// The kernel's; `ENODEV` where there is none.
pub fn link(socket: &mut Socket, name: &str) -> Result<Link, NetlinkError> {
    let what = format!("find interface {name}");
    let message = Message::new(what.clone(), RTM_GETLINK, 0, &link_header(0, 0)).text(IFLA_IFNAME, name);
    let mut found = None;
    socket.ask(&message, |body| found = read_link(body))?;
    found.ok_or(NetlinkError::Unreadable { what })
}

fn read_link(body: &[u8]) -> Option<Link> {
    let index = u32::from_ne_bytes(*body.get(4..)?.first_chunk()?);
    let name = attributes(body.get(16..)?).find(|(kind, _)| *kind == IFLA_IFNAME)?.1;
    Some(Link { index, name: text(name) })
}

/// Lists the addresses.
///
/// # Errors
/// The kernel's.
pub fn addresses(socket: &mut Socket) -> Result<Vec<Address>, NetlinkError> {
    let message = Message::new("list the addresses", RTM_GETADDR, 0, &[AF_UNSPEC, 0, 0, 0, 0, 0, 0, 0]);
    socket.dump(&message, |body| {
        let (head, rest) = body.split_first_chunk::<8>()?;
        let index = u32::from_ne_bytes([head[4], head[5], head[6], head[7]]);
        // IPv4 has its own end in IFA_LOCAL, and a point-to-point interface's other end in IFA_ADDRESS
        let own = attributes(rest).find(|(kind, _)| *kind == IFA_LOCAL);
        let (_, value) = own.or_else(|| attributes(rest).find(|(kind, _)| *kind == IFA_ADDRESS))?;
        let address = match head[0] {
            AF_INET => IpAddr::V4(ipv4(value)?),
            AF_INET6 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?)),
            _ => return None,
        };
        Some(Address { index, address, prefix: head[1] })
    })
}

/// Lists what there are IPv4 routes for, in all tables, addresses of this machine included.
///
/// # Errors
/// The kernel's.
pub fn destinations(socket: &mut Socket) -> Result<Vec<Destination>, NetlinkError> {
    let message = Message::new("list the routes", RTM_GETROUTE, 0, &[AF_INET, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    socket.dump(&message, |body| {
        let (head, rest) = body.split_first_chunk::<12>()?;
        let value = attributes(rest).find(|(kind, _)| *kind == RTA_DST);
        // the default route has no destination
        let network = value.map_or(Some(Ipv4Addr::UNSPECIFIED), |(_, value)| ipv4(value))?;
        (head[0] == AF_INET).then_some(Destination { network, prefix: head[1] })
    })
}

/// `struct ifinfomsg`: family, type, index, flags, the flags that are meant.
fn link_header(index: u32, flags: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..].copy_from_slice(&flags.to_ne_bytes());
    header
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::super::ethtool::has_carrier;
    use super::super::namespace::{fresh, run_in};
    use super::super::netlink::Protocol;
    use super::*;

    #[test]
    fn a_wire_is_made_configured_and_removed_in_few_messages() {
        let (near, far) = (fresh().expect("namespace (as root)"), fresh().expect("namespace"));
        let mut socket = run_in(near.as_fd(), || Socket::open(Protocol::Route)).expect("enter").expect("socket");
        let (near_mac, far_mac) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let veth = Veth {
            name: "near",
            index: 1000,
            mac: near_mac,
            group: 77,
            peer_name: "eth0",
            peer_index: 100,
            peer_mac: far_mac,
            peer_netns: far.as_fd(),
        };
        let address = Ipv4Addr::new(10, 9, 8, 7);
        let route = Route { network: address, prefix: 32, via: Via::Interface(1000), source: None };
        let messages = [
            create_veth(&veth),
            no_ipv6_address(1000),
            link_up(1000),
            set_ipv4(1000, &[(Ipv4Switch::RpFilter, 1), (Ipv4Switch::Forwarding, 1)]),
            set_neighbour(1000, address, far_mac),
            add_route(&route),
        ];
        socket.all(&messages).expect("wire");
        assert_eq!(link(&mut socket, "near").expect("link").index, 1000);
        let there = destinations(&mut socket).expect("routes");
        assert!(there.contains(&Destination { network: address, prefix: 32 }), "{there:?}");
        let again = socket.all(&[add_route(&route)]).expect_err("twice");
        assert_eq!(again.errno(), Some(rustix::io::Errno::EXIST));

        let inside = || {
            let mut socket = Socket::open(Protocol::Route).expect("socket");
            socket.all(&[link_up(LOOPBACK), link_up(100), add_address(100, address, 32)]).expect("far end");
            let there = addresses(&mut socket).expect("addresses");
            assert!(there.contains(&Address { index: 100, address: address.into(), prefix: 32 }), "{there:?}");
        };
        assert!(!has_carrier(&socket, "near").expect("carrier"));
        run_in(far.as_fd(), inside).expect("enter");
        assert!(has_carrier(&socket, "near").expect("carrier"));
        has_carrier(&socket, "nowhere").expect_err("no such interface");

        for removal in [delete_link("near"), delete_group(77)] {
            socket.all(&[removal]).expect("remove");
            let gone = link(&mut socket, "near").expect_err("gone");
            assert_eq!(gone.errno(), Some(rustix::io::Errno::NODEV));
            assert!(links(&mut socket).expect("links").iter().all(|link| link.name != "near"));
            socket.all(&messages).expect("again");
        }
    }
}
