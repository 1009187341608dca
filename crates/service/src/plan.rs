//! What to do next for one service: pure, deterministic, without input or output.
//!
//! The rules, in the order in which they matter:
//!
//! 1. Requests go to every ready replica of the intended version, and to those of other versions for as long as the
//!    intended one has not all its replicas ready.
//! 2. Replicas of other versions go when the intended version has all its replicas ready.
//! 3. On a server that the two would share, the other goes first: nothing can answer at one port beside it.
//! 4. Replicas that are missing are created, under the lowest free numbers; ended ones are started again.
//! 5. A service that is not intended any more has nothing.

use std::collections::BTreeSet;

/// What is wanted of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intended {
    /// The version that is to run.
    pub version: u64,
    /// How many replicas of it.
    pub replicas: u32,
    /// Whether replicas may be started now: not while a crashed one waits for its next try.
    pub may_start: bool,
}

/// One replica as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observed {
    /// Its number, unique within the service.
    pub number: u32,
    /// Its version.
    pub version: u64,
    /// Where it is.
    pub phase: Phase,
    /// It is on the server that replicas of the intended version are to be on, and so has their address and ports.
    pub in_the_way: bool,
}

/// Where a replica is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Created or running, and not ready yet.
    Starting,
    /// Ready for requests.
    Ready,
    /// Ended, and there to be started again.
    Ended,
    /// On its way out: requests are no longer sent to it.
    Retiring,
}

/// What to do, by the replicas' numbers, each list in rising order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Send requests to these, and to no others.
    pub route: Vec<u32>,
    /// Create these, of the intended version.
    pub create: Vec<u32>,
    /// Start these again.
    pub restart: Vec<u32>,
    /// Drain, stop and remove these.
    pub retire: Vec<u32>,
    /// All that is intended is ready.
    pub complete: bool,
    /// Nothing is started until a replica of another version has gone.
    pub blocked: bool,
}

/// Plans.
pub fn plan(intended: Option<Intended>, observed: &[Observed]) -> Plan {
    let staying = || observed.iter().filter(|replica| replica.phase != Phase::Retiring);
    let Some(intended) = intended else {
        return Plan { retire: sorted(staying().map(|replica| replica.number)), complete: true, ..Plan::default() };
    };
    let is_current = |replica: &&Observed| replica.version == intended.version;
    let wanted = intended.replicas as usize;

    // those nearest to ready stay, then those with the lowest numbers
    let mut current: Vec<&Observed> = staying().filter(is_current).collect();
    current.sort_by_key(|replica| (nearness(replica.phase), replica.number));
    let surplus = current.split_off(wanted.min(current.len()));

    let ready = current.iter().filter(|replica| replica.phase == Phase::Ready).count();
    let complete = ready == wanted;
    let others = staying().filter(|replica| !is_current(replica));
    let (kept, superseded): (Vec<&Observed>, Vec<&Observed>) =
        others.partition(|replica| !complete && replica.phase != Phase::Ended && !replica.in_the_way);
    let is_blocked = observed.iter().any(|replica| !is_current(&replica) && replica.in_the_way);

    let route = current.iter().chain(&kept).filter(|replica| replica.phase == Phase::Ready);
    let mut plan = Plan {
        route: sorted(route.map(|replica| replica.number)),
        retire: sorted(surplus.iter().chain(&superseded).map(|replica| replica.number)),
        complete,
        blocked: is_blocked,
        ..Plan::default()
    };
    if intended.may_start && !is_blocked {
        let ended = current.iter().filter(|replica| replica.phase == Phase::Ended);
        plan.restart = sorted(ended.map(|replica| replica.number));
        let taken: BTreeSet<u32> = observed.iter().map(|replica| replica.number).collect();
        plan.create = (1..).filter(|number| !taken.contains(number)).take(wanted - current.len()).collect();
    }
    plan
}

fn nearness(phase: Phase) -> u8 {
    match phase {
        Phase::Ready => 0,
        Phase::Starting => 1,
        Phase::Ended => 2,
        Phase::Retiring => 3,
    }
}

fn sorted(numbers: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut numbers: Vec<u32> = numbers.collect();
    numbers.sort_unstable();
    numbers
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn observe(number: u32, version: u64, phase: Phase) -> Observed {
        Observed { number, version, phase, in_the_way: false }
    }

    #[test]
    fn on_a_shared_server_the_other_goes_first() {
        let intended = Some(Intended { version: 2, replicas: 1, may_start: true });
        let old = |phase| Observed { in_the_way: true, ..observe(1, 1, phase) };
        let first = plan(intended, &[old(Phase::Ready)]);
        assert_eq!((first.retire, first.create, first.route, first.blocked), (vec![1], vec![], vec![], true));
        let then = plan(intended, &[old(Phase::Retiring)]);
        assert_eq!((then.retire, then.create, then.blocked), (vec![], vec![], true));
        let last = plan(intended, &[]);
        assert_eq!((last.create, last.blocked), (vec![1], false));
    }

    fn check(intended: Option<(u64, u32)>, observed: &[(u32, u64, Phase)], expected: &str) {
        let intended = intended.map(|(version, replicas)| Intended { version, replicas, may_start: true });
        let observed: Vec<_> =
            observed.iter().map(|&(number, version, phase)| observe(number, version, phase)).collect();
        let plan = plan(intended, &observed);
        let text = format!(
            "route {:?} create {:?} restart {:?} retire {:?}{}",
            plan.route,
            plan.create,
            plan.restart,
            plan.retire,
            if plan.complete { " complete" } else { "" }
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn plans() {
        use Phase::{Ended, Ready, Retiring, Starting};
        check(Some((1, 1)), &[], "route [] create [1] restart [] retire []");
        check(Some((1, 1)), &[(1, 1, Starting)], "route [] create [] restart [] retire []");
        check(Some((1, 1)), &[(1, 1, Ready)], "route [1] create [] restart [] retire [] complete");
        check(Some((2, 1)), &[(1, 1, Ready)], "route [1] create [2] restart [] retire []");
        check(Some((2, 1)), &[(1, 1, Ready), (2, 2, Starting)], "route [1] create [] restart [] retire []");
        check(Some((2, 1)), &[(1, 1, Ready), (2, 2, Ready)], "route [2] create [] restart [] retire [1] complete");
        check(Some((2, 1)), &[(1, 1, Retiring), (2, 2, Ready)], "route [2] create [] restart [] retire [] complete");
        check(Some((2, 1)), &[(1, 1, Ended)], "route [] create [2] restart [] retire [1]");
        check(Some((1, 2)), &[(1, 1, Ready), (2, 1, Ended)], "route [1] create [] restart [2] retire []");
        check(Some((1, 1)), &[(1, 1, Starting), (2, 1, Ready)], "route [2] create [] restart [] retire [1] complete");
        check(None, &[(1, 1, Ready), (2, 1, Retiring)], "route [] create [] restart [] retire [1] complete");
    }

    fn phases() -> impl Strategy<Value = Phase> {
        prop_oneof![Just(Phase::Starting), Just(Phase::Ready), Just(Phase::Ended), Just(Phase::Retiring)]
    }

    proptest! {
        /// From any state, planning and executing comes to rest with what is intended, and on the way there are never
        /// fewer routed replicas than the smaller of what was ready and what is intended.
        #[test]
        fn converges(
            replicas in 1u32..5,
            start in proptest::collection::btree_map(1u32..9, (1u64..4, phases()), 0..8),
        ) {
            let intended = Intended { version: 3, replicas, may_start: true };
            let mut world: BTreeMap<u32, (u64, Phase)> = start;
            let mut least = 0;
            for round in 0..20 {
                let observed: Vec<_> = world
                    .iter()
                    .map(|(&number, &(version, phase))| observe(number, version, phase))
                    .collect();
                let plan = plan(Some(intended), &observed);
                prop_assert!(plan.route.len() >= least, "round {round}: {plan:?}");
                least = least.max(plan.route.len().min(replicas as usize));
                // nothing that is routed to goes
                prop_assert!(plan.route.iter().all(|number| !plan.retire.contains(number)));
                // the slow things are done by the next round
                for (_, phase) in world.values_mut() {
                    if *phase == Phase::Starting {
                        *phase = Phase::Ready;
                    }
                }
                world.retain(|_, (_, phase)| *phase != Phase::Retiring);
                for number in &plan.retire {
                    if let Some((_, phase)) = world.get_mut(number) {
                        *phase = Phase::Retiring;
                    }
                }
                for number in plan.create {
                    prop_assert!(!world.contains_key(&number));
                    world.insert(number, (3, Phase::Starting));
                }
                for number in plan.restart {
                    world.insert(number, (3, Phase::Starting));
                }
            }
            prop_assert_eq!(world.len(), replicas as usize);
            prop_assert!(world.values().all(|&(version, phase)| version == 3 && phase == Phase::Ready));
        }
    }
}
