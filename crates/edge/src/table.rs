//! The table as requests use it: host name to service, service to its least loaded replica, and the count of what is
//! under way at each address.
//!
//! A [`Table`] is immutable but for its counters. The counters belong to addresses, not to tables ([`Loads`]): a
//! request that began under one table is still counted under the next, which is how a draining replica is seen to be
//! empty.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use sampan_model::{EdgeTable, RoutedService};
use tokio::sync::Notify;

/// One table, ready to route by.
#[derive(Debug, Default)]
pub(crate) struct Table {
    services: HashMap<String, Service>,
    addresses: HashSet<SocketAddr>,
    /// Where published ports lead, by their sockets' keys.
    ports: HashMap<String, SocketAddr>,
    /// Where names that are not ours are asked, in this order.
    pub(crate) resolvers: Vec<SocketAddr>,
}

/// A service and its ready replicas.
#[derive(Debug)]
pub(crate) struct Service {
    replicas: Vec<Arc<Replica>>,
    /// Where the next search begins, so that equally loaded replicas take turns.
    turn: AtomicUsize,
}

/// A ready replica.
#[derive(Debug)]
pub(crate) struct Replica {
    /// The name people know it by.
    pub(crate) name: String,
    /// The service it is of.
    pub(crate) service: String,
    /// Where it answers HTTP.
    pub(crate) address: SocketAddr,
    load: Arc<Load>,
}

/// What is under way at one address.
#[derive(Debug)]
pub(crate) struct Load {
    in_flight: AtomicU64,
    /// Whether the address left the table: its requests' ends are told then.
    left: AtomicBool,
    drained: Arc<Notify>,
}

impl Table {
    /// The table to route by. Counters come from `loads`, new ones are made there.
    pub(crate) fn new(table: &EdgeTable, loads: &mut Loads) -> Self {
        let addresses = table.services.iter().flat_map(|service| &service.upstreams).map(|up| up.address).collect();
        loads.keep(&addresses);
        let services = table
            .services
            .iter()
            .map(|service| (service.name.as_str().to_owned(), Service::new(service, loads)))
            .collect();
        let ports = table.ports.iter().map(|port| (port.key.clone(), port.upstream)).collect();
        Self { services, addresses, ports, resolvers: table.resolvers.clone() }
    }

    /// The service of this name (lower case).
    pub(crate) fn service(&self, name: &str) -> Option<&Service> {
        self.services.get(name)
    }

    /// The only service and its name, where there is exactly one.
    pub(crate) fn only_service(&self) -> Option<(&str, &Service)> {
        let mut services = self.services.iter();
        let (name, service) = services.next()?;
        services.next().is_none().then_some((name, service))
    }

    /// The names of all services, sorted.
    pub(crate) fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.services.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    /// Where the published port of this socket leads.
    pub(crate) fn port(&self, key: &str) -> Option<SocketAddr> {
        self.ports.get(key).copied()
    }

    /// Whether a request may be sent to this address.
    pub(crate) fn holds(&self, address: SocketAddr) -> bool {
        self.addresses.contains(&address)
    }
}

impl Service {
    fn new(service: &RoutedService, loads: &mut Loads) -> Self {
        let replicas = service.upstreams.iter().map(|upstream| {
            Arc::new(Replica {
                name: upstream.replica.as_str().to_owned(),
                service: service.name.as_str().to_owned(),
                address: upstream.address,
                load: loads.of(upstream.address),
            })
        });
        Self { replicas: replicas.collect(), turn: AtomicUsize::new(0) }
    }

    /// The least loaded replica that is not in `tried`, or the least loaded of all where every one is; counted from
    /// this moment on. None: the service has no ready replica.
    pub(crate) fn choose(&self, tried: &[SocketAddr]) -> Option<Flight> {
        let start = self.turn.fetch_add(1, Ordering::Relaxed);
        let least = |among: &dyn Fn(&Replica) -> bool| {
            (0..self.replicas.len())
                .map(|offset| &self.replicas[start.wrapping_add(offset) % self.replicas.len()])
                .filter(|replica| among(replica))
                .min_by_key(|replica| replica.load.in_flight.load(Ordering::Relaxed))
        };
        let replica = least(&|replica| !tried.contains(&replica.address)).or_else(|| least(&|_| true))?;
        Some(Flight::begin(Arc::clone(replica)))
    }
}

/// One request or upgraded connection under way; counted until it is dropped.
#[derive(Debug)]
pub(crate) struct Flight {
    /// Where it goes.
    pub(crate) replica: Arc<Replica>,
}

impl Flight {
    fn begin(replica: Arc<Replica>) -> Self {
        replica.load.in_flight.fetch_add(1, Ordering::SeqCst);
        Self { replica }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let load = &self.replica.load;
        load.in_flight.fetch_sub(1, Ordering::SeqCst);
        // Sequentially consistent on both sides: either this sees that the address left, or whoever marked it so sees
        // the lower count.
        if load.left.load(Ordering::SeqCst) {
            load.drained.notify_one();
        }
    }
}

/// The counters of every address that is in the table, or has left it and is not empty yet.
#[derive(Debug)]
pub(crate) struct Loads {
    by_address: HashMap<SocketAddr, Arc<Load>>,
    drained: Arc<Notify>,
}

impl Loads {
    /// None yet. `drained` is notified each time something ends at an address that has left.
    pub(crate) fn new(drained: Arc<Notify>) -> Self {
        Self { by_address: HashMap::new(), drained }
    }

    fn keep(&mut self, addresses: &HashSet<SocketAddr>) {
        for (address, load) in &self.by_address {
            load.left.store(!addresses.contains(address), Ordering::SeqCst);
        }
    }

    fn of(&mut self, address: SocketAddr) -> Arc<Load> {
        let drained = &self.drained;
        let load = self.by_address.entry(address).or_insert_with(|| {
            Arc::new(Load { in_flight: AtomicU64::new(0), left: AtomicBool::new(false), drained: Arc::clone(drained) })
        });
        Arc::clone(load)
    }

    /// What is under way, by address, without the empty ones. Forgets the addresses that have left and are empty: to be
    /// called only when no thread routes by the table before any more.
    pub(crate) fn in_flight(&mut self) -> BTreeMap<SocketAddr, u64> {
        let mut busy = BTreeMap::new();
        self.by_address.retain(|address, load| {
            let left = load.left.load(Ordering::SeqCst);
            let count = load.in_flight.load(Ordering::SeqCst);
            if count > 0 {
                busy.insert(*address, count);
            }
            count > 0 || !left
        });
        busy
    }
}

#[cfg(test)]
mod tests {
    use sampan_model::{ContainerName, Label, Upstream};

    use super::*;

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 80))
    }

    fn table(hosts: &[u8]) -> EdgeTable {
        let name = Label::parse("web").unwrap();
        let upstreams = hosts.iter().map(|&host| Upstream {
            replica: ContainerName::of_replica(&name, u32::from(host)),
            address: address(host),
        });
        let services = vec![RoutedService { name: name.clone(), upstreams: upstreams.collect() }];
        EdgeTable { services, ..EdgeTable::default() }
    }

    #[test]
    fn the_least_loaded_is_chosen_and_equals_take_turns() {
        let mut loads = Loads::new(Arc::default());
        let table = Table::new(&table(&[1, 2, 3]), &mut loads);
        let web = table.service("web").unwrap();
        let first: Vec<_> = (0..3).map(|_| web.choose(&[]).unwrap()).collect();
        let mut chosen: Vec<_> = first.iter().map(|flight| flight.replica.address).collect();
        chosen.sort();
        assert_eq!(chosen, [address(1), address(2), address(3)]);

        let [_one, two, _three] = <[Flight; 3]>::try_from(first).unwrap();
        let freed = two.replica.address;
        drop(two);
        assert_eq!(web.choose(&[]).unwrap().replica.address, freed);
        assert_ne!(web.choose(&[freed]).unwrap().replica.address, freed);
        let all = [address(1), address(2), address(3)];
        assert_eq!(web.choose(&all).unwrap().replica.address, freed, "all were tried: the least loaded again");
    }

    #[test]
    fn what_left_is_counted_until_it_is_empty() {
        let drained = Arc::new(Notify::new());
        let mut loads = Loads::new(drained);
        let old = Table::new(&table(&[1]), &mut loads);
        let flight = old.service("web").unwrap().choose(&[]).unwrap();
        let _new = Table::new(&table(&[2]), &mut loads);
        assert_eq!(loads.in_flight(), BTreeMap::from([(address(1), 1)]));
        drop(flight);
        assert_eq!(loads.in_flight(), BTreeMap::new());
        assert_eq!(loads.by_address.keys().collect::<Vec<_>>(), [&address(2)]);
    }

    #[test]
    fn a_service_without_replicas_chooses_none() {
        let table = Table::new(&table(&[]), &mut Loads::new(Arc::default()));
        assert!(table.service("web").unwrap().choose(&[]).is_none());
    }
}
