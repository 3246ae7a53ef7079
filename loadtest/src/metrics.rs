//! What processes say of themselves at `/metrics`: fetched, read, summed over processes.

use crate::Error;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// How long one process may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of one answer.
const MAX_BYTES: u64 = 16 << 20;

/// Samples, of one process or of several together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics(Vec<Sample>);

#[derive(Clone, Debug, PartialEq)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// Fetches the metrics of the process at `host:port`.
///
/// # Errors
/// [`Error::Metrics`] when it does not answer in 5 s, or not with metrics.
pub(crate) async fn fetch(address: &str) -> Result<Metrics, Error> {
    let wrong = |reason: String| Error::Metrics { address: address.to_owned(), reason };
    let (status, body) = get(address, "/metrics").await.map_err(|error| wrong(error.to_string()))?;
    if status != 200 {
        return Err(wrong(format!("expected 200, found {status}")));
    }
    Ok(Metrics::parse(&body))
}

/// One HTTP GET; gives the status and the body.
pub(crate) async fn get(address: &str, path: &'static str) -> std::io::Result<(u16, String)> {
    let address = address.to_owned();
    let got = tokio::task::spawn_blocking(move || get_blocking(&address, path)).await;
    got.map_err(std::io::Error::other)?
}

fn get_blocking(address: &str, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // HTTP/1.0: the answer comes in one piece and ends with the connection.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(MAX_BYTES).read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other("the answer is no HTTP"))?;
    Ok((status, body.to_owned()))
}

impl Metrics {
    /// Reads the Prometheus text format; what is no sample is passed over.
    pub fn parse(text: &str) -> Metrics {
        Metrics(text.lines().filter_map(sample).collect())
    }

    /// Adds the samples of another process.
    pub fn add(&mut self, other: Metrics) {
        self.0.extend(other.0);
    }

    /// The sum of a counter over all processes and label values, as far as these labels have these values.
    /// The name is Backstage's, without Prometheus's `_total`.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let of_name = |sample: &&Sample| sample.name.strip_suffix("_total").unwrap_or(&sample.name) == name;
        self.0.iter().filter(of_name).filter(|sample| sample.has(labels)).fold(0.0, |sum, sample| sum + sample.value)
    }

    /// A quantile (0 to 1) of a histogram over all processes, as far as these labels have these values, in the histogram's unit, interpolated
    /// within a bucket; none where nothing was recorded. What lies beyond the last bound is given as that bound.
    pub fn quantile(&self, name: &str, labels: &[(&str, &str)], quantile: f64) -> Option<f64> {
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        let of_name = |sample: &&Sample| sample.name.strip_suffix("_bucket") == Some(name) && sample.has(labels);
        for sample in self.0.iter().filter(of_name) {
            let bound: f64 = sample.labels.get("le")?.parse().ok()?;
            match buckets.iter_mut().find(|(known, _)| *known == bound) {
                Some((_, count)) => *count += sample.value,
                None => buckets.push((bound, sample.value)),
            }
        }
        buckets.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        let rank = quantile * buckets.last().map(|(_, count)| *count).filter(|count| *count > 0.0)?;
        let (mut lower, mut below) = (0.0, 0.0);
        for (bound, count) in buckets {
            if count >= rank && count > below {
                let share = (rank - below) / (count - below);
                return Some(if bound.is_finite() { lower + (bound - lower) * share } else { lower });
            }
            (lower, below) = (bound, count);
        }
        Some(lower)
    }
}

impl Sample {
    fn has(&self, labels: &[(&str, &str)]) -> bool {
        labels.iter().all(|(key, value)| self.labels.get(*key).is_some_and(|found| found == value))
    }
}

fn sample(line: &str) -> Option<Sample> {
    if line.starts_with('#') {
        return None;
    }
    let (head, value) = match line.rfind('}') {
        Some(end) => line.split_at(end + 1),
        None => line.split_at(line.find(' ')?),
    };
    let value = value.split_whitespace().next()?.parse().ok()?;
    let (name, labels) = head.split_once('{').unwrap_or((head, ""));
    Some(Sample { name: name.trim().to_owned(), labels: read_labels(labels), value })
}

/// `a="b",c="d"}`, with `\"`, `\\` and `\n` inside values.
fn read_labels(text: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let mut rest = text;
    while let Some((key, after)) = rest.split_once("=\"") {
        let mut value = String::new();
        let mut characters = after.char_indices();
        let mut end = after.len();
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => {
                    end = at + 1;
                    break;
                }
                '\\' => match characters.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, other)) => value.push(other),
                    None => {}
                },
                other => value.push(other),
            }
        }
        labels.insert(key.trim_matches([',', ' ']).to_owned(), value);
        rest = &after[end..];
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
# HELP catalog_processed_entities_count_total Events processed
catalog_processed_entities_count_total{result="changed"} 7
catalog_processed_entities_count_total{result="duplicate",odd="a\"b,c}"} 2
catalog_reader_lag 0
delay_seconds_bucket{le="0.1"} 50
delay_seconds_bucket{le="0.2"} 90
delay_seconds_bucket{le="+Inf"} 100
"#;

    fn check(name: &str, labels: &[(&str, &str)], expected: f64) {
        assert_eq!(Metrics::parse(TEXT).sum(name, labels), expected, "{name} {labels:?}");
    }

    #[test]
    fn counters_sum_over_labels() {
        check("catalog_processed_entities_count", &[], 9.0);
        check("catalog_processed_entities_count", &[("result", "changed")], 7.0);
        check("catalog_processed_entities_count", &[("odd", "a\"b,c}")], 2.0);
        check("catalog_processed_entities_count", &[("none", "x")], 0.0);
        check("catalog_reader_lag", &[], 0.0);
        check("absent", &[], 0.0);
    }

    #[test]
    fn quantiles_are_of_all_processes_together() {
        let mut metrics = Metrics::parse(TEXT);
        assert_eq!(metrics.quantile("delay_seconds", &[], 0.25), Some(0.05));
        assert_eq!(metrics.quantile("delay_seconds", &[], 0.7), Some(0.15000000000000002));
        assert_eq!(metrics.quantile("delay_seconds", &[], 0.99), Some(0.2));
        assert_eq!(metrics.quantile("absent", &[], 0.5), None);
        metrics.add(Metrics::parse("delay_seconds_bucket{le=\"0.1\"} 300\ndelay_seconds_bucket{le=\"0.2\"} 300\ndelay_seconds_bucket{le=\"+Inf\"} 300"));
        assert!(metrics.quantile("delay_seconds", &[], 0.5).is_some_and(|median| median < 0.1));
    }

    #[test]
    fn no_text_is_too_odd() {
        for text in ["", "{", "}", "a", "a{", "a{b=\"", "a{b=\"\\", "a{b=\"c\"} x", "= \"", "é{é=\"é\"} 1"] {
            Metrics::parse(text);
        }
    }
}
