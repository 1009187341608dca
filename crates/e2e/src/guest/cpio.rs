//! The archive that the kernel unpacks before anything else is there: cpio's "newc" format
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

/// An archive that is being written.
#[derive(Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    pub(super) fn directory(&mut self, name: &str) {
        self.entry(name, 0o40_755, &[], (0, 0));
    }

    pub(super) fn program(&mut self, name: &str, content: &[u8]) {
        self.entry(name, 0o100_755, content, (0, 0));
    }

    pub(super) fn character_device(&mut self, name: &str, (major, minor): (u32, u32)) {
        self.entry(name, 0o20_600, &[], (major, minor));
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[], (0, 0));
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8], (major, minor): (u32, u32)) {
        self.entries += 1;
        let length = |bytes: usize| u32::try_from(bytes).expect("a file of the guest's is smaller than 4 GiB");
        // inode, mode, uid, gid, links, time, length, device of the file system, own device, the name's length, no sum
        let header =
            [self.entries, mode, 0, 0, 1, 0, length(content.len()), 0, 0, major, minor, length(name.len() + 1), 0];
        self.bytes.extend(b"070701");
        for value in header {
            self.bytes.extend(format!("{value:08X}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}
