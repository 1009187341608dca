//! What one running Sampan calls the things it makes outside its root: cgroups, firewall tables, interfaces,
//! addresses and user ids. All of it derives from the root's path and one claimed block number, so that any number of
//! instances live side by side.

use std::net::Ipv4Addr;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// A run of user (and group) ids on the host that a server's ids 0… are mapped to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct IdRange {
    /// The host id of the server's id 0.
    pub start: u32,
    /// How many.
    pub length: u32,
}

impl IdRange {
    /// The host's own ids: of a container without a user namespace of its own. The kernel knows no greater group where
    /// it is asked for one (`ping_group_range`).
    pub const HOST: Self = Self { start: 0, length: 1 << 31 };

    /// Whether these are the host's own.
    pub fn is_host(self) -> bool {
        self == Self::HOST
    }
}

/// An instance's tag: 8 hex digits derived from its root's canonical path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    tag: String,
}

/// How many address blocks there are: /20s of 10.192.0.0/10.
pub const BLOCKS: u32 = 1024;
/// How many servers one instance can have: the addresses of a block less network, gateway and broadcast.
pub const SERVERS: u32 = 4093;

const FIRST_SERVER_ID: u32 = 1_000_000_000;
const IDS_A_SERVER: u32 = 65_536;
/// As many slots of `SERVERS` id ranges as fit below 2³².
const ID_SLOTS: u32 = 12;

impl Instance {
    /// The instance of a root. The path should be canonical: two spellings of one directory must not be two instances.
    pub fn of_root(root: &Path) -> Self {
        use std::os::unix::ffi::OsStrExt as _;
        // FNV-1a, 64 bits, folded to 32: a name, not a proof; a collision is caught by the claim of the block
        let hash = root
            .as_os_str()
            .as_bytes()
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        Self { tag: format!("{:08x}", (hash >> 32) as u32 ^ hash as u32) }
    }

    /// The 8 hex digits.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// The directory of this instance in each cgroup hierarchy: `sampan-TAG`.
    pub fn cgroup_name(&self) -> String {
        format!("sampan-{}", self.tag)
    }

    /// The nf_tables table: `sampan_TAG`.
    pub fn table_name(&self) -> String {
        format!("sampan_{}", self.tag)
    }

    /// The interface that holds the gateway's address (at most 15 bytes): `sp0-TAG`.
    pub fn gateway_interface(&self) -> String {
        format!("sp0-{}", self.tag)
    }

    /// The host's end of server `index`'s wire (at most 15 bytes): `spTAG-INDEX`, `INDEX` in hex.
    pub fn server_interface(&self, index: u32) -> String {
        format!("sp{}-{index:x}", self.tag)
    }

    /// What every server interface of this instance starts with.
    pub fn server_interface_prefix(&self) -> String {
        format!("sp{}-", self.tag)
    }

    /// The block number to try first.
    pub fn first_block(&self) -> u32 {
        u32::from_str_radix(&self.tag, 16).unwrap_or(0) % BLOCKS
    }
}

/// A claimed block: the addresses and user ids of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block(pub u32);

impl Block {
    /// The first address of the block's /20.
    pub fn network(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 192, 0, 0)) + (self.0 % BLOCKS) * 4096)
    }

    /// The gateway: the second address.
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network()) + 1)
    }

    /// The address of server `index` (0-based, below [`SERVERS`]).
    pub fn server_address(self, index: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network()) + 2 + index % SERVERS)
    }

    /// The ids of server `index`.
    pub fn server_ids(self, index: u32) -> IdRange {
        let slot = self.0 % ID_SLOTS;
        IdRange { start: FIRST_SERVER_ID + (slot * SERVERS + index % SERVERS) * IDS_A_SERVER, length: IDS_A_SERVER }
    }

    /// The user and group id that the edge runs as.
    pub fn edge_id(self) -> u32 {
        FIRST_SERVER_ID - 2 - 2 * (self.0 % BLOCKS)
    }

    /// The user and group id that the logger runs as.
    pub fn logger_id(self) -> u32 {
        FIRST_SERVER_ID - 1 - 2 * (self.0 % BLOCKS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_an_interface() {
        let instance = Instance::of_root(Path::new("/var/lib/sampan"));
        assert!(instance.gateway_interface().len() <= 15);
        assert!(instance.server_interface(SERVERS).len() <= 15);
        assert_ne!(instance, Instance::of_root(Path::new("/var/lib/sampan2")));
    }

    #[test]
    fn ids_and_addresses_stay_in_their_blocks() {
        for block in [0, 1, 11, 12, BLOCKS - 1].map(Block) {
            let last = block.server_ids(SERVERS - 1);
            assert!(last.start.checked_add(last.length).is_some());
            assert!(block.server_ids(0).start > block.edge_id());
            assert_ne!(block.edge_id(), block.logger_id());
            let end = u32::from(block.network()) + 4095;
            assert!(u32::from(block.server_address(SERVERS - 1)) < end);
        }
        assert_eq!(Block(BLOCKS - 1).network(), Ipv4Addr::new(10, 255, 240, 0));
    }
}
