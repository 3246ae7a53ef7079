//! What a `/metrics` page says: fetched over HTTP, its gauges, and the quantiles of its histograms.

use std::collections::BTreeMap;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(3);
/// The most of a page that is read, in bytes.
const PAGE_BYTES: u64 = 8 << 20;

/// Fetches a page of a role's HTTP port; the body, whatever the status.
///
/// # Errors
/// What was wrong, in a few words.
pub async fn fetch(url: &str, path: &str) -> Result<String, String> {
    let authority = url.strip_prefix("http://").ok_or_else(|| format!("{url}: expected http://host:port"))?;
    let fetched = tokio::time::timeout(TIMEOUT, get(authority, path)).await;
    let page = fetched.map_err(|_| format!("{url} does not answer"))?.map_err(|error| format!("{url}: {error}"))?;
    let (_, body) = page.split_once("\r\n\r\n").ok_or_else(|| format!("{url} does not speak HTTP"))?;
    Ok(body.to_owned())
}

/// HTTP/1.0, whose answer ends with the connection.
async fn get(authority: &str, path: &str) -> std::io::Result<String> {
    let mut connection = TcpStream::connect(authority).await?;
    connection.write_all(format!("GET {path} HTTP/1.0\r\nHost: {authority}\r\n\r\n").as_bytes()).await?;
    let mut page = Vec::new();
    connection.take(PAGE_BYTES).read_to_end(&mut page).await?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

/// The sum of a metric over its labels; none where the page does not have it.
pub fn value(page: &str, name: &str) -> Option<f64> {
    let values: Vec<f64> = samples(page, name).map(|(_, value)| value).collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

/// A quantile of a histogram over all its labels, in its unit, as Prometheus's `histogram_quantile` gives it; none without observations.
pub fn quantile(page: &str, name: &str, quantile: f64) -> Option<f64> {
    let mut buckets: BTreeMap<u64, (f64, f64)> = BTreeMap::new();
    for (labels, count) in samples(page, &format!("{name}_bucket")) {
        let bound = label(labels, "le")?;
        let bound: f64 = if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? };
        // Bounds are positive, so their bits are in their order.
        let bucket = buckets.entry(bound.to_bits()).or_insert((bound, 0.0));
        bucket.1 += count;
    }
    let total = buckets.values().next_back()?.1;
    let rank = quantile * total;
    let (mut below, mut lower) = (0.0, 0.0);
    for (bound, count) in buckets.into_values().filter(|_| total > 0.0) {
        if count >= rank {
            let share = if count > below { (rank - below) / (count - below) } else { 1.0 };
            return Some(if bound.is_finite() { lower + (bound - lower) * share } else { lower });
        }
        (below, lower) = (count, bound);
    }
    None
}

fn samples<'a>(page: &'a str, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
    page.lines().filter_map(move |line| {
        let rest = line.strip_prefix(name)?;
        let (labels, value) = match rest.strip_prefix('{') {
            Some(rest) => rest.rsplit_once('}')?,
            None => ("", rest.starts_with(' ').then_some(rest)?),
        };
        Some((labels, value.trim().parse().ok()?))
    })
}

fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    labels.split(',').find_map(|label| label.strip_prefix(name)?.strip_prefix("=\"")?.strip_suffix('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# TYPE d histogram
d_bucket{lane=\"a\",le=\"0.1\"} 1
d_bucket{lane=\"a\",le=\"1\"} 3
d_bucket{lane=\"a\",le=\"+Inf\"} 3
d_bucket{lane=\"b\",le=\"0.1\"} 0
d_bucket{lane=\"b\",le=\"1\"} 0
d_bucket{lane=\"b\",le=\"+Inf\"} 1
d_count 4
e_bucket{le=\"1\"} 0
e_bucket{le=\"+Inf\"} 0
lag 7
lag_other 1
";

    #[test]
    fn quantiles_and_values() {
        assert_eq!(quantile(PAGE, "d", 0.25), Some(0.1));
        assert_eq!(quantile(PAGE, "d", 0.5), Some(0.55));
        assert_eq!(quantile(PAGE, "d", 0.99), Some(1.0));
        assert_eq!(quantile(PAGE, "e", 0.5), None);
        assert_eq!(quantile(PAGE, "f", 0.5), None);
        assert_eq!((value(PAGE, "lag"), value(PAGE, "d_count"), value(PAGE, "none")), (Some(7.0), Some(4.0), None));
    }
}
