//! The file of a snapshot: frames, each packed and with a checksum, the last of which says that it is whole.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader, BufWriter, Read, Write},
};

use serde::{Deserialize, Serialize};

use crate::{
    index::{adopt_secret, hidden_hash, secret},
    unprocessed::Reason,
};

/// The first bytes of the file; another form of it gets another number.
const MAGIC: &[u8] = b"callboard snapshot 4\n";
/// Bytes of a frame before and after it is packed; one with a single entity may be as large as that entity.
const FRAME_LIMIT: usize = 256 << 20;
/// Quick rather than small: the file is read when a reader starts.
const LEVEL: i32 = 1;

/// A text whose hash tells how texts are hashed.
const PROBE: &str = "callboard";

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// [`Head`], as JSON.
    Head = 1,
    /// What messages are packed with.
    Dictionary = 2,
    /// Entities, each with the numbers of its rows.
    Entities = 3,
    /// Changes, for watchers that resume.
    Traces = 4,
    /// Nothing: everything before is all there is.
    End = 5,
    /// What the numbers stand for in the entities since the last of these.
    Rows = 6,
}

/// What the snapshot is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    /// The stream's identity: the time of its creation, in nanoseconds.
    pub stream: i64,
    /// Every message up to this sequence is in it; some newer ones may be.
    pub sequence: u64,
    /// When the message of that sequence was stored, in nanoseconds since 1970; 0: unknown.
    #[serde(default)]
    pub stored: u64,
    /// What the stream said last of what is in it.
    pub watermark: i64,
    /// Changes up to this sequence are not all among the traces.
    pub forgotten: u64,
    /// Seconds since 1970.
    pub written: u64,
    /// Under what rows are hashed (see [`secret`]).
    pub secret: [u64; 2],
    /// What [`PROBE`] is hashed to: another build of the program may hash otherwise.
    pub probe: u64,
    /// Entities that were never processed successfully.
    #[serde(default)]
    pub unprocessed: BTreeMap<String, Reason>,
}

impl Head {
    /// How this process hashes rows, for [`Head::secret`] and [`Head::probe`].
    pub fn hashing() -> ([u64; 2], u64) {
        (secret(), hidden_hash(PROBE, None))
    }

    /// Has this process hash rows as they were for the snapshot; false: it cannot.
    pub fn adopt_hashing(&self) -> bool {
        adopt_secret(self.secret) && hidden_hash(PROBE, None) == self.probe
    }
}

/// Writes frames.
pub(crate) struct Writer(BufWriter<File>);

impl Writer {
    /// Begins a file.
    pub fn new(file: File) -> io::Result<Writer> {
        let mut out = BufWriter::with_capacity(1 << 20, file);
        out.write_all(MAGIC)?;
        Ok(Writer(out))
    }

    /// Adds a frame.
    pub fn frame(&mut self, kind: Kind, content: &[u8]) -> io::Result<()> {
        let packed = zstd::bulk::compress(content, LEVEL)?;
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).map_err(io::Error::other);
        let mut head = vec![kind as u8];
        head.extend(length(content)?.to_le_bytes());
        head.extend(length(&packed)?.to_le_bytes());
        head.extend(checksum(&head, &packed).to_le_bytes());
        self.0.write_all(&head)?;
        self.0.write_all(&packed)
    }

    /// Ends the file; it is on disk then.
    pub fn end(mut self) -> io::Result<()> {
        self.frame(Kind::End, &[])?;
        self.0.flush()?;
        self.0.get_ref().sync_all()
    }
}

/// A frame as it stands in the file.
pub(crate) struct Packed {
    pub kind: Kind,
    length: usize,
    bytes: Vec<u8>,
}

impl Packed {
    /// Its content.
    pub fn unpack(&self) -> io::Result<Vec<u8>> {
        zstd::bulk::decompress(&self.bytes, self.length)
    }
}

/// Reads frames.
pub(crate) struct Frames(BufReader<File>);

impl Frames {
    /// Begins to read a file.
    pub fn new(file: File) -> io::Result<Frames> {
        let mut input = BufReader::with_capacity(1 << 20, file);
        let mut magic = [0; MAGIC.len()];
        input.read_exact(&mut magic)?;
        match magic == MAGIC {
            true => Ok(Frames(input)),
            false => Err(damaged("it is no snapshot of this version")),
        }
    }

    /// The next frame, its checksum compared.
    pub fn next(&mut self) -> io::Result<Packed> {
        let mut head = [0; 13];
        self.0.read_exact(&mut head)?;
        let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let kind = [Kind::Head, Kind::Dictionary, Kind::Entities, Kind::Traces, Kind::End, Kind::Rows];
        let kind =
            kind.into_iter().find(|kind| *kind as u8 == head[0]).ok_or_else(|| damaged("a frame is of no kind"))?;
        let (length, packed) = (number(1) as usize, number(5) as usize);
        if length > FRAME_LIMIT || packed > FRAME_LIMIT {
            return Err(damaged("a frame is too long"));
        }
        let mut bytes = vec![0; packed];
        self.0.read_exact(&mut bytes)?;
        match checksum(&head[..9], &bytes) == number(9) {
            true => Ok(Packed { kind, length, bytes }),
            false => Err(damaged("a checksum is wrong")),
        }
    }
}

/// Over the frame's kind, its lengths and what is packed.
fn checksum(head: &[u8], packed: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(packed);
    hasher.finalize()
}

pub(crate) fn damaged(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// Takes numbers and bytes off the front of a frame's content.
pub(crate) struct Cursor<'a>(pub &'a [u8]);

impl<'a> Cursor<'a> {
    /// The next bytes.
    pub fn bytes(&mut self, length: usize) -> io::Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(|| damaged("a frame ends early"))?;
        self.0 = rest;
        Ok(taken)
    }

    /// The next length and as many bytes.
    pub fn sized(&mut self) -> io::Result<&'a [u8]> {
        let length = self.u32()? as usize;
        self.bytes(length)
    }

    /// The next length and as many bytes of text.
    pub fn text(&mut self) -> io::Result<&'a str> {
        std::str::from_utf8(self.sized()?).map_err(|_| damaged("a text is not UTF-8"))
    }

    /// The next number.
    pub fn u32(&mut self) -> io::Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// The next number.
    pub fn i64(&mut self) -> io::Result<i64> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        self.bytes(N)?.try_into().map_err(|_| damaged("a frame ends early"))
    }
}

/// Adds bytes behind their length.
pub(crate) fn put_sized(content: &mut Vec<u8>, bytes: &[u8]) {
    content.extend((bytes.len() as u32).to_le_bytes());
    content.extend(bytes);
}
