//! The instance's firewall table, which is also its claim of a block, and its part in the host's forwarding.
//!
//! ```text
//! table inet sampan_TAG {
//!     chain block_17 {}                      # the claim: this instance has block 17
//!     chain forwarding_was_off {}            # whoever closes last switches it off again
//!     chain redirects_were_refused {}        # and this, which the kernel flips along with it
//!     chain early   { type filter hook prerouting priority 0
//!         iifname "spTAG-*" meta nfproto ipv6 drop }                             # router advertisements, too
//!     chain forward { type filter hook forward priority 0
//!         iifname "spTAG-*" ip saddr != BLOCK drop
//!         oifname "spTAG-*" ct state established,related accept
//!         oifname "spTAG-*" drop }                                               # from outside, and from other servers
//!     chain out     { type nat hook postrouting priority 100
//!         ip saddr BLOCK oifname != "spTAG-*" masquerade }
//! }
//! ```
//!
//! # No lock
//!
//! Any number of instances, of whatever version, open and close at any time, and each may be killed at any step. They
//! agree through the kernel's generation of the rule set: whoever decides something from what is there commits it *at
//! the generation it has looked at*, and looks again when that has passed. So no two instances claim a block, and the
//! last one that closes is the only one to switch forwarding off. The setting is read after the generation, and
//! switched off before the commit: an instance that opens meanwhile either sees it off, or sees our mark, or makes our
//! commit fail, whereupon we switch it on again.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use sampan_model::Instance;
use sampan_model::instance::{BLOCKS, Block};
use sampan_sys::net::netlink::{NetlinkError, Socket};
use sampan_sys::net::nftables::{Chain, Entry, Family, Rule, Table, Test, Transaction, chains, generation};

use crate::block::PREFIX;
use crate::error::NetworkError;

/// So often a change is tried again because others changed the rules in between.
const ATTEMPTS: u32 = 64;
/// What the tables of all instances start with.
pub(crate) const TABLE_PREFIX: &str = "sampan_";
const CLAIM_PREFIX: &str = "block_";
const FORWARDING_MARK: &str = "forwarding_was_off";
const REDIRECTS_MARK: &str = "redirects_were_refused";
/// Chains of programs that need forwarding as well. They found it on and so will not switch it on again: where one of
/// these has come meanwhile, forwarding stays on.
const DEPENDENTS: &[&str] = &["DOCKER", "NETAVARK", "CNI-", "KUBE-", "LIBVIRT"];

/// What the instances' tables say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Claims {
    /// Whether we have a table.
    pub exists: bool,
    /// The block that our table claims.
    pub own: Option<Block>,
    /// The blocks that other instances' tables claim.
    pub others: Vec<Block>,
    own_marks: Marks,
    others_marks: Marks,
    dependents: bool,
}

/// What was so before the first instance came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Marks {
    forwarding_was_off: bool,
    redirects_were_refused: bool,
}

impl Claims {
    fn read(instance: &Instance, chains: &[Chain]) -> Self {
        let own_table = instance.table_name();
        let mut claims = Self::default();
        for chain in chains {
            claims.dependents |= DEPENDENTS.iter().any(|prefix| chain.name.starts_with(prefix));
            if chain.family != Family::Inet as u8 || !chain.table.starts_with(TABLE_PREFIX) {
                continue;
            }
            let is_own = chain.table == own_table;
            claims.exists |= is_own;
            let block = chain.name.strip_prefix(CLAIM_PREFIX).and_then(|number| number.parse().ok());
            match block.filter(|&number| number < BLOCKS).map(Block) {
                Some(block) if is_own => claims.own = Some(block),
                Some(block) => claims.others.push(block),
                None => {}
            }
            let marks = if is_own { &mut claims.own_marks } else { &mut claims.others_marks };
            marks.forwarding_was_off |= chain.name == FORWARDING_MARK;
            marks.redirects_were_refused |= chain.name == REDIRECTS_MARK;
        }
        claims
    }
}

/// The firewall as an instance uses it. Belongs to the network namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct Firewall {
    socket: Socket,
    table: String,
    forwarding: Setting,
    redirects: Setting,
}

impl Firewall {
    pub fn open(instance: &Instance) -> Result<Self, NetworkError> {
        Ok(Self {
            socket: Socket::open(sampan_sys::net::netlink::Protocol::Netfilter).map_err(NetworkError::Look)?,
            table: instance.table_name(),
            forwarding: Setting::open("/proc/sys/net/ipv4/ip_forward")?,
            redirects: Setting::open("/proc/sys/net/ipv4/conf/all/accept_redirects")?,
        })
    }

    /// Claims the block that `choose` takes in view of all claims, writes our table (in the place of the one before, at
    /// once: no packet sees neither) and switches forwarding on.
    pub fn claim(
        &mut self,
        instance: &Instance,
        mut choose: impl FnMut(&Claims) -> Result<Block, NetworkError>,
    ) -> Result<Claimed, NetworkError> {
        for _ in 0..ATTEMPTS {
            let generation = generation(&mut self.socket).map_err(NetworkError::Look)?;
            let now_off = !self.forwarding.is_on()?;
            let now_refused = !self.redirects.is_on()?;
            let claims = self.claims(instance)?;
            let block = choose(&claims)?;
            let earlier = [claims.own_marks, claims.others_marks];
            let marks = if earlier.iter().any(|marks| marks.forwarding_was_off) {
                Marks {
                    forwarding_was_off: true,
                    redirects_were_refused: earlier.iter().any(|marks| marks.redirects_were_refused),
                }
            } else {
                Marks { forwarding_was_off: now_off, redirects_were_refused: now_off && now_refused }
            };
            match self.write(instance, block, marks, generation) {
                Err(error) if has_passed(&error) => {}
                Err(source) => return Err(NetworkError::Firewall { table: self.table.clone(), source }),
                Ok(()) => {
                    if now_off || marks.forwarding_was_off {
                        self.forwarding.set(true)?;
                    }
                    return Ok(Claimed { block, is_new: !claims.exists });
                }
            }
        }
        Err(NetworkError::Contended { attempts: ATTEMPTS })
    }

    /// Removes our table, and with it the claim, and switches forwarding off where it was off before and nobody else
    /// needs it.
    pub fn give_up(&mut self, instance: &Instance) -> Result<(), NetworkError> {
        for _ in 0..ATTEMPTS {
            let generation = generation(&mut self.socket).map_err(NetworkError::Look)?;
            let claims = self.claims(instance)?;
            if !claims.exists {
                return Ok(());
            }
            let is_last =
                claims.own_marks.forwarding_was_off && !claims.others_marks.forwarding_was_off && !claims.dependents;
            if is_last {
                self.forwarding.set(false)?;
                if claims.own_marks.redirects_were_refused {
                    self.redirects.set(false)?;
                }
            }
            let table = Table { family: Family::Inet, name: &self.table };
            match Transaction::at(generation).delete_table(table).commit(&mut self.socket) {
                Ok(()) => return Ok(()),
                Err(error) => {
                    if is_last {
                        self.forwarding.set(true)?;
                    }
                    if !has_passed(&error) {
                        return Err(NetworkError::Firewall { table: self.table.clone(), source: error });
                    }
                }
            }
        }
        Err(NetworkError::Contended { attempts: ATTEMPTS })
    }

    fn claims(&mut self, instance: &Instance) -> Result<Claims, NetworkError> {
        let chains = chains(&mut self.socket).map_err(NetworkError::Look)?;
        Ok(Claims::read(instance, &chains))
    }

    fn write(&mut self, instance: &Instance, block: Block, marks: Marks, generation: u32) -> Result<(), NetlinkError> {
        let table = Table { family: Family::Inet, name: &self.table };
        let servers = instance.server_interface_prefix();
        let (network, servers) = (block.network(), servers.as_str());
        let mut change = Transaction::at(generation)
            .renew_table(table)
            .add_chain(table, &format!("{CLAIM_PREFIX}{}", block.0))
            .add_entry(table, "early", Entry::Prerouting)
            .add_rule(table, "early", &Rule::new().comes_by(Test::Is, servers).ipv6().drop_it())
            .add_entry(table, "forward", Entry::Forward)
            .add_rule(
                table,
                "forward",
                &Rule::new().comes_by(Test::Is, servers).ipv4().source(Test::IsNot, network, PREFIX).drop_it(),
            )
            .add_rule(table, "forward", &Rule::new().leaves_by(Test::Is, servers).connection_known().accept())
            .add_rule(table, "forward", &Rule::new().leaves_by(Test::Is, servers).drop_it())
            .add_entry(table, "out", Entry::NatSource)
            .add_rule(
                table,
                "out",
                &Rule::new().ipv4().source(Test::Is, network, PREFIX).leaves_by(Test::IsNot, servers).masquerade(),
            );
        for (mark, is_set) in
            [(FORWARDING_MARK, marks.forwarding_was_off), (REDIRECTS_MARK, marks.redirects_were_refused)]
        {
            if is_set {
                change = change.add_chain(table, mark);
            }
        }
        change.commit(&mut self.socket)
    }
}

/// A block that is ours.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claimed {
    pub block: Block,
    /// Whether we had no table before.
    pub is_new: bool,
}

/// Whether a commit was refused because the rules have changed meanwhile.
fn has_passed(error: &NetlinkError) -> bool {
    // ERESTART, which is in no list of error numbers for programs
    error.errno().map(Errno::raw_os_error) == Some(85)
}

/// A kernel setting that is on or off. The open file stays with the network namespace that it was opened in.
#[derive(Debug)]
struct Setting {
    path: PathBuf,
    file: File,
}

impl Setting {
    fn open(path: &str) -> Result<Self, NetworkError> {
        let path = Path::new(path);
        match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => Ok(Self { path: path.into(), file }),
            Err(source) => Err(NetworkError::Setting { path: path.into(), source }),
        }
    }

    fn failed(&self, source: io::Error) -> NetworkError {
        NetworkError::Setting { path: self.path.clone(), source }
    }

    fn is_on(&self) -> Result<bool, NetworkError> {
        let mut value = [b'0'];
        self.file.read_at(&mut value, 0).map_err(|error| self.failed(error))?;
        Ok(value != *b"0")
    }

    fn set(&self, on: bool) -> Result<(), NetworkError> {
        self.file.write_all_at(if on { b"1\n" } else { b"0\n" }, 0).map_err(|error| self.failed(error))
    }
}
