//! `compression.type` and the level of each codec (KIP-390).

use super::property::{Property, PropertyError};
use crate::record_batch::Compression;

pub(super) const COMPRESSION_TYPE: &str = "compression.type";
pub(super) const GZIP_LEVEL: &str = "compression.gzip.level";
pub(super) const LZ4_LEVEL: &str = "compression.lz4.level";
pub(super) const ZSTD_LEVEL: &str = "compression.zstd.level";

/// The value of `compression.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

pub(super) const CODECS: &[(&str, Codec)] = &[
    ("none", Codec::None),
    ("gzip", Codec::Gzip),
    ("snappy", Codec::Snappy),
    ("lz4", Codec::Lz4),
    ("zstd", Codec::Zstd),
];

/// The levels of those codecs that have some, set or not, used or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Levels {
    gzip: u32,
    zstd: i32,
}

impl Default for Levels {
    fn default() -> Self {
        Self { gzip: 6, zstd: 3 }
    }
}

/// Kafka's default level, at which Java takes the fast compressor; at any other it takes LZ4-HC.
const LZ4_FAST: i32 = 9;

impl Levels {
    pub(super) fn set(&mut self, property: Property<'_>) -> Result<(), PropertyError> {
        match property.name {
            GZIP_LEVEL => self.gzip = property.number(1, 9)?,
            ZSTD_LEVEL => self.zstd = property.number(-131_072, 22)?,
            _ => {
                if property.number(1, 17)? != LZ4_FAST {
                    let why = "it asks for LZ4-HC; there is the fast compressor only, Kafka's \
                               default level 9";
                    return Err(property.unsupported(why));
                }
            }
        }
        Ok(())
    }

    pub(super) fn of(self, codec: Codec) -> Compression {
        match codec {
            Codec::None => Compression::None,
            Codec::Gzip => Compression::Gzip(self.gzip),
            Codec::Snappy => Compression::Snappy,
            Codec::Lz4 => Compression::Lz4,
            Codec::Zstd => Compression::Zstd(self.zstd),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    fn compression(properties: &[(&str, &str)]) -> Result<Compression, String> {
        let bootstrap = ("bootstrap.servers", "a:1");
        let all = std::iter::once(bootstrap).chain(properties.iter().copied());
        Config::from_properties(all)
            .map(|config| config.producer.compression())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_codec_has_kafkas_default_level_unless_one_is_set() {
        for (codec, level, expected) in [
            ("none", None, Compression::None),
            ("gzip", None, Compression::Gzip(6)),
            ("gzip", Some((GZIP_LEVEL, "9")), Compression::Gzip(9)),
            ("snappy", None, Compression::Snappy),
            ("lz4", Some((LZ4_LEVEL, "9")), Compression::Lz4),
            ("zstd", None, Compression::Zstd(3)),
            ("zstd", Some((ZSTD_LEVEL, "-131072")), Compression::Zstd(-131_072)),
            ("zstd", Some((ZSTD_LEVEL, "22")), Compression::Zstd(22)),
            ("zstd", Some((GZIP_LEVEL, "1")), Compression::Zstd(3)),
        ] {
            let properties: Vec<_> = level.into_iter().chain([(COMPRESSION_TYPE, codec)]).collect();
            assert_eq!(compression(&properties), Ok(expected), "{properties:?}");
        }
        assert_eq!(compression(&[]), Ok(Compression::None));
    }

    #[test]
    fn errors_name_the_property_and_its_bounds() {
        for (name, value, error) in [
            (COMPRESSION_TYPE, "brotli", "must be one of none, gzip, snappy, lz4, zstd"),
            (GZIP_LEVEL, "0", "must be a whole number in 1..=9, not `0`"),
            (GZIP_LEVEL, "10", "must be a whole number in 1..=9, not `10`"),
            (LZ4_LEVEL, "18", "must be a whole number in 1..=17, not `18`"),
            (ZSTD_LEVEL, "23", "must be a whole number in -131072..=22, not `23`"),
            (ZSTD_LEVEL, "-131073", "must be a whole number in -131072..=22, not `-131073`"),
        ] {
            let said = compression(&[(name, value)]).unwrap_err();
            assert!(said.starts_with(&format!("`{name}` {error}")), "{said}");
        }
        let said = compression(&[(LZ4_LEVEL, "12")]).unwrap_err();
        assert!(
            said.starts_with("`compression.lz4.level=12` is not supported: it asks for LZ4-HC")
        );
    }
}
