//! How the value of each setting is read, and what is said of one that cannot be used.

use crate::units::{parse_bytes, parse_duration};
use std::time::Duration;

/// What `installation` may be.
pub fn installation(text: &str) -> Result<String, String> {
    bus::Names::new(text).map(|names| names.installation().to_owned()).map_err(|error| error.to_string())
}

/// What `nats_url` may be.
pub fn nats_url(text: &str) -> Result<String, String> {
    let is_address = |part: &str| {
        let rest = part.trim().strip_prefix("nats://").or_else(|| part.trim().strip_prefix("tls://"));
        rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(char::is_whitespace))
    };
    match text.split(',').all(is_address) {
        true => Ok(text.to_owned()),
        false => Err("expected nats://host:port or tls://host:port, several separated by commas".to_owned()),
    }
}

/// What `database_url` may be.
pub fn database_url(text: &str) -> Result<String, String> {
    match text.starts_with("postgres://") || text.starts_with("postgresql://") {
        true => Ok(text.to_owned()),
        // Not shown: it may hold a password.
        false => Err("expected postgres://user:password@host:port/database".to_owned()),
    }
}

/// An address of HTTP or gRPC.
pub fn http_url(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    match rest {
        Some(rest) if !rest.is_empty() && !rest.contains(char::is_whitespace) => {
            Ok(text.trim_end_matches('/').to_owned())
        }
        _ => Err("expected http://host:port".to_owned()),
    }
}

/// What `log_filter` may be.
pub fn log_filter(text: &str) -> Result<String, String> {
    let filter = tracing_subscriber::EnvFilter::try_new(text);
    filter.map(|_| text.to_owned()).map_err(|error| {
        format!("{error}; expected a level (error, warn, info, debug, trace) or target=level separated by commas")
    })
}

/// What `replicas` may be.
pub fn replicas(text: &str) -> Result<usize, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        "5" => Ok(5),
        _ => {
            Err("expected 1, 3 or 5: an even number of copies survives no more than the odd number below it".to_owned())
        }
    }
}

/// How large a stream may grow.
pub fn stream_bytes(text: &str) -> Result<i64, String> {
    let bytes = parse_bytes(text)?;
    match i64::try_from(bytes) {
        Ok(bytes) if bytes >= 1 << 20 => Ok(bytes),
        _ => Err("expected at least 1MiB, and less than 8388608TiB".to_owned()),
    }
}

/// What `ack_wait` may be.
pub fn ack_wait(text: &str) -> Result<Duration, String> {
    in_range(text, Duration::from_secs(1), Duration::from_secs(600), "expected 1s to 10m")
}

/// The name of a JetStream domain.
pub fn domain(text: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    match !text.is_empty() && text.bytes().all(fits) {
        true => Ok(text.to_owned()),
        false => Err("expected the name of a JetStream domain: letters, digits, - and _".to_owned()),
    }
}

/// What `snapshot_every` may be.
pub fn snapshot_every(text: &str) -> Result<Duration, String> {
    in_range(text, Duration::from_secs(10), Duration::from_secs(86_400), "expected 10s to 1d")
}

/// What `max_behind` may be.
pub fn max_behind(text: &str) -> Result<Duration, String> {
    in_range(text, Duration::from_secs(5), Duration::from_secs(30 * 86_400), "expected 5s to 30d")
}

/// What `keep_events` may be.
pub fn keep_events(text: &str) -> Result<Duration, String> {
    let window = Duration::from_secs(120);
    in_range(
        text,
        window,
        Duration::from_secs(30 * 86_400),
        "expected 2m to 30d: the broker knows a repeated publish for two minutes, by the event that it still has",
    )
}

/// What `check_every` may be.
pub fn check_every(text: &str) -> Result<Duration, String> {
    in_range(text, Duration::from_secs(1), Duration::from_secs(3600), "expected 1s to 1h")
}

/// What `snapshot_timeout` may be.
pub fn snapshot_timeout(text: &str) -> Result<Duration, String> {
    in_range(text, Duration::from_secs(10), Duration::from_secs(86_400), "expected 10s to 1d")
}

/// What `orphan_grace` may be.
pub fn orphan_grace(text: &str) -> Result<Duration, String> {
    in_range(text, Duration::ZERO, Duration::from_secs(30 * 86_400), "expected 0s to 30d")
}

/// What `read_interval` may be.
pub fn read_interval(text: &str) -> Result<Duration, String> {
    in_range(text, Duration::from_secs(1), Duration::from_secs(30 * 86_400), "expected 1s to 30d")
}

fn in_range(text: &str, least: Duration, most: Duration, expected: &str) -> Result<Duration, String> {
    let duration = parse_duration(text)?;
    (least..=most).contains(&duration).then_some(duration).ok_or_else(|| expected.to_owned())
}

/// What `batch_events` may be.
pub fn batch_events(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=10_000).contains(number));
    number.ok_or_else(|| "expected 1 to 10000".to_owned())
}

/// What `read_bytes` may be.
pub fn read_bytes(text: &str) -> Result<usize, String> {
    let bytes = usize::try_from(parse_bytes(text)?).ok().filter(|bytes| (1 << 10..=64 << 20).contains(bytes));
    bytes.ok_or_else(|| "expected 1KiB to 64MiB".to_owned())
}

/// What `read_timeout` may be.
pub fn read_timeout(text: &str) -> Result<Duration, String> {
    in_range(text, Duration::from_millis(100), Duration::from_secs(60), "expected 100ms to 60s")
}

/// How many at once.
pub fn concurrency(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=1000).contains(number));
    number.ok_or_else(|| "expected 1 to 1000".to_owned())
}
