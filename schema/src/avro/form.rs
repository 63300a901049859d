//! How JSON stands for what it has no word for.

use crate::PayloadEncoding;

/// How JSON stands for a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Avro's JSON encoding.
    Avro,
    /// As one would write it by hand.
    Simple,
    /// As a schema writes defaults: Avro's, but unions are untagged.
    Default,
}

impl From<PayloadEncoding> for Form {
    fn from(encoding: PayloadEncoding) -> Self {
        match encoding {
            PayloadEncoding::AvroJson => Self::Avro,
            PayloadEncoding::SimpleJson => Self::Simple,
        }
    }
}
