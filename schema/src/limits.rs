//! What a schema and a document may take.

/// Bytes of a schema with all that it refers to.
pub const SCHEMA_BYTES_MAX: usize = 1024 * 1024;
/// Levels of objects, arrays and messages in a schema or a document.
pub const DEPTH_MAX: usize = 64;
