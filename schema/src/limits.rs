//! What a schema and a document may take.

/// Bytes of a schema with all that it refers to.
pub const SCHEMA_BYTES_MAX: usize = 1024 * 1024;
/// Levels of records, objects, arrays, maps and messages in a schema or a document: each is a level
/// of recursion.
pub const DEPTH_MAX: usize = 64;
/// Levels of a JSON text: a tagged union of Avro takes one of its own.
pub(crate) const TEXT_DEPTH_MAX: usize = 2 * DEPTH_MAX;
/// Bytes of a payload or JSON text that is made. Defaults and the names of fields make it larger
/// than what it is made of; a frame from the filter has no more.
pub const OUTPUT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Digits of a decimal: as many as PostgreSQL's `numeric` may declare. Their conversion takes time
/// with the square of their number.
pub const DECIMAL_DIGITS_MAX: usize = 1000;

/// Values that are read or written for `bytes` of a document: each, each default, and each that is
/// tried for a union, counts. What takes no byte itself, as a null or a union's fifth branch, has
/// the constant part.
#[must_use]
pub fn values_max(bytes: usize) -> usize {
    bytes.saturating_mul(8).saturating_add(1_000_000)
}
