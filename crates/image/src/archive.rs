//! Reading tars, entry by entry, within bounds: ustar, GNU long names, PAX.
//!
//! The `tar` crate parses the 512-byte headers; the loop around it is ours, since it reads extension headers of any
//! size into memory. Numbers of sparse formats, volumes and the like are refused by name rather than read wrongly.
//!
//! Source: POSIX.1-2017 pax(1) "pax Interchange Format"; GNU tar manual, "Basic Tar Format".

use std::io::{self, Read};

use ::tar::{EntryType, Header};

const BLOCK: u64 = 512;
/// The longest extension header: a PAX header with one name, one link and some attributes of 64 KiB each.
const LARGEST_EXTENSION: u64 = 1 << 20;

/// A tar that is being read from.
pub(crate) struct Archive<R> {
    reader: R,
    /// Of the present entry: its bytes, then its padding, that were not read yet.
    data_left: u64,
    padding_left: u64,
}

/// One entry; its bytes follow from [`Archive::data`].
#[derive(Debug)]
pub(crate) struct Entry {
    pub path: Vec<u8>,
    pub kind: Kind,
    /// Of a file; 0 else.
    pub size: u64,
    /// The permission bits, setuid, setgid and sticky.
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    /// Seconds and nanoseconds since 1970.
    pub mtime: (i64, u32),
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink(Vec<u8>),
    HardLink(Vec<u8>),
    Fifo,
    Device,
}

/// Why a tar could not be read on.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The bytes could not be read.
    #[error("read the tar")]
    Read(#[source] io::Error),
    /// The tar ends within an entry.
    #[error("the tar was cut off")]
    CutOff,
    /// What should be a header is none.
    #[error("it is not a tar, or damaged: a header's checksum is wrong")]
    Checksum,
    /// A field of a header is not a number, or not one that can be.
    #[error("the tar is damaged: the {0} of an entry is not a valid number")]
    Number(&'static str),
    /// A PAX header is not a list of records.
    #[error("the tar is damaged: a PAX header is not a list of records")]
    Pax,
    /// A name or an attribute is too long.
    #[error("an extension header of {0} bytes; the limit is {LARGEST_EXTENSION}")]
    ExtensionTooLarge(u64),
    /// A kind of entry that is not known here.
    #[error("an entry of a kind that cannot be unpacked ({0}): write the tar without it")]
    Unsupported(String),
}

/// What the extension headers before an entry say of it.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl<R: Read> Archive<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self { reader, data_left: 0, padding_left: 0 }
    }

    /// The next entry, after what was left of the one before; `None` at the end of the tar.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, ArchiveError> {
        let mut extensions = Extensions::default();
        loop {
            self.skip()?;
            let Some(header) = self.header()? else { return Ok(None) };
            let size = number("size", &header.as_old().size, header.entry_size())?;
            match header.entry_type() {
                EntryType::GNULongName => extensions.path = Some(text(self.extension(size)?)),
                EntryType::GNULongLink => extensions.link = Some(text(self.extension(size)?)),
                EntryType::XHeader => extensions.read(&self.extension(size)?)?,
                // defaults for all that follow: in practice a comment of git's
                EntryType::XGlobalHeader => drop(self.extension(size)?),
                _ => return self.entry(&header, extensions, size).map(Some),
            }
        }
    }

    /// The bytes of the present entry.
    pub(crate) fn data(&mut self) -> Data<'_, R> {
        Data { archive: self }
    }

    /// The reader, past the end of the tar or where reading stopped.
    pub(crate) fn into_inner(self) -> R {
        self.reader
    }

    fn header(&mut self) -> Result<Option<Header>, ArchiveError> {
        let mut header = Header::new_old();
        let bytes = header.as_mut_bytes();
        let mut filled = 0;
        while filled < bytes.len() {
            match self.reader.read(&mut bytes[filled..]) {
                // GNU tar and Go's read a tar without its two zero blocks as well
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(ArchiveError::CutOff),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ArchiveError::Read(error)),
            }
        }
        if bytes.iter().all(|&b| b == 0) {
            return Ok(None);
        }
        let sum = bytes.iter().enumerate().map(|(at, &b)| if (148..156).contains(&at) { 32 } else { u32::from(b) });
        let sum = sum.sum::<u32>();
        if header.cksum().is_ok_and(|said| said == sum) { Ok(Some(header)) } else { Err(ArchiveError::Checksum) }
    }

    fn entry(&mut self, header: &Header, extensions: Extensions, size: u64) -> Result<Entry, ArchiveError> {
        let path = extensions.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = || extensions.link.or_else(|| header.link_name_bytes().map(Into::into)).unwrap_or_default();
        let kind = match header.entry_type() {
            // before ustar, a directory was a file whose name ends so
            EntryType::Regular if path.ends_with(b"/") => Kind::Directory,
            EntryType::Regular | EntryType::Continuous => Kind::File,
            EntryType::Directory => Kind::Directory,
            EntryType::Symlink => Kind::Symlink(link()),
            EntryType::Link => Kind::HardLink(link()),
            EntryType::Fifo => Kind::Fifo,
            EntryType::Char | EntryType::Block => Kind::Device,
            EntryType::GNUSparse => return Err(ArchiveError::Unsupported("a sparse file".to_owned())),
            other => return Err(ArchiveError::Unsupported(format!("type {:?}", char::from(other.as_byte())))),
        };
        // a size in the header of a link or a directory is somebody's note, no bytes follow (as Go's archive/tar has it)
        let size = if kind == Kind::File { extensions.size.unwrap_or(size) } else { 0 };
        self.expect(size)?;
        let fields = header.as_old();
        let mtime = match extensions.mtime {
            Some(mtime) => mtime,
            // GNU tar writes times before 1970 in binary, as two's complement
            None => (number("time", &fields.mtime, header.mtime())?.cast_signed(), 0),
        };
        let mode = number("mode", &fields.mode, header.mode().map(u64::from))?;
        let uid = extensions.uid.map_or_else(|| number("user id", &fields.uid, header.uid()), Ok)?;
        let gid = extensions.gid.map_or_else(|| number("group id", &fields.gid, header.gid()), Ok)?;
        Ok(Entry { path, kind, size, mode: (mode & 0o7777) as u32, uid, gid, mtime, xattrs: extensions.xattrs })
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, ArchiveError> {
        if size > LARGEST_EXTENSION {
            return Err(ArchiveError::ExtensionTooLarge(size));
        }
        self.expect(size)?;
        let mut bytes = Vec::new();
        self.data().read_to_end(&mut bytes).map_err(ArchiveError::Read)?;
        if bytes.len() as u64 == size { Ok(bytes) } else { Err(ArchiveError::CutOff) }
    }

    fn expect(&mut self, size: u64) -> Result<(), ArchiveError> {
        let padded = size.checked_next_multiple_of(BLOCK).ok_or(ArchiveError::Number("size"))?;
        (self.data_left, self.padding_left) = (size, padded - size);
        Ok(())
    }

    fn skip(&mut self) -> Result<(), ArchiveError> {
        let left = self.data_left.saturating_add(self.padding_left);
        (self.data_left, self.padding_left) = (0, 0);
        let skipped = io::copy(&mut (&mut self.reader).take(left), &mut io::sink()).map_err(ArchiveError::Read)?;
        if skipped == left { Ok(()) } else { Err(ArchiveError::CutOff) }
    }
}

/// The bytes of one entry. Ends early only where the tar does.
pub(crate) struct Data<'a, R> {
    archive: &'a mut Archive<R>,
}

impl<R: Read> Read for Data<'_, R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let left = self.archive.data_left;
        let most = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = self.archive.reader.read(&mut bytes[..most])?;
        self.archive.data_left -= read as u64;
        Ok(read)
    }
}

impl Extensions {
    /// Reads the records of a PAX header, each `LENGTH KEY=VALUE\n`, the length counting all of it.
    fn read(&mut self, mut bytes: &[u8]) -> Result<(), ArchiveError> {
        while !bytes.is_empty() {
            let space = bytes.iter().take(21).position(|&b| b == b' ').ok_or(ArchiveError::Pax)?;
            let length: usize = ascii(&bytes[..space]).ok_or(ArchiveError::Pax)?;
            let record = bytes.get(space + 1..length).and_then(|record| record.strip_suffix(b"\n"));
            let record = record.ok_or(ArchiveError::Pax)?;
            let equals = record.iter().position(|&b| b == b'=').ok_or(ArchiveError::Pax)?;
            self.set(&record[..equals], &record[equals + 1..])?;
            bytes = &bytes[length..];
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), ArchiveError> {
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(ascii(value).ok_or(ArchiveError::Number("size"))?),
            b"uid" => self.uid = Some(ascii(value).ok_or(ArchiveError::Number("user id"))?),
            b"gid" => self.gid = Some(ascii(value).ok_or(ArchiveError::Number("group id"))?),
            b"mtime" => self.mtime = Some(pax_time(value).ok_or(ArchiveError::Number("time"))?),
            _ if key.starts_with(b"GNU.sparse.") => {
                return Err(ArchiveError::Unsupported("a sparse file".to_owned()));
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

/// A number of a header. A blank field is 0, as for GNU tar and Go's archive/tar.
fn number(what: &'static str, field: &[u8], parsed: io::Result<u64>) -> Result<u64, ArchiveError> {
    match parsed {
        Err(_) if field.iter().all(|b| matches!(b, 0 | b' ')) => Ok(0),
        parsed => parsed.map_err(|_| ArchiveError::Number(what)),
    }
}

fn ascii<T: std::str::FromStr>(bytes: &[u8]) -> Option<T> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

/// `1700000000.25`, `-1.5`: decimal seconds, as far as nanoseconds.
fn pax_time(value: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanos: u32 = digits.parse().ok()?;
    match (text.starts_with('-'), nanos) {
        (true, 1..) => Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos)),
        _ => Some((seconds, nanos)),
    }
}

/// A GNU long name: up to its zero byte.
fn text(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|&b| b == 0) {
        bytes.truncate(end);
    }
    bytes
}
