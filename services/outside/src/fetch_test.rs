//! Reading URLs: limits, conditions, redirects and tokens, against a small server.

use crate::testing::{Asked, Server, answer};
use crate::{Answer, Error, Host, Limits, Outside, Sources};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write;
use std::time::{Duration, Instant};

fn zipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

fn site(asked: &Asked) -> Vec<u8> {
    match asked.path.as_str() {
        "/etag" if asked.header("if-none-match") == Some("\"1\"") => answer("304 Not Modified", &[], b""),
        "/etag" => answer("200 OK", &[("etag", "\"1\"")], b"content"),
        "/zipped" => answer("200 OK", &[("content-encoding", "gzip")], &zipped(b"content")),
        "/bomb" => answer("200 OK", &[("content-encoding", "gzip")], &zipped(&vec![0; 1 << 20])),
        "/brotli" => answer("200 OK", &[("content-encoding", "br")], b"content"),
        "/not-zipped" => answer("200 OK", &[("content-encoding", "gzip")], b"content"),
        "/large" => answer("200 OK", &[], &[b'x'; 1001]),
        "/endless" => [b"HTTP/1.1 200 OK\r\n\r\n".as_slice(), &vec![b'x'; 100_000]].concat(),
        "/short" => b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc".to_vec(),
        "/moved" => answer("301 Moved Permanently", &[("location", "/etag")], b""),
        "/gone" => answer("410 Gone", &[], b""),
        "/broken" => answer("503 Service Unavailable", &[], b""),
        "/busy" => answer("429 Too Many Requests", &[], b""),
        "/sign-in" => answer("203 Non-Authoritative Information", &[], b"<html>"),
        _ => answer("404 Not Found", &[], b""),
    }
}

fn outside(hosts: Vec<Host>) -> Outside {
    let limits = Limits { bytes: 1000, timeout: Duration::from_secs(5), ..Limits::default() };
    Outside::new(&Sources { hosts, files: Vec::new() }, limits).expect("usable")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_url_gives() {
    let server = Server::start("127.0.0.1:0", site).await;
    let outside = outside(vec![Host { host: server.url(), ..Host::default() }]);
    let check = async |path: &str, etag: Option<&str>, expected: &str| {
        let url = format!("{}{path}", server.url());
        let found = match outside.read_url(&url, etag).await {
            Ok(Answer::NotModified) => "not modified".to_owned(),
            Ok(Answer::Content(content)) => {
                format!("{} {:?}", String::from_utf8_lossy(&content.bytes), content.etag.as_deref())
            }
            Err(Error::Away(what)) => format!("away: {what}"),
            Err(error) => error.to_string(),
        };
        let found = found.replace(&server.url(), "$URL");
        assert!(found.contains(expected), "{path}: {found}");
    };
    check("/etag", None, "content Some(\"\\\"1\\\"\")").await;
    check("/etag", Some("\"1\""), "not modified").await;
    check("/etag", Some("\"2\""), "content Some(").await;
    check("/moved", Some("\"1\""), "not modified").await;
    check("/zipped", None, "content None").await;
    check("/bomb", None, "Error: $URL/bomb is larger than 1000 bytes").await;
    check("/brotli", None, "encoded as br").await;
    check("/not-zipped", None, "is no gzip").await;
    check("/large", None, "larger than 1000 bytes").await;
    check("/endless", None, "larger than 1000 bytes").await;
    check("/short", None, "away: $URL/short could not be read to its end").await;
    check("/none", None, "NotFoundError: could not read $URL/none, 404 Not Found").await;
    check("/gone", None, "Error: could not read $URL/gone, 410 Gone").await;
    check("/broken", None, "away: could not read $URL/broken, 503").await;
    check("/busy", None, "away: ").await;
    check("/sign-in", None, "could not read $URL/sign-in, 203").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_server_is_not_waited_for() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let sources = Sources { hosts: vec![Host { host: url.clone(), ..Host::default() }], files: Vec::new() };
    let limits = Limits { timeout: Duration::from_millis(200), ..Limits::default() };
    let outside = Outside::new(&sources, limits).expect("usable");
    let begun = Instant::now();
    let error = outside.read_url(&url, None).await.expect_err("nobody answers");
    assert!(matches!(error, Error::Away(_)), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_goes_to_its_own_host_alone() {
    let other = Server::start("127.0.0.1:0", |_| answer("200 OK", &[], b"other")).await;
    let elsewhere = other.url();
    let server = Server::start("127.0.0.1:0", move |asked| match asked.path.as_str() {
        "/away" => answer("302 Found", &[("location", &format!("{elsewhere}/x"))], b""),
        "/back" => answer("302 Found", &[("location", "/here")], b""),
        _ => answer("200 OK", &[], b"here"),
    })
    .await;
    let directory = tempfile::tempdir().expect("a directory");
    let token_file = directory.path().join("token");
    std::fs::write(&token_file, "s3cret\n").expect("a file");
    let with_token =
        |host: &str| Host { host: host.to_owned(), token_file: Some(token_file.clone()), ..Host::default() };
    let outside = outside(vec![with_token(&server.url()), with_token(&other.url())]);
    let authorized = |server: &Server| -> Vec<Option<String>> {
        server.asked().iter().map(|asked| asked.header("authorization").map(str::to_owned)).collect()
    };
    outside.read_url(&format!("{}/back", server.url()), None).await.expect("it is read");
    assert_eq!(authorized(&server), [Some("Bearer s3cret".to_owned()), Some("Bearer s3cret".to_owned())]);
    outside.read_url(&format!("{}/away", server.url()), None).await.expect("it is read");
    assert_eq!(authorized(&server), [Some("Bearer s3cret".to_owned())]);
    assert_eq!(authorized(&other), [None], "not after a redirect, though it has a token of its own");
    outside.read_url(&format!("{}/x", other.url()), None).await.expect("it is read");
    assert_eq!(authorized(&other), [Some("Bearer s3cret".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn source_hosts_are_asked_by_their_api() {
    let api = Server::start("127.0.0.1:0", |asked| match asked.path.as_str() {
        "/api/repos/o/r/contents/d/c.yaml?ref=main"
            if asked.header("accept") == Some("application/vnd.github.v3.raw") =>
        {
            answer("200 OK", &[("etag", "\"1\"")], b"content")
        }
        "/api/repos/o/r/contents/moved.yaml?ref=main" => answer("302 Found", &[("location", "/elsewhere")], b""),
        _ => answer("404 Not Found", &[], b""),
    })
    .await;
    let directory = tempfile::tempdir().expect("a directory");
    let token_file = directory.path().join("token");
    std::fs::write(&token_file, "s3cret").expect("a file");
    let host = Host {
        host: "git.example".to_owned(),
        kind: Some(catalog::git_url::HostKind::GitHub),
        api: Some(format!("{}/api", api.url())),
        token_file: Some(token_file),
        allow_private: true,
        ..Host::default()
    };
    let outside = outside(vec![host]);
    let read = async |path: &str| outside.read_url(&format!("https://git.example/o/r/{path}"), None).await;
    assert!(matches!(read("blob/main/d/c.yaml").await, Ok(Answer::Content(content)) if content.bytes == b"content"));
    assert_eq!(api.asked()[0].header("authorization"), Some("Bearer s3cret"));
    let error = read("blob/main/none.yaml").await.expect_err("it is not there").to_string();
    let read_as = format!("{}/api/repos/o/r/contents/none.yaml?ref=main", api.url());
    assert_eq!(
        error,
        format!(
            "NotFoundError: https://git.example/o/r/blob/main/none.yaml could not be read as {read_as}, 404 Not Found"
        )
    );
    assert!(matches!(read("blob/main/moved.yaml").await, Err(Error::NotAllowed(_))), "out of the API");
    assert!(matches!(read("blob/main/%2e%2e/%2e%2e/x").await, Err(Error::Refused(_))));
}
