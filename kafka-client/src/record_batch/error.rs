//! Why bytes are not a batch that can be read.

/// Why bytes are not a batch we can read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// Fewer bytes than the header, or than the length it declares.
    #[error("a batch of {need} bytes was cut to {have}")]
    Truncated {
        /// Bytes that the batch has by its own account.
        need: usize,
        /// Bytes there are.
        have: usize,
    },
    /// A batch in a format older (or newer) than magic 2, which can be stepped over.
    #[error("a batch at offset {offset} has the unsupported magic {magic}")]
    UnsupportedMagic {
        /// The magic byte.
        magic: i8,
        /// The offset it starts at.
        offset: i64,
        /// The first offset behind it.
        next_offset: i64,
    },
    /// The length field is smaller than a header.
    #[error("a batch declares the impossible length {0}")]
    Length(i32),
    /// The checksum does not fit the content.
    #[error("a batch's checksum is {computed:#010x}, its header says {stored:#010x}")]
    Checksum {
        /// From the header.
        stored: u32,
        /// From the content.
        computed: u32,
    },
    /// The records are compressed by a codec we do not read.
    #[error("a batch is compressed with the unsupported codec {0}")]
    Codec(i16),
    /// The records are not what their codec makes.
    #[error("a batch's {codec} data cannot be read: {what}")]
    Compressed {
        /// The codec.
        codec: &'static str,
        /// What the codec says.
        what: String,
    },
    /// The records take more bytes than allowed once they are decompressed.
    #[error("a batch's records are more than {limit} bytes")]
    Inflated {
        /// Bytes allowed.
        limit: usize,
    },
    /// A negative count, or one that cannot fit into the bytes there are.
    #[error("{count} {what} cannot fit into {bytes} bytes")]
    Count {
        /// What was to be counted.
        what: &'static str,
        /// The count from the wire.
        count: i64,
        /// The bytes left.
        bytes: usize,
    },
    /// A length that reaches beyond its record, or is negative where nothing may be missing.
    #[error("a {what} of {length} bytes does not fit into {bytes}")]
    Overrun {
        /// What was to be read.
        what: &'static str,
        /// The length from the wire.
        length: i64,
        /// The bytes left.
        bytes: usize,
    },
    /// A varint of more than 5 or 10 bytes, or with bits beyond its type.
    #[error("a varint is too long")]
    Varint,
    /// Bytes behind the last field of a record, or behind the last record.
    #[error("{0} bytes are left over")]
    LeftOver(usize),
    /// Offsets or timestamps that leave their type when a delta is added.
    #[error("an offset or timestamp is out of range")]
    Overflow,
}
