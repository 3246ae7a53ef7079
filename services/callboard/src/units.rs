//! Durations and sizes as people write them: `30s`, `10m`, `4GiB`.

use std::time::Duration;

/// Reads a whole number with a unit of time: `ms`, `s`, `m`, `h`, `d`.
///
/// # Errors
/// What was expected, for the error about the setting.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => 0,
    };
    let total = number.and_then(|number| number.checked_mul(milliseconds)).filter(|_| milliseconds > 0);
    total
        .map(Duration::from_millis)
        .ok_or_else(|| "expected a whole number with its unit (ms, s, m, h, d), for example 30s".to_owned())
}

/// Reads a whole number of bytes with or without a unit: `KiB`, `MiB`, `GiB`, `TiB`.
///
/// # Errors
/// What was expected, for the error about the setting.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let factor: u64 = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => 0,
    };
    let total = number.and_then(|number| number.checked_mul(factor)).filter(|_| factor > 0);
    total.ok_or_else(|| {
        "expected a whole number of bytes or one with a unit (KiB, MiB, GiB, TiB), for example 4GiB".to_owned()
    })
}

fn split(text: &str) -> (Option<u64>, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (text[..end].parse().ok(), text[end..].trim_start())
}

/// Bytes for people: `1.5 MiB`.
pub fn show_bytes(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    #[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
    let (mut shown, mut unit) = (bytes as f64, 0);
    while shown >= 1024.0 && unit + 1 < units.len() {
        shown /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{shown:.1} {}", units[unit]),
    }
}

/// Seconds for people: `0.8 ms`, `12 ms`, `3.4 s`, `5 min`, `2 h`, `3 d`.
pub fn show_seconds(seconds: f64) -> String {
    match seconds {
        s if s < 0.01 => format!("{:.1} ms", s * 1000.0),
        s if s < 1.0 => format!("{:.0} ms", s * 1000.0),
        s if s < 120.0 => format!("{s:.1} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3600.0),
        s => format!("{:.0} d", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(parse_duration(text).ok().map(|found| found.as_millis()), expected.map(u128::from), "{text:?}");
        };
        check("30s", Some(30_000));
        check("250ms", Some(250));
        check("10 m", Some(600_000));
        check("1d", Some(86_400_000));
        check("30", None);
        check("s", None);
        check("-1s", None);
        check("1.5s", None);
        check("99999999999999999999s", None);
        check("9999999999999999d", None);
        check("1é", None);
    }

    #[test]
    fn sizes() {
        let check = |text: &str, expected: Option<u64>| assert_eq!(parse_bytes(text).ok(), expected, "{text:?}");
        check("17", Some(17));
        check("4GiB", Some(4 << 30));
        check("512 MiB", Some(512 << 20));
        check("4GB", None);
        check("", None);
        check("99999999TiB", None);
    }

    #[test]
    fn shown() {
        assert_eq!([show_bytes(17), show_bytes(1536), show_bytes(4 << 30)], ["17 B", "1.5 KiB", "4.0 GiB"]);
        assert_eq!(
            [show_seconds(0.0008), show_seconds(0.012), show_seconds(3.44), show_seconds(300.0)],
            ["0.8 ms", "12 ms", "3.4 s", "5 min"]
        );
    }
}
