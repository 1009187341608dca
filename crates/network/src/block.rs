//! Choosing a block of addresses that nobody else uses.

use std::net::{IpAddr, Ipv4Addr};

use sampan_model::Instance;
use sampan_model::instance::{BLOCKS, Block};
use sampan_sys::net::rtnetlink::Destination;

/// How many leading bits the addresses of a block share.
pub(crate) const PREFIX: u8 = 20;

/// What is in use already.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Used<'a> {
    /// What there are routes for.
    pub routes: &'a [Destination],
    /// Addresses that servers will want to reach by another way than this network: the host's name servers.
    pub avoid: &'a [IpAddr],
    /// Other instances' blocks.
    pub taken: &'a [Block],
}

/// How much is asked of a block, most first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Demand {
    /// No route leads to any of it, and its user ids are no other instance's.
    Unused,
    /// No route leads to any of it. (There are fewer runs of user ids than blocks.)
    Unrouted,
    /// No route leads to a part of it, but one may lead to all of it and more: where a company's VPN routes 10.0.0.0/8,
    /// that is the best there is, and takes 4,096 addresses from it.
    Carved,
}

/// The block to claim: the preferred one, else the first after the instance's own number that is free.
pub(crate) fn choose(instance: &Instance, preferred: Option<Block>, used: Used<'_>) -> Option<Block> {
    let first = instance.first_block();
    let all = move || preferred.into_iter().chain((0..BLOCKS).map(move |n| Block((first + n) % BLOCKS)));
    [Demand::Unused, Demand::Unrouted, Demand::Carved]
        .into_iter()
        .find_map(|demand| all().find(|&block| is_free(block, demand, used)))
}

fn is_free(block: Block, demand: Demand, used: Used<'_>) -> bool {
    let shares_ids = |other: &Block| other.server_ids(0) == block.server_ids(0);
    let disturbs = |route: &Destination| match route.prefix {
        0 => false,
        wider if wider < PREFIX && demand == Demand::Carved => false,
        prefix => agree(route.network, block.network(), prefix.min(PREFIX)),
    };
    let avoided = |address: &IpAddr| matches!(address, IpAddr::V4(v4) if agree(*v4, block.network(), PREFIX));
    !(used.taken.iter().any(|other| other.network() == block.network())
        || (demand == Demand::Unused && used.taken.iter().any(shares_ids))
        || used.avoid.iter().any(avoided)
        || used.routes.iter().any(disturbs))
}

/// Whether two addresses share their first `prefix` bits.
fn agree(a: Ipv4Addr, b: Ipv4Addr, prefix: u8) -> bool {
    (u32::from(a) ^ u32::from(b)).checked_shr(32 - u32::from(prefix)).unwrap_or(0) == 0
}

/// The block whose gateway has this address.
pub(crate) fn of_gateway(address: Ipv4Addr) -> Option<Block> {
    let number = u32::from(address).checked_sub(u32::from(Block(0).network()))? / (1 << (32 - PREFIX));
    Some(Block(number)).filter(|block| number < BLOCKS && block.gateway() == address)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn blocks_in_use_are_passed_over() {
        let instance = Instance::of_root(Path::new("/var/lib/sampan"));
        let first = instance.first_block();
        let block = |n: u32| Block((first + n) % BLOCKS);
        let route = |network: Ipv4Addr, prefix| Destination { network, prefix };
        let anywhere = route(Ipv4Addr::UNSPECIFIED, 0);
        let check = |preferred, routes: &[Destination], avoid: &[IpAddr], taken: &[Block], expected: Option<Block>| {
            let used = Used { routes, avoid, taken };
            assert_eq!(choose(&instance, preferred, used), expected, "{preferred:?} {used:?}");
        };
        check(None, &[anywhere], &[], &[], Some(block(0)));
        check(Some(block(7)), &[anywhere], &[], &[], Some(block(7)));
        check(Some(block(7)), &[route(block(7).server_address(9), 32)], &[], &[], Some(block(0)));
        check(None, &[route(block(0).network(), 19)], &[], &[], Some(block(if block(0).0 % 2 == 0 { 2 } else { 1 })));
        check(None, &[route(block(0).gateway(), 32)], &[], &[], Some(block(1)));
        check(None, &[], &[block(0).server_address(5).into(), "::1".parse().expect("address")], &[], Some(block(1)));
        check(None, &[], &[], &[block(0)], Some(block(1)));
        // everything is routed elsewhere: between the parts that are routed by themselves
        check(None, &[route(Ipv4Addr::new(10, 0, 0, 0), 8), route(block(0).network(), 24)], &[], &[], Some(block(1)));
        check(None, &[route(Ipv4Addr::new(10, 0, 0, 0), 8)], &[], &(0..BLOCKS).map(Block).collect::<Vec<_>>(), None);
    }

    #[test]
    fn instances_have_user_ids_of_their_own_while_there_are_enough() {
        let instance = Instance::of_root(Path::new("/var/lib/sampan"));
        let mut taken: Vec<Block> = Vec::new();
        for _ in 0..12 {
            let used = Used { routes: &[], avoid: &[], taken: &taken };
            let block = choose(&instance, None, used).expect("a block");
            assert!(taken.iter().all(|other| other.server_ids(0) != block.server_ids(0)));
            taken.push(block);
        }
        assert!(choose(&instance, None, Used { routes: &[], avoid: &[], taken: &taken }).is_some());
    }

    #[test]
    fn a_gateway_tells_its_block() {
        for block in [0, 1, 500, BLOCKS - 1].map(Block) {
            assert_eq!(of_gateway(block.gateway()), Some(block));
            assert_eq!(of_gateway(block.network()), None);
        }
        for address in ["10.191.255.1", "11.0.0.1", "192.168.0.1"] {
            assert_eq!(of_gateway(address.parse().expect("address")), None, "{address}");
        }
    }
}
