//! How partitions are read.

use std::time::Duration;

use super::property::{INT_MAX, Property, PropertyError};
use crate::limits::FETCH_BYTES_MOST;

/// Checked settings of a [`crate::Consumer`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ConsumerConfig {
    pub(crate) isolation: IsolationLevel,
    pub(crate) fetch_wait: Duration,
    pub(crate) fetch_min_bytes: i32,
    pub(crate) fetch_bytes: usize,
    pub(crate) partition_bytes: usize,
    pub(crate) rack: String,
}

/// Which records of transactions are read (`isolation.level`, KIP-98).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IsolationLevel {
    /// All of them, those of open and aborted transactions included.
    ReadUncommitted,
    /// Those of committed transactions, up to the last stable offset: that of the first transaction
    /// which is open.
    ReadCommitted,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            isolation: IsolationLevel::ReadUncommitted,
            fetch_wait: Duration::from_millis(500),
            fetch_min_bytes: 1,
            fetch_bytes: 16 * 1024 * 1024,
            partition_bytes: 1024 * 1024,
            rack: String::new(),
        }
    }
}

impl ConsumerConfig {
    /// `isolation.level`; [`IsolationLevel::ReadUncommitted`] unless set.
    #[must_use]
    pub fn isolation(mut self, level: IsolationLevel) -> Self {
        self.isolation = level;
        self
    }

    /// `fetch.max.wait.ms`: for how long a broker keeps one Fetch that finds too little; 500 ms
    /// unless set, and 1 ms at least.
    #[must_use]
    pub fn fetch_max_wait(mut self, wait: Duration) -> Self {
        self.fetch_wait = wait;
        self
    }

    /// `fetch.min.bytes`: with less a broker waits, up to `fetch.max.wait.ms`; 1 unless set, and at
    /// least.
    #[must_use]
    pub fn fetch_min_bytes(mut self, bytes: i32) -> Self {
        self.fetch_min_bytes = bytes.max(1);
        self
    }

    /// `fetch.max.bytes` of one answer, up to 64 MiB; 16 MiB unless set. One batch comes all the same
    /// if it is larger (KIP-74).
    #[must_use]
    pub fn fetch_max_bytes(mut self, bytes: usize) -> Self {
        self.fetch_bytes = bytes.clamp(1, FETCH_BYTES_MOST);
        self
    }

    /// `max.partition.fetch.bytes` of one partition in an answer; 1 MiB unless set.
    #[must_use]
    pub fn max_partition_fetch_bytes(mut self, bytes: usize) -> Self {
        self.partition_bytes = bytes.clamp(1, FETCH_BYTES_MOST);
        self
    }

    /// `client.rack`: partitions are read from a replica there, if brokers choose it (KIP-392), which
    /// takes one more request each time; from leaders unless set.
    ///
    /// # Errors
    /// [`PropertyError`] when it has more than 249 bytes or a control character.
    pub fn rack(mut self, rack: &str) -> Result<Self, PropertyError> {
        self.rack = checked_rack(Property { name: "client.rack", value: rack })?;
        Ok(self)
    }

    /// Whether it is a consumer's property, and set.
    pub(super) fn set(&mut self, property: Property<'_>) -> Result<bool, PropertyError> {
        match property.name {
            "isolation.level" => self.isolation = property.choice(LEVELS)?,
            "fetch.max.wait.ms" => self.fetch_wait = property.millis(1, INT_MAX)?,
            "fetch.min.bytes" => self.fetch_min_bytes = property.number(1, i32::MAX)?,
            "fetch.max.bytes" => self.fetch_bytes = property.size(1, FETCH_BYTES_MOST as u64)?,
            "max.partition.fetch.bytes" => {
                self.partition_bytes = property.size(1, FETCH_BYTES_MOST as u64)?
            }
            "client.rack" => self.rack = checked_rack(property)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl IsolationLevel {
    /// As in a Fetch or ListOffsets request.
    pub(crate) fn wire(self) -> i8 {
        match self {
            Self::ReadUncommitted => 0,
            Self::ReadCommitted => 1,
        }
    }
}

const LEVELS: &[(&str, IsolationLevel)] = &[
    ("read_uncommitted", IsolationLevel::ReadUncommitted),
    ("read_committed", IsolationLevel::ReadCommitted),
];

/// Bytes of a rack's name; what `broker.rack` says in practice has some 20.
const RACK_BYTES: usize = 249;

fn checked_rack(property: Property<'_>) -> Result<String, PropertyError> {
    let is_name = |text: &str| text.len() <= RACK_BYTES && !text.chars().any(char::is_control);
    if is_name(property.value) {
        Ok(property.value.to_owned())
    } else {
        Err(property.invalid(format!("at most {RACK_BYTES} bytes without control characters")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    #[test]
    fn settings_in_types_are_the_same_as_in_properties() {
        let properties = [
            ("bootstrap.servers", "h:1"),
            ("isolation.level", "read_committed"),
            ("fetch.max.wait.ms", "7"),
            ("fetch.min.bytes", "8"),
            ("fetch.max.bytes", "9"),
            ("max.partition.fetch.bytes", "10"),
            ("client.rack", "a"),
        ];
        let typed = ConsumerConfig::default()
            .isolation(IsolationLevel::ReadCommitted)
            .fetch_max_wait(Duration::from_millis(7))
            .fetch_min_bytes(8)
            .fetch_max_bytes(9)
            .max_partition_fetch_bytes(10)
            .rack("a");
        let read = Config::from_properties(properties).unwrap();
        let plain = Config::from_properties([properties[0]]).unwrap();
        assert_eq!(typed, Ok(read.consumer));
        assert_eq!(read.cluster, plain.cluster, "a client is another by its cluster's part alone");
        assert!(ConsumerConfig::default().rack("\n").is_err());
    }
}
