//! The program as its users have it: started, asked, given faults, stopped; on real servers, each test in an installation of its own.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// The longest wait for anything.
const LIMIT: Duration = Duration::from_secs(60);

/// The program in an installation and directory of its own, with the run's servers.
struct Place {
    directory: PathBuf,
    installation: String,
}

impl Place {
    fn new(name: &str) -> Place {
        let installation = servers::testing::fresh_name(name);
        let directory = std::env::temp_dir().join(format!("callboard-{installation}"));
        fs::create_dir_all(&directory).unwrap();
        Place { directory, installation }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_callboard"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CALLBOARD_")) {
            command.env_remove(name);
        }
        command.args(arguments).current_dir(&self.directory).env("CALLBOARD_DATA_DIR", self.directory.join("data"));
        command
    }

    /// A command that runs on, with given servers and any ports; and the lines of its log.
    fn start(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Running {
        let servers = servers::testing::shared();
        let mut command = self.command(arguments);
        command
            .env("CALLBOARD_INSTALLATION", &self.installation)
            .env("CALLBOARD_NATS_URL", &servers.nats_url)
            .env("CALLBOARD_GRPC_LISTEN", "127.0.0.1:0")
            .env("CALLBOARD_HTTP_LISTEN", "127.0.0.1:0")
            .env("CALLBOARD_EVENTS_MAX_BYTES", "64MiB")
            .env("CALLBOARD_STITCH_MAX_BYTES", "64MiB")
            .env("CALLBOARD_LOG_FORMAT", "json")
            .envs(environment.iter().copied());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (out, log) = (lines(child.stdout.take().unwrap()), lines(child.stderr.take().unwrap()));
        Running { child, out, log }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What a command writes that has to succeed.
    fn ask(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The JSON values that a command writes, one a line.
    fn ask_json(&self, arguments: &[&str]) -> Vec<Value> {
        let text = self.ask(&[arguments, &["--output", "json"]].concat());
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.directory.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.directory));
    }
}

struct Running {
    child: Child,
    out: mpsc::Receiver<String>,
    log: mpsc::Receiver<String>,
}

impl Running {
    /// The first line of the log that says this, as JSON.
    fn logged(&self, message: &str) -> Value {
        let until = Instant::now() + LIMIT;
        loop {
            let line = self.log.recv_timeout(until.saturating_duration_since(Instant::now()));
            let line = line.unwrap_or_else(|_| panic!("the log does not say: {message}"));
            if line.contains(message) {
                return serde_json::from_str(&line).unwrap();
            }
        }
    }

    /// Asks it to stop; gives the exit code.
    fn terminate(mut self) -> Option<i32> {
        let killed = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        wait_for("the end", || self.child.try_wait().unwrap()).code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn lines(stream: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < LIMIT, "{what} did not come in {LIMIT:?}");
        std::thread::yield_now();
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn component(name: &str, owner: &str) -> String {
    format!(
        "apiVersion: backstage.io/v1alpha1\nkind: Component\nmetadata:\n  name: {name}\n  title: The {name}\n\
         spec:\n  type: service\n  lifecycle: production\n  owner: {owner}\n"
    )
}

/// Publishes what `publish` would refuse, as another program could.
fn publish_raw(subject: String, payload: &'static str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = async_nats::connect(&servers::testing::shared().nats_url).await.unwrap();
        let jetstream = async_nats::jetstream::new(client);
        jetstream.publish(subject, payload.into()).await.unwrap().await.unwrap();
    });
}

#[test]
fn a_day_with_up() {
    let place = Place::new("day");
    let database_url = servers::testing::shared().database_url.as_str();
    let up = place.start(&["up", "--output", "json"], &[("CALLBOARD_DATABASE_URL", database_url)]);
    let said: Value = serde_json::from_str(&up.out.recv_timeout(LIMIT).unwrap()).unwrap();
    assert_eq!(said["installation"], place.installation.as_str());

    place.write("in/one.yaml", &format!("{}---\n{}", component("web", "team-a"), component("no good", "team-a")));
    place.write("in/deep/two.yml", &component("api-server", "team-a").replace("  owner: team-a\n", ""));
    place.write("in/deep/three.json", r#"{"apiVersion":"backstage.io/v1alpha1","kind":"Group","metadata":{"name":"team-a"},"spec":{"type":"team","children":[]}}"#);
    place.write("in/ignored.txt", "a: [");
    let published = place.run(&["publish", "in", "--provider", "my.provider", "--wait", "--output", "json"]);
    assert_eq!(published.status.code(), Some(1), "{}", stderr(&published));
    let faults = stderr(&published);
    assert!(faults.contains("in/one.yaml:14: document 2, field metadata.name: "), "{faults}");
    assert!(faults.contains("in/deep/two.yml:6: document 1, field /spec/owner: "), "{faults}");
    assert!(faults.contains("2 entities published"), "{faults}");
    let refs: Vec<Value> =
        String::from_utf8(published.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        refs,
        [json!({"ref": "group:default/team-a", "revision": 1}), json!({"ref": "component:default/web", "revision": 2})]
    );

    let web = place.ask(&["get", "component:WEB", "--at-least-revision", "2"]);
    assert!(web.contains("relations:\n  - type: ownedBy\n    targetRef: group:default/team-a\n"), "{web}");
    let listed = place.ask_json(&["list", "--filter", "kind=component", "--filter", "kind=group"]);
    let names: Vec<&str> = listed.iter().filter_map(|entity| entity.pointer("/metadata/name")?.as_str()).collect();
    assert_eq!(names, ["web", "team-a"]);
    assert_eq!(
        listed[0]["metadata"]["annotations"]["backstage.io/managed-by-location"],
        format!("nats:{}.events.my=2eprovider", place.installation)
    );
    let table = place.ask(&["list", "--limit", "1"]);
    assert_eq!(
        table,
        "REF                    OWNER   TYPE     TITLE\ncomponent:default/web  team-a  service  The web\n"
    );
    closed_pipe(&place);

    publish_raw(format!("{}.events.raw.upsert", place.installation), r#"{"kind":"Spaceship","metadata":{"name":"x"}}"#);
    publish_raw(format!("{}.events.raw.upsert", place.installation), "{");
    let letters =
        wait_for("the dead letter", || Some(place.ask_json(&["dead-letters"])).filter(|letters| !letters.is_empty()));
    assert_eq!(
        (&letters[0]["stage"], &letters[0]["provider"], &letters[0]["payload"]),
        (&json!("processor"), &json!("raw"), &json!("{"))
    );
    assert!(letters[0]["reason"].as_str().unwrap().contains("JSON"), "{letters:?}");
    let first = letters[0]["letter"].clone();
    let number = first.to_string();
    assert_eq!(place.ask_json(&["dead-letters", "list", "--provider", "other"]), Vec::<Value>::new());
    assert_eq!(place.ask_json(&["dead-letters", "show", &number])[0]["payload"], "{");
    let replayed = place.run(&["dead-letters", "replay", &number]);
    assert_eq!(replayed.status.code(), Some(0), "{}", stderr(&replayed));
    let again = wait_for("the same dead letter again", || {
        Some(place.ask_json(&["dead-letters"])).filter(|letters| letters.len() == 1 && letters[0]["letter"] != first)
    });
    place.ask(&["dead-letters", "drop", &again[0]["letter"].to_string()]);
    assert_eq!(place.ask_json(&["dead-letters"]), Vec::<Value>::new());
    publish_raw(format!("{}.events.raw.upsert", place.installation), "[");
    wait_for("another", || Some(place.ask_json(&["dead-letters"])).filter(|letters| !letters.is_empty()));
    assert_eq!(place.run(&["verify"]).status.code(), Some(0));
    place.ask(&["rebuild", "--wait"]);
    let failed =
        wait_for("the failed entity", || Some(place.ask_json(&["errors"])).filter(|failed| !failed.is_empty()));
    assert_eq!((&failed[0]["ref"], &failed[0]["shown"]), (&json!("spaceship:default/x"), &json!(false)));

    let deleted = place.ask(&["delete", "component:web", "--provider", "my.provider", "--wait"]);
    assert!(deleted.contains("component:default/web"), "{deleted}");
    assert_eq!(place.run(&["get", "component:web"]).status.code(), Some(1));

    let status = &place.ask_json(&["status"])[0];
    assert_eq!((&status["reader"]["ready"], &status["reader"]["entities"]), (&json!(true), &json!(1)), "{status:#}");
    assert_eq!(status["database"]["failed"], 1, "{status:#}");
    assert!(status["delays"]["processing"]["p50Seconds"].is_number(), "{status:#}");
    assert!(place.ask(&["status"]).contains("dead letters    1: "));

    let second = place.run(&["up", "--http-listen", "127.0.0.1:0"]);
    assert_eq!(second.status.code(), Some(1));
    assert!(stderr(&second).contains("runs in"), "{}", stderr(&second));
    assert_eq!(up.terminate(), Some(0));
    assert!(!place.directory.join("data/addresses.json").exists());
    let after = place.run(&["status"]);
    assert_eq!(after.status.code(), Some(2));
    assert!(stderr(&after).contains("callboard up"), "{}", stderr(&after));
}

/// Faults as people make them: file, line, document, field, and what the reason says.
const PLANTED: [(&str, usize, usize, &str, &str); 12] = [
    ("billing/catalog-info.yaml", 4, 1, "metadata.name", "found \"billing_service_\""),
    ("billing/catalog-info.yaml", 17, 2, "labels.example.com/data-class", "found \"strictly confidential\""),
    ("billing/catalog-info.yaml", 30, 3, "/spec/owner", "must NOT have fewer than 1 characters"),
    ("checkout/catalog-info.yaml", 24, 2, "tags.1", "found \"Payments\""),
    ("checkout/catalog-info.yaml", 54, 4, "/spec/definition", "must have required property"),
    ("org.yaml", 29, 3, "/spec/children", "must have required property"),
    ("org.yaml", 50, 5, "/spec/memberOf", "must be array"),
    ("platform/catalog-info.yml", 8, 2, "/apiVersion", "foreign kind or apiVersion"),
    ("platform/catalog-info.yml", 21, 3, "metadata.namespace", "found \"Platform\""),
    ("platform/terraform/cdn.json", 6, 1, "/owner", "must NOT have additional properties"),
    ("search/catalog-info.yaml", 8, 1, "links.1.url", "found \"wiki/runbooks/indexer\""),
    ("search/catalog-info.yaml", 22, 2, "/spec/dependsOn", "Entity reference \"orders-db\" had missing or empty kind"),
];

#[test]
fn planted_faults_are_named_and_the_rest_is_published() {
    let place = Place::new("planted");
    let database_url = servers::testing::shared().database_url.as_str();
    let up = place.start(&["up", "--output", "json"], &[("CALLBOARD_DATABASE_URL", database_url)]);
    up.out.recv_timeout(LIMIT).unwrap();
    let planted = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/planted");
    let published = place.run(&["publish", planted.to_str().unwrap(), "--wait", "--output", "json"]);
    assert_eq!(published.status.code(), Some(1), "{}", stderr(&published));
    let told = stderr(&published);
    let faults: Vec<&str> = told.lines().filter(|line| line.contains(": document ")).collect();
    assert_eq!(faults.len(), PLANTED.len(), "{told}");
    for (fault, (file, line, document, field, reason)) in faults.iter().zip(PLANTED) {
        let place = format!("{}:{line}: document {document}, field {field}: ", planted.join(file).display());
        assert!(fault.starts_with(&place) && fault.contains(reason), "expected {place}{reason}, found {fault}");
    }
    assert!(told.contains("12 documents are not published"), "{told}");
    let refs = |text: String| -> Vec<String> {
        text.lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["ref"].as_str().unwrap().to_owned())
            .collect()
    };
    let expected = [
        "resource:default/orders-db",
        "system:default/commerce",
        "api:default/orders-api",
        "group:default/engineering",
        "group:default/payments",
        "user:default/amelia.park",
        "domain:default/retail",
        "resource:default/dns",
        "component:default/suggest",
    ];
    assert_eq!(refs(String::from_utf8(published.stdout).unwrap()), expected);
    let listed = place.ask_json(&["list"]);
    assert_eq!(listed.len(), expected.len());
    assert!(place.ask(&["get", "group:payments"]).contains("hasMember"));
    assert_eq!(up.terminate(), Some(0));
}

fn closed_pipe(place: &Place) {
    let mut child = place.command(&["list"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), String::new()));
}

#[test]
fn each_role_in_a_process_of_its_own() {
    let place = Place::new("roles");
    let servers = servers::testing::shared();
    let database = [("CALLBOARD_DATABASE_URL", servers.database_url.as_str())];
    let reader = place.start(&["reader"], &[]);
    let writers = ["processor", "stitcher", "scheduler"].map(|role| place.start(&[role], &database));
    let grpc_url = format!("http://{}", reader.logged("the reader serves gRPC")["address"].as_str().unwrap());
    reader.logged("the reader has caught up");
    let given = ["--installation", &place.installation, "--nats-url", &servers.nats_url, "--grpc-url", &grpc_url];

    let many: Vec<String> = (0..120).map(|number| component(&format!("c{number}"), "team")).collect();
    place.write("many.yaml", &many.join("---\n"));
    place.ask(&[&["publish", "many.yaml", "--wait"], &given[..]].concat());
    assert_eq!(place.ask_json(&[&["list"], &given[..]].concat()).len(), 120);
    let checked = place.run(&["publish", "--check", "many.yaml"]);
    assert_eq!((checked.status.code(), stderr(&checked).trim()), (Some(0), "120 of 120 documents can be published"));

    assert_eq!(reader.terminate(), Some(0));
    for writer in writers {
        assert_eq!(writer.terminate(), Some(0));
    }
}

#[test]
fn a_role_waits_for_a_broker_that_is_away_and_can_be_stopped_meanwhile() {
    let place = Place::new("away");
    let reader = place.start(&["reader"], &[("CALLBOARD_NATS_URL", "nats://127.0.0.1:1")]);
    let http = reader.logged("served over HTTP")["address"].as_str().unwrap().to_owned();
    reader.logged("the broker is away");
    let page = get(&http, "/readyz");
    assert!(page.starts_with("HTTP/1.0 503") && page.contains("reader: the broker is away"), "{page}");
    assert!(get(&http, "/healthz").starts_with("HTTP/1.0 200"));
    assert_eq!(reader.terminate(), Some(0));
}

fn get(address: &str, path: &str) -> String {
    use std::io::Write;
    let mut connection = std::net::TcpStream::connect(address).unwrap();
    write!(connection, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
    let mut page = String::new();
    connection.read_to_string(&mut page).unwrap();
    page
}

/// A command line that is refused, with the exit code and what is said; never a stack trace.
fn check(place: &Place, line: &str, code: i32, expected: &str) {
    let output = place.run(&line.split(' ').collect::<Vec<_>>());
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{line}: {said}");
    assert!(said.contains(expected), "{line}: {said}");
    assert!(!said.contains("panicked") && !said.contains("RUST_BACKTRACE"), "{line}: {said}");
}

#[test]
fn what_is_wrong_is_said_with_what_to_do() {
    let place = Place::new("wrong");
    place.write("unknown.yaml", "nats_ulr: nats://localhost:4222\n");
    place.write("value.yaml", "ack_wait: 30\n");
    place.write("empty.yaml", "# nothing\n");
    fs::create_dir(place.directory.join("void")).unwrap();
    check(&place, "up --config unknown.yaml", 2, "unknown.yaml: unknown key \"nats_ulr\". Did you mean \"nats_url\"?");
    check(&place, "up --config value.yaml", 2, "value.yaml: ack_wait: invalid value '30'");
    check(&place, "up --config none.yaml", 2, "none.yaml: cannot read");
    check(&place, "up --nats-url localhost", 2, "expected nats://host:port");
    check(&place, "up --database-url mysql://x", 2, "expected postgres://");
    check(&place, "up --replicas 2", 2, "expected 1, 3 or 5");
    check(&place, "up --keep-events 10s", 2, "expected 2m to 30d");
    check(&place, "up --batch-events 0", 2, "expected 1 to 10000");
    check(&place, "up --nats-user me", 2, "nats_user is given without nats_password");
    check(&place, "up --grpc-listen 127.0.0.1:9 --http-listen 127.0.0.1:9", 2, "give each its own port");
    check(&place, "up --installation A", 2, "a letter first");
    check(&place, "up --log a=b=c", 2, "expected a level");
    check(&place, "reader", 2, "no broker is given");
    check(&place, "processor --nats-url nats://127.0.0.1:1", 2, "no database is given");
    check(&place, "status", 2, "no broker is given");
    check(&place, "errors", 2, "no database is given");
    check(&place, "publish none.yaml", 2, "none.yaml: No such file");
    check(&place, "publish void", 2, "expected *.yaml, *.yml or *.json files in it");
    check(&place, "publish empty.yaml", 0, "nothing is published");
    check(&place, "get component:x --grpc-url http://127.0.0.1:1", 1, "no reader answers");
    check(&place, "delete web", 2, "had missing or empty kind");
    check(&place, "lst", 2, "list");
}

#[test]
fn help_teaches() {
    let place = Place::new("help");
    for command in [
        "up",
        "demo",
        "processor",
        "publish",
        "delete",
        "get",
        "list",
        "status",
        "errors",
        "snapshots",
        "conflicts",
        "dead-letters",
    ] {
        let help = place.ask(&["help", command]);
        assert!(help.contains("Examples:") && help.contains("CALLBOARD_NATS_URL"), "{command}: {help}");
    }
    assert!(place.ask(&["--help"]).contains("Two minutes:"));
    assert!(Path::new(env!("CARGO_BIN_EXE_callboard")).is_file());
}
