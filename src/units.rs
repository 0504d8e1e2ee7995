//! Sizes, rates and times as people read and write them.
//!
//! Owns the spelling of bytes, bytes per second and spans of time in settings, logs and messages, and promises that
//! what a [`ByteSize`] prints without a fraction, it also parses. What a setting's bounds are is left to `settings`.

use std::fmt;
use std::time::Duration;

use thiserror::Error;

/// 1 KiB in bytes.
pub const KIB: u64 = 1 << 10;
/// 1 MiB in bytes.
pub const MIB: u64 = 1 << 20;
/// 1 GiB in bytes.
pub const GIB: u64 = 1 << 30;

const BINARY_UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// A number of bytes. Prints as `16 MiB`, `1.5 GiB`, `512 B`: one decimal, rounded, where it is not whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// Why a text is not a size. The messages name the text; the caller names the setting.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ByteSizeError {
    /// There is nothing to parse.
    #[error("the size is empty; write a number of bytes or a quantity such as 16Mi")]
    Empty,
    /// No number in front of the unit: a sign, a word, two decimal points, more than nine decimals.
    #[error("{text:?} is not a size; write a number of bytes or a quantity such as 16Mi")]
    NotANumber {
        /// The text as it was given.
        text: String,
    },
    /// A number with a unit that is none of Kubernetes'.
    #[error("size {text:?} has the unknown unit {unit:?}; use Ki, Mi, Gi, Ti (1024) or k, M, G, T (1000)")]
    UnitUnknown {
        /// The text as it was given.
        text: String,
        /// What follows the number.
        unit: String,
    },
    /// More than 2^64 - 1 bytes.
    #[error("size {text:?} does not fit into 64 bits")]
    TooLarge {
        /// The text as it was given.
        text: String,
    },
}

impl ByteSize {
    /// Parses a Kubernetes quantity (`16Mi`, `1.5Gi`, `500M`, `1048576`), or the same with a `B` behind it (`16MiB`,
    /// `16 MiB`, `500MB`). A fraction of a byte rounds up, as `Quantity.Value()` of apimachinery does.
    ///
    /// Not taken over from Kubernetes: exponents (`1e3`), and `m`, which means a thousandth there and is always a slip
    /// for `M` in a size.
    pub fn parse(text: &str) -> Result<ByteSize, ByteSizeError> {
        let trimmed = text.trim();
        if trimmed.is_empty() {
            return Err(ByteSizeError::Empty);
        }
        let number_len = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(number_len);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.len() + fraction.len() == 0 || fraction.len() > 9 || fraction.contains('.') {
            return Err(ByteSizeError::NotANumber { text: text.to_owned() });
        }
        let unit = unit.trim_start();
        let factor = unit_factor(unit)
            .ok_or_else(|| ByteSizeError::UnitUnknown { text: text.to_owned(), unit: unit.to_owned() })?;

        // At most nine decimals, so that this overflows only where the size is too large as well.
        let scale = 10_u128.pow(fraction.len() as u32);
        format!("{whole}{fraction}")
            .parse::<u128>()
            .ok()
            .and_then(|digits| digits.checked_mul(factor))
            .and_then(|scaled| u64::try_from(scaled.div_ceil(scale)).ok())
            .map(ByteSize)
            .ok_or_else(|| ByteSizeError::TooLarge { text: text.to_owned() })
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

fn unit_factor(unit: &str) -> Option<u128> {
    Some(match unit {
        "" | "B" => 1,
        "k" | "kB" | "KB" => 1_000,
        "M" | "MB" => 1_000_000,
        "G" | "GB" => 1_000_000_000,
        "T" | "TB" => 1_000_000_000_000,
        "P" | "PB" => 1_000_000_000_000_000,
        "E" | "EB" => 1_000_000_000_000_000_000,
        "Ki" | "KiB" => 1 << 10,
        "Mi" | "MiB" => 1 << 20,
        "Gi" | "GiB" => 1 << 30,
        "Ti" | "TiB" => 1 << 40,
        "Pi" | "PiB" => 1 << 50,
        "Ei" | "EiB" => 1 << 60,
        _ => return None,
    })
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exponent = (self.0.max(1).ilog2() / 10) as usize;
        let (tenths, exponent) = match tenths(self.0, exponent) {
            // 1023.96 KiB rounds to 1024.0 KiB, which is 1 MiB.
            10_240 => (10, exponent + 1),
            tenths => (tenths, exponent),
        };
        let unit = BINARY_UNITS[exponent];
        if exponent == 0 || tenths.is_multiple_of(10) && tenths * (1 << (10 * exponent)) == u128::from(self.0) * 10 {
            write!(f, "{} {unit}", tenths / 10)
        } else {
            write!(f, "{}.{} {unit}", tenths / 10, tenths % 10)
        }
    }
}

/// Tenths of the unit `1024^exponent`, rounded half up.
fn tenths(bytes: u64, exponent: usize) -> u128 {
    let unit = 1_u128 << (10 * exponent);
    (u128::from(bytes) * 10 + unit / 2) / unit
}

/// Bytes per second. Prints as `92.3 MiB/s`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(ByteSize);

impl Rate {
    /// The mean rate of so many bytes over so long a time; zero where no time has passed.
    pub fn over(bytes: u64, time: Duration) -> Rate {
        let per_second = u128::from(bytes).saturating_mul(1_000_000_000).checked_div(time.as_nanos()).unwrap_or(0);
        Rate(ByteSize(u64::try_from(per_second).unwrap_or(u64::MAX)))
    }

    /// Whole bytes per second.
    pub const fn bytes_per_second(self) -> u64 {
        self.0.0
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", self.0)
    }
}

/// A span of time, in the two largest units that matter: `850 ms`, `12.3 s`, `4 m 10 s`, `2 h 5 m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeSpan(pub Duration);

impl fmt::Display for TimeSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Each bound is where the finer unit would round up to the coarser one.
        let millis = (self.0.as_micros() + 500) / 1_000;
        let tenths = (self.0.as_millis() + 50) / 100;
        let seconds = (self.0.as_millis() + 500) / 1_000;
        if millis < 1_000 {
            write!(f, "{millis} ms")
        } else if tenths < 600 {
            write!(f, "{}.{} s", tenths / 10, tenths % 10)
        } else if seconds < 3_600 {
            write!(f, "{} m {} s", seconds / 60, seconds % 60)
        } else {
            let minutes = (seconds + 30) / 60;
            write!(f, "{} h {} m", minutes / 60, minutes % 60)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_size_prints_in_the_largest_unit_that_it_fills() {
        for (bytes, text) in [
            (0, "0 B"),
            (512, "512 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1025, "1.0 KiB"),
            (16 * MIB, "16 MiB"),
            (MIB - 1, "1.0 MiB"),
            (MIB - 60 * 1024, "964 KiB"),
            (3 * GIB / 2, "1.5 GiB"),
            (GIB + 1, "1.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(ByteSize(bytes).to_string(), text, "{bytes}");
        }
    }

    #[test]
    fn a_size_is_written_as_a_kubernetes_quantity() {
        for (text, bytes) in [
            ("1048576", MIB),
            ("16Mi", 16 * MIB),
            ("16MiB", 16 * MIB),
            (" 16 MiB ", 16 * MIB),
            ("1Gi", GIB),
            ("1.5Gi", 3 * GIB / 2),
            (".5Ki", 512),
            ("500M", 500_000_000),
            ("2.Ki", 2048),
            ("2kB", 2_000),
            ("1B", 1),
            ("0.1", 1),
            ("0", 0),
            ("18446744073709551615", u64::MAX),
            ("15.999999999Ei", 18_446_744_072_556_630_112),
        ] {
            assert_eq!(ByteSize::parse(text), Ok(ByteSize(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_size_is_refused_with_an_example() {
        insta::assert_snapshot!(
            [
                "", "Mi", "-1", "1.2.3", "sixteen", "16Xi", "16mi", "100m", "1e3", "0.0000000001", "18446744073709551616",
                "16Ei", "99999999999999999999999999999999999999999",
            ]
            .map(|text| format!("{text:?}: {}", ByteSize::parse(text).unwrap_err()))
            .join("\n"),
            @r#"
            "": the size is empty; write a number of bytes or a quantity such as 16Mi
            "Mi": "Mi" is not a size; write a number of bytes or a quantity such as 16Mi
            "-1": "-1" is not a size; write a number of bytes or a quantity such as 16Mi
            "1.2.3": "1.2.3" is not a size; write a number of bytes or a quantity such as 16Mi
            "sixteen": "sixteen" is not a size; write a number of bytes or a quantity such as 16Mi
            "16Xi": size "16Xi" has the unknown unit "Xi"; use Ki, Mi, Gi, Ti (1024) or k, M, G, T (1000)
            "16mi": size "16mi" has the unknown unit "mi"; use Ki, Mi, Gi, Ti (1024) or k, M, G, T (1000)
            "100m": size "100m" has the unknown unit "m"; use Ki, Mi, Gi, Ti (1024) or k, M, G, T (1000)
            "1e3": size "1e3" has the unknown unit "e3"; use Ki, Mi, Gi, Ti (1024) or k, M, G, T (1000)
            "0.0000000001": "0.0000000001" is not a size; write a number of bytes or a quantity such as 16Mi
            "18446744073709551616": size "18446744073709551616" does not fit into 64 bits
            "16Ei": size "16Ei" does not fit into 64 bits
            "99999999999999999999999999999999999999999": size "99999999999999999999999999999999999999999" does not fit into 64 bits
            "#
        );
    }

    #[test]
    fn a_rate_is_bytes_over_time() {
        assert_eq!(Rate::over(184 * MIB + 600 * KIB, Duration::from_secs(2)).to_string(), "92.3 MiB/s");
        assert_eq!(Rate::over(5, Duration::from_millis(500)).bytes_per_second(), 10);
        assert_eq!(Rate::over(5, Duration::ZERO).to_string(), "0 B/s");
        assert_eq!(Rate::over(u64::MAX, Duration::from_nanos(1)).bytes_per_second(), u64::MAX);
    }

    #[test]
    fn a_time_span_prints_two_units_at_most() {
        for (millis, text) in [
            (0, "0 ms"),
            (850, "850 ms"),
            (999, "999 ms"),
            (1_000, "1.0 s"),
            (12_345, "12.3 s"),
            (59_949, "59.9 s"),
            (59_950, "1 m 0 s"),
            (250_000, "4 m 10 s"),
            (3_599_499, "59 m 59 s"),
            (3_599_500, "1 h 0 m"),
            (7_500_000, "2 h 5 m"),
        ] {
            assert_eq!(TimeSpan(Duration::from_millis(millis)).to_string(), text, "{millis}");
        }
        assert_eq!(TimeSpan(Duration::from_micros(999_500)).to_string(), "1.0 s");
    }

    proptest! {
        #[test]
        fn a_size_that_prints_whole_parses_to_itself(bytes: u64, shift in 0_u32..64) {
            let size = ByteSize(bytes >> shift << (shift / 2));
            let text = size.to_string();
            if !text.contains('.') {
                prop_assert_eq!(ByteSize::parse(&text), Ok(size));
            }
        }

        #[test]
        fn a_printed_size_is_off_by_a_twentieth_of_its_unit_at_most(bytes in 0..u64::MAX / 2) {
            let text = ByteSize(bytes).to_string();
            let unit = ByteSize::parse(&format!("1{}", text.split_once(' ').unwrap().1)).unwrap().0;
            let printed = ByteSize::parse(&text).unwrap().0;
            prop_assert!(printed.abs_diff(bytes) <= unit / 20 + 1);
        }
    }
}
