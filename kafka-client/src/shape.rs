//! Checks what a response will take in memory, before it is decoded.
//!
//! `kafka-protocol` 0.18 reserves memory for as many elements as a count says, so that ten bytes
//! can abort the process; every count must fit into the bytes left. An element can still be many
//! times as large as its bytes, so the elements are also added up. Tables of the responses we read
//! are in `calls`.

use crate::limits::{ANSWER_BYTES, ANSWER_GROWTH};

/// A structure of the protocol: fields in order, then tagged fields in flexible versions.
#[derive(Debug)]
pub(crate) struct Struct {
    pub(crate) fields: &'static [Field],
    /// All tagged fields that `kafka-protocol` knows: it reads them by their kind, whatever size
    /// they declare. Others are stepped over.
    pub(crate) tagged: &'static [(u32, FieldKind)],
    /// Memory it takes, as it is decoded and in our own types; bytes.
    pub(crate) memory: usize,
}

/// A field, and the versions that have it.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) least: i16,
    pub(crate) most: i16,
    pub(crate) kind: FieldKind,
}

/// What a field is made of, as far as its length matters.
#[derive(Debug)]
pub(crate) enum FieldKind {
    /// So many bytes.
    Fixed(usize),
    /// A string or null.
    Text,
    /// Bytes or null.
    Blob,
    /// An array of 32-bit integers.
    Ints,
    /// An array of strings.
    Texts,
    /// An array of structures.
    List(&'static Struct),
    /// One structure.
    One(&'static Struct),
    /// One structure behind a byte that says whether there is one: −1 is none.
    Maybe(&'static Struct),
}

/// A field that all versions have.
pub(crate) const fn always(kind: FieldKind) -> Field {
    Field { least: 0, most: i16::MAX, kind }
}

/// A field that came with version `least`.
pub(crate) const fn since(least: i16, kind: FieldKind) -> Field {
    Field { least, most: i16::MAX, kind }
}

/// Why a body has not the shape of its response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ShapeError {
    #[error("{count} elements cannot fit into {bytes} bytes")]
    Count { count: u64, bytes: usize },
    #[error("{need} bytes wanted, {have} left")]
    Short { need: u64, have: usize },
    #[error("a negative length")]
    Negative,
    #[error("a length of more than 5 bytes")]
    Length,
    #[error("{0} bytes left over")]
    LeftOver(usize),
    #[error("more than {0} bytes of memory")]
    Memory(u64),
}

/// How lengths are written in the version at hand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dialect {
    pub(crate) version: i16,
    pub(crate) flexible: bool,
}

/// Checks a whole body. It recurses as deep as the table, never as deep as the bytes.
pub(crate) fn check(body: &[u8], shape: &Struct, dialect: Dialect) -> Result<(), ShapeError> {
    let memory = ANSWER_BYTES as u64 + ANSWER_GROWTH as u64 * body.len() as u64;
    let mut checker = Checker { rest: body, dialect, memory };
    checker.structure(shape).map_err(|error| match error {
        ShapeError::Memory(_) => ShapeError::Memory(memory),
        other => other,
    })?;
    if checker.rest.is_empty() { Ok(()) } else { Err(ShapeError::LeftOver(checker.rest.len())) }
}

/// Steps over the tagged fields at the end of a flexible response header.
pub(crate) fn skip_tagged_fields(body: &[u8]) -> Result<&[u8], ShapeError> {
    let dialect = Dialect { version: 0, flexible: true };
    let mut checker = Checker { rest: body, dialect, memory: u64::MAX };
    checker.tagged(&[])?;
    Ok(checker.rest)
}

/// An unknown tagged field is kept in a map, which begins with a node for eleven of them.
const TAGGED_BYTES: usize = 512;

/// Memory that a string takes beside its bytes, as it is decoded and in our own types; bytes.
const TEXT_BYTES: usize = 64;

struct Checker<'a> {
    rest: &'a [u8],
    dialect: Dialect,
    /// Bytes that may still be taken.
    memory: u64,
}

impl<'a> Checker<'a> {
    fn structure(&mut self, shape: &Struct) -> Result<(), ShapeError> {
        let version = self.dialect.version;
        for field in shape.fields.iter().filter(|field| field.is_in(version)) {
            self.kind(&field.kind)?;
        }
        if self.dialect.flexible { self.tagged(shape.tagged) } else { Ok(()) }
    }

    fn kind(&mut self, kind: &FieldKind) -> Result<(), ShapeError> {
        match kind {
            FieldKind::Fixed(bytes) => self.take(*bytes as u64).map(drop),
            FieldKind::Text => {
                let len = self.length(TextLength)?;
                self.take(len)?;
                self.spend(len, 1)
            }
            FieldKind::Blob => {
                let len = self.length(ArrayLength)?;
                self.take(len).map(drop)
            }
            FieldKind::Ints => {
                let count = self.length(ArrayLength)?;
                self.take(count.saturating_mul(4))?;
                self.spend(count, size_of::<i32>())
            }
            FieldKind::Texts => {
                let count = self.length(ArrayLength)?;
                let least = FieldKind::Text.least_bytes(self.dialect);
                if count > (self.rest.len() / least) as u64 {
                    return Err(ShapeError::Count { count, bytes: self.rest.len() });
                }
                self.spend(count, TEXT_BYTES)?;
                (0..count).try_for_each(|_| self.kind(&FieldKind::Text))
            }
            FieldKind::One(shape) => {
                self.spend(1, shape.memory)?;
                self.structure(shape)
            }
            FieldKind::Maybe(shape) => match self.take(1)? {
                [0xff] => Ok(()),
                _ => self.kind(&FieldKind::One(shape)),
            },
            FieldKind::List(shape) => {
                let count = self.length(ArrayLength)?;
                let least = shape.least_bytes(self.dialect).max(1);
                if count > (self.rest.len() / least) as u64 {
                    return Err(ShapeError::Count { count, bytes: self.rest.len() });
                }
                self.spend(count, shape.memory)?;
                (0..count).try_for_each(|_| self.structure(shape))
            }
        }
    }

    fn tagged(&mut self, known: &[(u32, FieldKind)]) -> Result<(), ShapeError> {
        for _ in 0..self.unsigned()? {
            let tag = self.unsigned()?;
            let size = self.unsigned()?;
            let content = self.take(size.into())?;
            let Some((_, kind)) = known.iter().find(|(known, _)| *known == tag) else {
                self.spend(1, TAGGED_BYTES)?;
                continue;
            };
            let mut inner = Checker { rest: content, ..*self };
            inner.kind(kind)?;
            self.memory = inner.memory;
            if !inner.rest.is_empty() {
                return Err(ShapeError::LeftOver(inner.rest.len()));
            }
        }
        Ok(())
    }

    fn spend(&mut self, count: u64, each: usize) -> Result<(), ShapeError> {
        let left = self.memory.checked_sub(count.saturating_mul(each as u64));
        self.memory = left.ok_or(ShapeError::Memory(0))?;
        Ok(())
    }

    /// A length or count; null counts as 0.
    fn length(&mut self, classic: ClassicLength) -> Result<u64, ShapeError> {
        if self.dialect.flexible {
            return Ok(u64::from(self.unsigned()?).saturating_sub(1));
        }
        let length = match (classic, self.take(classic as u64)?) {
            (TextLength, [a, b]) => i32::from(i16::from_be_bytes([*a, *b])),
            (ArrayLength, [a, b, c, d]) => i32::from_be_bytes([*a, *b, *c, *d]),
            _ => return Err(ShapeError::Length),
        };
        if length == -1 { Ok(0) } else { u64::try_from(length).map_err(|_| ShapeError::Negative) }
    }

    fn unsigned(&mut self) -> Result<u32, ShapeError> {
        let mut value = 0u64;
        for index in 0..5 {
            let byte = self.take(1)?.first().copied().unwrap_or(0);
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| ShapeError::Length);
            }
        }
        Err(ShapeError::Length)
    }

    fn take(&mut self, need: u64) -> Result<&'a [u8], ShapeError> {
        let have = self.rest.len();
        let short = ShapeError::Short { need, have };
        let len = usize::try_from(need).map_err(|_| short.clone())?;
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(short)?;
        self.rest = rest;
        Ok(taken)
    }
}

use ClassicLength::{ArrayLength, TextLength};

/// Bytes of a length before flexible versions.
#[derive(Clone, Copy)]
enum ClassicLength {
    TextLength = 2,
    ArrayLength = 4,
}

impl Field {
    fn is_in(&self, version: i16) -> bool {
        (self.least..=self.most).contains(&version)
    }
}

impl Struct {
    /// Bytes of the smallest such structure.
    fn least_bytes(&self, dialect: Dialect) -> usize {
        let tags = usize::from(dialect.flexible);
        let present = self.fields.iter().filter(|field| field.is_in(dialect.version));
        tags + present.map(|field| field.kind.least_bytes(dialect)).sum::<usize>()
    }
}

impl FieldKind {
    fn least_bytes(&self, dialect: Dialect) -> usize {
        match self {
            Self::Fixed(bytes) => *bytes,
            Self::One(shape) => shape.least_bytes(dialect),
            Self::Maybe(_) => 1,
            _ if dialect.flexible => 1,
            Self::Text => TextLength as usize,
            Self::Blob | Self::Ints | Self::Texts | Self::List(_) => ArrayLength as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: Struct = Struct {
        fields: &[always(FieldKind::Fixed(2)), always(FieldKind::Text)],
        tagged: &[],
        memory: 1000,
    };
    const TABLE: Struct = Struct {
        fields: &[since(1, FieldKind::Ints), always(FieldKind::List(&ROW))],
        tagged: &[(7, FieldKind::List(&ROW))],
        memory: 0,
    };
    const CLASSIC: Dialect = Dialect { version: 0, flexible: false };
    const FLEXIBLE: Dialect = Dialect { version: 1, flexible: true };

    #[test]
    fn a_count_beyond_the_bytes_left_is_refused() {
        let huge = [0x7f, 0xff, 0xff, 0xff, 0, 0];
        let error = ShapeError::Count { count: 0x7fff_ffff, bytes: 2 };
        assert_eq!(check(&huge, &TABLE, CLASSIC), Err(error));
        let compact = [1, 0xff, 0xff, 0xff, 0xff, 0x0f, 0];
        assert!(matches!(check(&compact, &TABLE, FLEXIBLE), Err(ShapeError::Count { .. })));
    }

    #[test]
    fn an_array_in_a_known_tagged_field_is_checked_too() {
        let sound = [1, 1, 1, 7, 5, 2, 0, 9, 1, 0];
        assert_eq!(check(&sound, &TABLE, FLEXIBLE), Ok(()));
        let huge = [1, 1, 1, 7, 5, 0xff, 0xff, 0xff, 0xff, 0x0f];
        assert!(matches!(check(&huge, &TABLE, FLEXIBLE), Err(ShapeError::Count { .. })));
    }

    const OTHERS: Struct = Struct {
        fields: &[always(FieldKind::Texts), always(FieldKind::Maybe(&ROW))],
        tagged: &[],
        memory: 0,
    };

    #[test]
    fn strings_are_counted_and_a_structure_may_be_absent() {
        let classic = [0, 0, 0, 2, 0, 1, 7, 0xff, 0xff, 1, 0, 9, 0, 0];
        assert_eq!(check(&classic, &OTHERS, CLASSIC), Ok(()));
        let compact = [3, 2, 7, 0, 0xff, 0];
        assert_eq!(check(&compact, &OTHERS, FLEXIBLE), Ok(()));
        let huge = [0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0xff, 0];
        assert!(matches!(check(&huge, &OTHERS, FLEXIBLE), Err(ShapeError::Count { .. })));
        assert!(matches!(check(&[1, 1], &OTHERS, FLEXIBLE), Err(ShapeError::Short { .. })));
    }

    #[test]
    fn null_is_not_negative() {
        assert_eq!(check(&[0xff; 4], &TABLE, CLASSIC), Ok(()));
        assert_eq!(check(&[0xff, 0xff, 0xff, 0xfe], &TABLE, CLASSIC), Err(ShapeError::Negative));
    }

    #[test]
    fn elements_that_are_much_larger_than_their_bytes_are_refused() {
        let rows = |count: u32| {
            let row = [0; 4].repeat(count as usize);
            check(&[&count.to_be_bytes()[..], &row].concat(), &TABLE, CLASSIC)
        };
        let room = ANSWER_BYTES as u32 / 1000;
        assert_eq!(rows(room), Ok(()));
        let memory = ShapeError::Memory(ANSWER_BYTES as u64 + 4 * (4 + 4 * 2 * u64::from(room)));
        assert_eq!(rows(2 * room), Err(memory));
    }

    #[test]
    fn left_over_bytes_are_an_error() {
        assert_eq!(check(&[0, 0, 0, 0, 9], &TABLE, CLASSIC), Err(ShapeError::LeftOver(1)));
    }
}
