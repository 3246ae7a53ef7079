//! `loadtest recovery`: how long after a SIGKILL changes are slow, with another of its kind running and without.

use super::site::{ROLES, Server, Site};
use crate::Error;
use crate::installation::Started;
use crate::process::Role;
use crate::report::Report;
use api::v1::WatchEntitiesRequest;
use api::v1::catalog_service_client::CatalogServiceClient;
use api::v1::watch_entities_response::Event;
use bus::Record;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

/// How long changes may be slow.
const LIMIT: Duration = Duration::from_secs(120);
/// Between one change and the next.
const PACE: Duration = Duration::from_millis(20);
/// A change that takes longer is slow.
const NORMAL: Duration = Duration::from_millis(500);
/// How long before a kill a change may have been due that is in the hands of what is killed.
const IN_HAND: Duration = Duration::from_secs(1);
/// How long changes have to be fast for it to be over; longer than a worker may be silent.
const CALM: Duration = Duration::from_secs(6);

/// How it is measured.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Recovery {
    /// How often each is killed
    #[arg(long, value_name = "COUNT", default_value = "3", value_parser = clap::value_parser!(u16).range(1..=100))]
    times: u16,
    #[command(flatten)]
    started: Started,
}

/// Who is killed.
#[derive(Clone, Copy, Debug)]
enum Victim {
    /// One of its role; the others go on, and nobody takes its place before changes are fast.
    One(Role),
    /// All of the role, and each is started again at once.
    All(Role),
    /// A server, which is started again at once.
    Server(Server),
}

impl Victim {
    fn name(self) -> String {
        match self {
            Victim::One(role) => format!("{}_with_another", role.name()),
            Victim::All(role) => format!("{}_alone", role.name()),
            Victim::Server(Server::Broker) => "nats_server".to_owned(),
            Victim::Server(Server::Database) => "postgresql".to_owned(),
        }
    }
}

/// When a change was due, and when it was seen.
type Seen = (Instant, Option<Instant>);

/// All changes, by their numbers.
#[derive(Clone, Default)]
struct Changes(Arc<Mutex<BTreeMap<u64, Seen>>>);

impl Changes {
    fn with<T>(&self, look: impl FnOnce(&mut BTreeMap<u64, Seen>) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Publishes changes at the pace for ever; one that is refused is tried until it is accepted.
    async fn publish(self, bus: bus::Bus) {
        let begin = Instant::now();
        for number in 0..u64::MAX {
            let due = begin + PACE * u32::try_from(number).unwrap_or(u32::MAX);
            sleep_until(due).await;
            self.with(|changes| {
                changes.insert(number, (due, None));
            });
            let entity = json!({"apiVersion": "backstage.io/v1alpha1", "kind": "System", "metadata": {"name": format!("probe-{number}")}, "spec": {"owner": "g"}});
            let record = Record::new(bus.names().event("probe", "upsert"), entity.to_string());
            let record = record.with_id(format!("probe-{number}"));
            let bus = bus.clone();
            tokio::spawn(async move {
                let patience = Instant::now() + LIMIT;
                while bus::publish(&bus, &record).await.is_err() && Instant::now() < patience {
                    sleep(PACE).await;
                }
            });
        }
    }

    /// Notes when a reader shows each, for ever; another connection begins with what is there.
    async fn watch(self, address: watch::Receiver<String>) {
        loop {
            let now = address.borrow().clone();
            drop(self.follow(&now).await);
            sleep(PACE).await;
        }
    }

    async fn follow(&self, address: &str) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let mut client = CatalogServiceClient::connect(format!("http://{address}")).await?;
        let mut events = client.watch_entities(WatchEntitiesRequest::default()).await?.into_inner();
        while let Some(event) = events.message().await? {
            let Some(Event::Change(entity)) = &event.event else { continue };
            let number = entity.r#ref.rsplit_once("probe-").and_then(|(_, number)| number.parse::<u64>().ok());
            let Some(number) = number else { continue };
            self.with(|changes| {
                if let Some((_, seen)) = changes.get_mut(&number) {
                    seen.get_or_insert_with(Instant::now);
                }
            });
        }
        Ok(())
    }

    /// When the last slow change was seen, of those that were on their way at a moment or due after it; none as long as one of them is not.
    fn slow_until(&self, since: Instant) -> Option<Instant> {
        let now = Instant::now();
        // What was in somebody's hands at that moment is among them.
        let from = since.checked_sub(IN_HAND).unwrap_or(since);
        self.with(|changes| {
            let mut last = since;
            for (due, seen) in changes.values().filter(|(due, _)| *due >= from) {
                match seen {
                    Some(seen) if *seen > *due + NORMAL => last = last.max(*seen),
                    None if now > *due + NORMAL => return None,
                    _ => {}
                }
            }
            Some(last)
        })
    }

    /// Waits until changes have been fast for a while; gives from when on.
    async fn calm(&self, since: Instant) -> Result<Instant, Error> {
        loop {
            match self.slow_until(since) {
                Some(last) if last.elapsed() > CALM => return Ok(last),
                _ if since.elapsed() > LIMIT => {
                    let (what, seconds) = ("changes as fast as before a kill".to_owned(), LIMIT.as_secs());
                    return Err(Error::TimedOut { what, seconds, found: "none".to_owned() });
                }
                _ => sleep(PACE).await,
            }
        }
    }
}

impl Recovery {
    /// Kills each in turn, while changes go on; the time runs until the last change that was slow is shown.
    pub async fn run(&self) -> Result<Report, Error> {
        let mut site = Site::start(&self.started, false).await?;
        let pace = 1.0 / PACE.as_secs_f64();
        let title =
            format!("recovery: seconds from SIGKILL until {pace} changes a second are fast, longest of {}", self.times);
        let mut report = Report::new(title);
        let mut victims: Vec<Victim> = Vec::new();
        for (role, _) in ROLES {
            victims.extend([Victim::One(role), Victim::All(role)]);
        }
        victims.extend([Victim::Server(Server::Broker), Victim::Server(Server::Database)]);
        let watched = |site: &Site| site.readers().get(1).cloned().unwrap_or_default();
        let (address, reader) = watch::channel(watched(&site));
        let changes = Changes::default();
        let publishing = tokio::spawn(changes.clone().publish(site.bus.clone()));
        let watching = tokio::spawn(changes.clone().watch(reader));
        changes.calm(Instant::now()).await?;
        for victim in victims {
            let mut longest = Duration::ZERO;
            for _ in 0..self.times {
                let began = Instant::now();
                Self::kill(&mut site, victim).await?;
                address.send_replace(watched(&site));
                longest = longest.max(changes.calm(began).await? - began);
                if let Victim::One(role) = victim {
                    site.replace(role, 1)?;
                }
                // Everybody is back before the next one is killed.
                site.ready().await?;
                changes.calm(Instant::now()).await?;
            }
            eprintln!("{}: {:.2} s", victim.name(), longest.as_secs_f64());
            report.figure(format!("{}_seconds", victim.name()), longest.as_secs_f64(), "s");
        }
        publishing.abort();
        watching.abort();
        report.note(format!("0: no change took longer than {NORMAL:?}. A worker's messages go to others after 4 s here (CALLBOARD_ACK_WAIT)"));
        site.stop().await?;
        Ok(report)
    }

    async fn kill(site: &mut Site, victim: Victim) -> Result<(), Error> {
        match victim {
            Victim::One(role) => site.kill_role(role, 1),
            Victim::All(role) => {
                let count = ROLES.iter().find(|(known, _)| *known == role).map_or(0, |(_, count)| *count);
                (1..=count).try_for_each(|number| site.replace(role, number))
            }
            Victim::Server(server) => {
                site.kill(server)?;
                site.restart(server).await
            }
        }
    }
}
