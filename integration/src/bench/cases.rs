//! What is measured: which objects, over what, and how the figures are to be read.

use std::time::Duration;

use super::clients::Client;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// The size of the data file that every object is a slice of.
pub(super) const DATA_BYTES: u64 = 4096 * MIB;

/// An object: its key, and which slice of the data file it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) key: String,
    pub(super) offset: u64,
    pub(super) size: u64,
}

/// How a distant store differs from a near one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// From the last byte of a request to the first of its answer.
    pub(super) first_byte: Duration,
    /// Of one connection.
    pub(super) bytes_per_second: u64,
}

/// What one S3 stream gives.
const DISTANT: Pace = Pace { first_byte: Duration::from_millis(30), bytes_per_second: 90_000_000 };

/// How the CPU seconds of a case are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// Per GiB: where bytes decide.
    PerGib,
    /// As they are: where objects decide.
    Total,
    /// As they are, in milliseconds like the wall time: where the start decides.
    Milliseconds,
}

/// One case.
#[derive(Clone, Debug)]
pub(super) struct Case {
    /// What `--case` calls it.
    pub(super) name: &'static str,
    /// What the report calls it.
    pub(super) title: &'static str,
    pub(super) tls: bool,
    pub(super) pace: Option<Pace>,
    pub(super) objects: Vec<Object>,
    pub(super) scale: Scale,
    /// Who takes part, where nobody says otherwise.
    pub(super) clients: Vec<Client>,
    /// How often, where nobody says otherwise.
    pub(super) rounds: usize,
    /// Connections of the floor and processes of curl.
    pub(super) connections: usize,
    /// Whether it is run where no case is named.
    pub(super) standard: bool,
}

const EVERYONE: &[Client] = &[Client::Ours, Client::S5cmd, Client::Kserve, Client::AwsCli, Client::Curl, Client::Floor];

impl Case {
    /// Every case, in the order of the report.
    pub(super) fn all() -> Vec<Self> {
        let four = || objects("4x512m", 4, 512 * MIB);
        let one = || objects("1x4g", 1, DATA_BYTES);
        vec![
            Self::new("tls-4x512", "4 x 512 MiB over TLS", four()),
            Self { tls: false, ..Self::new("plain-4x512", "4 x 512 MiB over plain HTTP", four()) },
            Self::new("tls-1x4096", "One object of 4 GiB over TLS", one()),
            Self {
                clients: vec![Client::Ours, Client::S5cmd, Client::Floor],
                ..Self::new("tls-4x1024", "4 x 1 GiB over TLS", objects("4x1g", 4, 1024 * MIB))
            },
            Self { tls: false, ..Self::new("plain-1x4096", "One object of 4 GiB over plain HTTP", one()) },
            Self {
                scale: Scale::Total,
                ..Self::new("tls-5000x16k", "5,000 x 16 KiB over TLS", objects("5000x16k", 5000, 16 * KIB))
            },
            Self::new("tls-500x4m", "500 x 4 MiB over TLS", objects("500x4m", 500, 4 * MIB)),
            Self {
                pace: Some(DISTANT),
                connections: 16,
                ..Self::new(
                    "distant",
                    "A distant store: 4 x 512 MiB over TLS, 30 ms to the first byte, 90 MB/s per connection",
                    four(),
                )
            },
            Self {
                pace: Some(DISTANT),
                connections: 16,
                clients: vec![Client::Ours, Client::S5cmd, Client::Floor],
                ..Self::new(
                    "distant-4x1024",
                    "The same distant store: 4 x 1 GiB over TLS",
                    objects("4x1g", 4, 1024 * MIB),
                )
            },
            Self {
                clients: vec![Client::Ours, Client::Limited],
                ..Self::new("memory-64m", "One object of 4 GiB over TLS into a memory cgroup of 64 MiB", one())
            },
            Self {
                scale: Scale::Milliseconds,
                rounds: 21,
                ..Self::new("start", "One object of 1 KiB over TLS", objects("1x1k", 1, KIB))
            },
            // For `just profile`: instruction counts do not need many bytes, and counting them takes long.
            Self {
                standard: false,
                clients: vec![Client::Ours],
                ..Self::new("tls-2x64", "2 x 64 MiB over TLS", objects("2x64m", 2, 64 * MIB))
            },
            Self {
                standard: false,
                tls: false,
                clients: vec![Client::Ours],
                ..Self::new("plain-2x64", "2 x 64 MiB over plain HTTP", objects("2x64m", 2, 64 * MIB))
            },
            Self {
                standard: false,
                scale: Scale::Total,
                clients: vec![Client::Ours],
                ..Self::new("tls-500x16k", "500 x 16 KiB over TLS", objects("500x16k", 500, 16 * KIB))
            },
        ]
    }

    fn new(name: &'static str, title: &'static str, objects: Vec<Object>) -> Self {
        Self {
            name,
            title,
            tls: true,
            pace: None,
            objects,
            scale: Scale::PerGib,
            clients: EVERYONE.to_vec(),
            rounds: 5,
            connections: 4,
            standard: true,
        }
    }

    /// The prefix that all its keys have, without the slash.
    pub(super) fn prefix(&self) -> &str {
        self.objects[0].key.split('/').next().unwrap_or_default()
    }

    /// Of all objects.
    pub(super) fn bytes(&self) -> u64 {
        self.objects.iter().map(|object| object.size).sum()
    }

    /// What CPU seconds are multiplied with, and what they are called then.
    pub(super) fn cpu_unit(&self) -> (f64, &'static str) {
        match self.scale {
            Scale::PerGib => ((1024 * MIB) as f64 / self.bytes() as f64, "CPU-s per GiB"),
            Scale::Total => (1.0, "CPU-s"),
            Scale::Milliseconds => (1e3, "CPU-ms"),
        }
    }

    /// The same of seconds of wall time.
    pub(super) fn wall_unit(&self) -> (f64, &'static str) {
        match self.scale {
            Scale::PerGib | Scale::Total => (1.0, "wall, s"),
            Scale::Milliseconds => (1e3, "wall, ms"),
        }
    }
}

/// `count` objects of one size below a prefix, one after the other in the data file.
fn objects(prefix: &str, count: u64, size: u64) -> Vec<Object> {
    (0..count)
        .map(|index| Object {
            key: format!("{prefix}/model-{:05}-of-{count:05}.safetensors", index + 1),
            offset: index * size,
            size,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_object_is_a_slice_of_the_data_file() {
        for case in Case::all() {
            assert!(case.objects.iter().all(|object| object.offset + object.size <= DATA_BYTES), "{}", case.name);
            assert!(case.objects.iter().all(|object| object.key.starts_with(case.prefix())), "{}", case.name);
        }
    }
}
