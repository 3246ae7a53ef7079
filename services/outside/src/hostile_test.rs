//! Hostile URLs and redirects against a canary on loopback: none of them reaches it.

use crate::address::Lookup;
use crate::testing::{Asked, Server, answer};
use crate::{Answer, Error, Host, Limits, Outside, Sources};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// `C` is the canary's port, `F` that of the server that may be read.
const URLS: &[&str] = &[
    // Loopback, in all its spellings.
    "http://127.0.0.1:C/",
    "http://127.0.0.2:C/",
    "http://127.1:C/",
    "http://127.0.1:C/",
    "http://2130706433:C/",
    "http://0x7f000001:C/",
    "http://0x7f.0x0.0x0.0x1:C/",
    "http://0177.0.0.1:C/",
    "http://0177.0.0.01:C/",
    "http://017700000001:C/",
    "http://0.0.0.0:C/",
    "http://0:C/",
    "http://127.0.0.1.:C/",
    "http://localhost:C/",
    "http://LOCALHOST:C/",
    "http://localhost.:C/",
    "http://localhost.localdomain:C/",
    "http://ip6-localhost:C/",
    "http://[::1]:C/",
    "http://[0:0:0:0:0:0:0:1]:C/",
    "http://[::]:C/",
    "http://[::ffff:127.0.0.1]:C/",
    "http://[::ffff:7f00:1]:C/",
    "http://[::127.0.0.1]:C/",
    "http://[64:ff9b::127.0.0.1]:C/",
    "http://[64:ff9b::7f00:1]:C/",
    "http://[2002:7f00:1::]:C/",
    "http://１２７.０.０.１:C/",
    "http://①②⑦.⓪.⓪.①:C/",
    "http://127。0。0。1:C/",
    "http://lоcalhost:C/",
    "http://%31%32%37.0.0.1:C/",
    // What looks like the host that is allowed.
    "http://127.0.0.1:F@127.0.0.1:C/",
    "http://user:secret@127.0.0.1:C/",
    "http://user@127.0.0.1:F/",
    "http://:secret@127.0.0.1:F/",
    "http://127.0.0.1:F\\@127.0.0.1:C/",
    "http://127.0.0.1:C#@127.0.0.1:F/",
    "http://127.0.0.1:C?@127.0.0.1:F/",
    "http://127.0.0.1:C/@127.0.0.1:F/",
    "http://127.0.0.1:F.localhost:C/",
    "http://127.0.0.1\t:C/",
    "http://127.0.0.1\n:C/",
    " http://127.0.0.1:C/ ",
    "http:127.0.0.1:C/",
    "http:/127.0.0.1:C/",
    "http:\\\\127.0.0.1:C/",
    "http:////127.0.0.1:C/",
    "HTTP://127.0.0.1:C/",
    "https://127.0.0.1:C/",
    "https://127.0.0.1:F/",
    // Other schemes.
    "ftp://127.0.0.1:C/",
    "gopher://127.0.0.1:C/_GET",
    "dict://127.0.0.1:C/d",
    "ldap://127.0.0.1:C/",
    "ws://127.0.0.1:C/",
    "file:///etc/passwd",
    "file://127.0.0.1:C/etc/passwd",
    "data:text/plain,a",
    "javascript:alert(1)",
    "jar:http://127.0.0.1:C/!/",
    "view-source:http://127.0.0.1:C/",
    // No URLs of their own; as redirects they are relative.
    "//127.0.0.1:C/",
    "\\\\127.0.0.1:C/",
    "/\\127.0.0.1:C/",
];

/// Names that the configuration allows, and where they lead.
const NAMES: &[(&str, &[&str])] = &[
    ("loopback", &["127.0.0.1"]),
    ("loopback6", &["::1"]),
    ("any", &["0.0.0.0"]),
    ("any6", &["::"]),
    ("mapped", &["::ffff:127.0.0.1"]),
    ("compatible", &["::127.0.0.1"]),
    ("nat64", &["64:ff9b::7f00:1"]),
    ("sixtofour", &["2002:7f00:1::"]),
    ("teredo", &["2001:0:7f00:1::"]),
    ("private", &["10.0.0.1"]),
    ("private2", &["172.16.0.1"]),
    ("private3", &["192.168.1.1"]),
    ("shared", &["100.64.0.1"]),
    ("metadata", &["169.254.169.254"]),
    ("linklocal", &["fe80::1"]),
    ("unique", &["fd00:ec2::254"]),
    ("multicast", &["224.0.0.1"]),
    ("one-of-two", &["93.184.216.34", "127.0.0.1"]),
    ("two-of-two", &["127.0.0.1", "93.184.216.34"]),
    ("nowhere", &[]),
];

/// Never the network: only the names above lead anywhere.
fn lookup() -> Lookup {
    Arc::new(|name: String| {
        Box::pin(async move {
            let name = name.trim_end_matches('.');
            let known = NAMES.iter().find(|(known, _)| name == format!("{known}.example"));
            let local = name.starts_with("localhost") || name == "ip6-localhost";
            let loopback: &[&str] = &["127.0.0.1", "::1"];
            let found = known.map_or(if local { loopback } else { &[] }, |(_, addresses)| *addresses);
            Ok(found.iter().map(|text| text.parse::<IpAddr>().expect("an address")).collect())
        })
    })
}

struct Case {
    canary: Server,
    canary6: Option<Server>,
    front: Server,
    outside: Outside,
}

impl Case {
    async fn new() -> Case {
        let canary = Server::start("127.0.0.1:0", |_| answer("200 OK", &[], b"secret")).await;
        let port = canary.address.port();
        // A machine without IPv6 has nothing there to be reached.
        let has_v6 = std::net::TcpListener::bind(("::1", port)).is_ok();
        let canary6 = match has_v6 {
            true => Some(Server::start(&format!("[::1]:{port}"), |_| answer("200 OK", &[], b"secret")).await),
            false => None,
        };
        let front = Server::start("127.0.0.1:0", move |asked| redirect(asked, port)).await;
        let host = |host: String| Host { host, ..Host::default() };
        let mut hosts = vec![host(front.url())];
        for scheme in ["http", "https"] {
            hosts.push(host(format!("{scheme}://*.example:{port}")));
            hosts.push(host(format!("{scheme}://*.example")));
        }
        let sources = Sources { hosts, files: Vec::new() };
        let limits = Limits { timeout: Duration::from_secs(5), ..Limits::default() };
        let outside = Outside::with_lookup(&sources, limits, &lookup()).expect("usable");
        Case { canary, canary6, front, outside }
    }

    fn url(&self, template: &str) -> String {
        let canary = format!(":{}", self.canary.address.port());
        template.replace(":C", &canary).replace(":F", &format!(":{}", self.front.address.port()))
    }

    /// It is refused, and the canary hears nothing.
    async fn check(&self, url: &str) {
        let found = self.outside.read_url(url, None).await;
        assert!(found.is_err(), "{url:?} was read: {found:?}");
        self.check_canary(url);
        let shown = found.expect_err("checked").to_string();
        assert!(!shown.contains("secret"), "{shown}");
    }

    /// The same, or it leads back to the server that may be read: some are relative there.
    async fn check_led(&self, url: &str) {
        match self.outside.read_url(url, None).await {
            Ok(Answer::Content(content)) => assert_eq!(content.bytes, b"fine", "{url:?}"),
            Ok(Answer::NotModified) => panic!("{url:?} was not asked whether it changed"),
            Err(error) => assert!(!error.to_string().contains("secret"), "{error}"),
        }
        self.check_canary(url);
    }

    fn check_canary(&self, url: &str) {
        let reached = self.canary.asked().len() + self.canary6.as_ref().map_or(0, |canary| canary.asked().len());
        assert_eq!(reached, 0, "{url:?} reached the canary");
    }
}

/// `/<status>/<index>` leads to that URL of the table, `/name/<index>` to that name, `/loop/0` to itself, `/chain/<n>/<index>` there in n steps.
fn redirect(asked: &Asked, canary: u16) -> Vec<u8> {
    let parts: Vec<&str> = asked.path.trim_start_matches('/').split('/').collect();
    let own = asked.header("host").and_then(|host| host.rsplit_once(':')).map_or("", |(_, port)| port);
    let target = |index: usize| {
        let url = URLS[index].replace(":C", &format!(":{canary}")).replace(":F", &format!(":{own}"));
        url.replace(['\n', '\t'], "")
    };
    let index = parts.last().and_then(|index| index.parse::<usize>().ok());
    let Some(index) = index.filter(|index| *index < URLS.len() || parts[0] == "loop") else {
        return answer("200 OK", &[], b"fine");
    };
    let (status, location) = match parts.as_slice() {
        ["loop", _] => ("302", "/loop/0".to_owned()),
        ["name", _] => {
            let (name, _) = NAMES[index];
            ("302", format!("http://{name}.example:{canary}/"))
        }
        ["chain", "0", _] => ("307", target(index)),
        ["chain", steps, _] => {
            let steps: usize = steps.parse().expect("a number");
            ("301", format!("/chain/{}/{index}", steps - 1))
        }
        [status @ ("302" | "308"), _] => (*status, target(index)),
        _ => return answer("200 OK", &[], b"fine"),
    };
    let mut bytes =
        format!("HTTP/1.1 {status} Moved\r\nconnection: close\r\ncontent-length: 0\r\nlocation: ").into_bytes();
    bytes.extend_from_slice(location.as_bytes());
    bytes.extend_from_slice(b"\r\n\r\n");
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_reaches_the_canary() {
    let case = Case::new().await;
    let mut tried = 0;
    for url in URLS {
        // A backslash begins the path: this is the server that may be read, and is no way past it.
        match url.contains(":F\\") {
            false => case.check(&case.url(url)).await,
            true => case.check_led(&case.url(url)).await,
        }
        tried += 1;
    }
    for (name, _) in NAMES {
        for url in
            ["http://NAME.example:C/", "https://NAME.example:C/", "http://NAME.example/", "http://NAME.EXAMPLE.:C/"]
        {
            case.check(&case.url(&url.replace("NAME", name))).await;
            tried += 1;
        }
    }
    println!("{tried} hostile URLs, 0 reached");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_led_to_the_canary() {
    let case = Case::new().await;
    let mut tried = 0;
    for index in 0..URLS.len() {
        for path in [format!("302/{index}"), format!("308/{index}"), format!("chain/2/{index}")] {
            case.check_led(&format!("{}/{path}", case.front.url())).await;
            tried += 1;
        }
    }
    for index in 0..NAMES.len() {
        case.check(&format!("{}/name/{index}", case.front.url())).await;
        tried += 1;
    }
    let error = case.outside.read_url(&format!("{}/loop/0", case.front.url()), None).await.expect_err("a loop");
    assert!(error.to_string().contains("Too many redirects"), "{error}");
    println!("{tried} hostile redirects, 0 reached");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_canary_can_be_reached_where_that_is_allowed() {
    let case = Case::new().await;
    assert!(case.outside.read_url(&format!("{}/a/fine/file", case.front.url()), None).await.is_ok());
    let port = case.canary.address.port();
    let named = Host { host: format!("http://loopback.example:{port}"), allow_private: true, ..Host::default() };
    let sources = Sources { hosts: vec![named], files: Vec::new() };
    let outside = Outside::with_lookup(&sources, Limits::default(), &lookup()).expect("usable");
    assert!(outside.read_url(&format!("http://loopback.example:{port}/"), None).await.is_ok());
    assert_eq!(case.canary.asked().len(), 1, "the canary sings");
    let error = outside.read_url(&format!("http://loopback6.example:{port}/"), None).await.expect_err("not named");
    assert!(matches!(error, Error::NotAllowed(_)), "{error}");
}
