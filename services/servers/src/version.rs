//! The version a server reports of itself, and how two compare.

use std::fmt;

/// A version: major, minor, patch. What follows (`rc1`, a distribution's suffix) is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

impl Version {
    /// Reads the first version in what a server prints for `--version`, such as `nats-server: v2.15.1` or
    /// `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`; absent numbers are 0 (`18beta1` is 18.0.0).
    pub fn parse(text: &str) -> Option<Version> {
        let word = text
            .split([' ', '\t', '\n', '\r', ',', '('])
            .map(|word| word.strip_prefix('v').unwrap_or(word))
            .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
        let mut numbers = [0; 3];
        for (number, part) in numbers.iter_mut().zip(word.split('.')) {
            let digits = part.bytes().take_while(u8::is_ascii_digit).count();
            if digits == 0 {
                break;
            }
            *number = part[..digits].parse().ok()?;
            if digits < part.len() {
                break;
            }
        }
        Some(Version(numbers[0], numbers[1], numbers[2]))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

#[cfg(test)]
mod tests {
    use super::Version;

    fn check(text: &str, expected: Option<(u32, u32, u32)>) {
        let expected = expected.map(|(major, minor, patch)| Version(major, minor, patch));
        assert_eq!(Version::parse(text), expected, "{text:?}");
    }

    #[test]
    fn reads_what_servers_print() {
        check("nats-server: v2.15.1\n", Some((2, 15, 1)));
        check("nats-server: v2.9.10", Some((2, 9, 10)));
        check("nats-server: v2.12.0-RC.3", Some((2, 12, 0)));
        check("nats-server: v2.14", Some((2, 14, 0)));
        check("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", Some((15, 18, 0)));
        check("postgres (PostgreSQL) 18beta1", Some((18, 0, 0)));
        check("postgres (PostgreSQL) 19devel", Some((19, 0, 0)));
        check("initdb (PostgreSQL) 9.6.24", Some((9, 6, 24)));
        check("15", Some((15, 0, 0)));
        check("", None);
        check("nats-server: dev", None);
        check("99999999999.1", None);
        check("1.x2.3", Some((1, 0, 0)));
        check("é 2.é", Some((2, 0, 0)));
    }

    #[test]
    fn compares_numbers_not_text() {
        let in_order = ["2.9.10", "2.10.0", "2.12.4", "2.12.5", "2.15.1", "14.0", "15.18"];
        for pair in in_order.windows(2) {
            assert!(Version::parse(pair[0]) < Version::parse(pair[1]), "{pair:?}");
        }
    }
}
