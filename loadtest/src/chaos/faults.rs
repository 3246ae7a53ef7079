//! Faults of a seed: what is done to an installation, how often, and how it is undone.

use super::provider::Providers;
use super::proxy::Mode;
use super::site::{ROLES, Server, Site};
use crate::Error;
use crate::process::Role;
use crate::random::Random;
use crate::signal::Signal;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// How long the streams may take to stand again after a broker has forgotten them.
const STREAMS_LIMIT: Duration = Duration::from_secs(60);
/// Of a hundred other faults, so many come with the kill of a role besides.
const KILLS: u8 = 60;
/// How long a gap may take to be reported.
const GAP_LIMIT: Duration = Duration::from_secs(30);

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    KillRole,
    StopRole,
    KillBroker,
    StopBroker,
    KillDatabase,
    StopDatabase,
    Cut,
    Delay,
    Swallow,
    DeleteConsumer,
    DeleteStitchStream,
    DeleteEntityStream,
    DeleteEventStream,
    CopyBroker,
    GoBack,
    Wipe,
    FillBroker,
    FillDatabase,
}

/// Each fault, its name in reports, and how often it comes among the others.
const FAULTS: [(Fault, &str, usize); 18] = [
    (Fault::KillRole, "killed (SIGKILL)", 20),
    (Fault::StopRole, "stopped and continued (SIGSTOP, 1 to 9 s)", 10),
    (Fault::KillBroker, "nats-server killed", 5),
    (Fault::StopBroker, "nats-server stopped and continued", 2),
    (Fault::KillDatabase, "PostgreSQL killed", 5),
    (Fault::StopDatabase, "PostgreSQL stopped and continued", 2),
    (Fault::Cut, "connections cut", 8),
    (Fault::Delay, "connections delayed (50 to 400 ms)", 5),
    (Fault::Swallow, "connections black-holed (1 to 12 s)", 6),
    (Fault::DeleteConsumer, "a durable consumer deleted", 4),
    (Fault::DeleteStitchStream, "the stitch stream deleted", 2),
    (Fault::DeleteEntityStream, "the entity stream deleted", 2),
    (Fault::DeleteEventStream, "the event stream deleted", 2),
    (Fault::CopyBroker, "the broker's directory copied", 3),
    (Fault::GoBack, "the broker's directory rolled back", 2),
    (Fault::Wipe, "the broker's directory wiped", 2),
    (Fault::FillBroker, "the broker's disk filled (2 to 6 s)", 2),
    (Fault::FillDatabase, "the database's disk filled (2 to 6 s)", 2),
];

/// What was done.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// How often each fault happened, and to which role.
    pub times: BTreeMap<(Fault, Option<Role>), usize>,
    /// Processes that were killed, servers among them.
    pub kills: usize,
    /// Times at which a broker forgot events.
    pub forgotten: usize,
    pub violations: Vec<String>,
    /// No disks can be filled on this machine.
    pub without_disks: bool,
}

impl Done {
    /// Adds what was done in another run.
    pub fn add(&mut self, other: Done) {
        for (fault, times) in other.times {
            *self.times.entry(fault).or_default() += times;
        }
        self.kills += other.kills;
        self.forgotten += other.forgotten;
        self.without_disks |= other.without_disks;
    }

    /// A row a fault: its name, and how often it happened.
    pub fn rows(&self) -> Vec<Vec<String>> {
        let times = |fault: Fault, role: Option<Role>| self.times.get(&(fault, role)).copied().unwrap_or(0).to_string();
        let rows = FAULTS.iter().flat_map(|(fault, name, _)| match fault {
            Fault::KillRole | Fault::StopRole => {
                let row =
                    |(role, _): (Role, usize)| vec![format!("a {} {name}", role.name()), times(*fault, Some(role))];
                ROLES.map(row).to_vec()
            }
            _ => vec![vec![(*name).to_owned(), times(*fault, None)]],
        });
        rows.collect()
    }
}

/// Who suffers.
pub(crate) struct Tormentor<'a> {
    pub site: &'a mut Site,
    pub providers: &'a Providers,
    pub seed: u64,
    pub random: Random,
    pub done: Done,
}

impl Tormentor<'_> {
    /// One fault after the other until the time is over; all are undone then.
    pub async fn torment(&mut self, until: Instant, watched: &watch::Sender<String>) -> Result<(), Error> {
        self.done.without_disks = !self.site.has_disks();
        while Instant::now() < until {
            if self.random.percent(KILLS) {
                self.suffer(Fault::KillRole).await?;
            }
            let fault = self.draw();
            self.suffer(fault).await?;
            self.done.violations.extend(self.site.ended()?);
            watched.send_replace(self.site.readers().first().cloned().unwrap_or_default());
            sleep(Duration::from_millis(200 + self.random.below(1300) as u64)).await;
        }
        Ok(())
    }

    async fn suffer(&mut self, fault: Fault) -> Result<(), Error> {
        let role = self.commit(fault).await?;
        *self.done.times.entry((fault, role)).or_default() += 1;
        let role = role.map_or_else(String::new, |role| format!(" {}", role.name()));
        eprintln!("seed {}: {fault:?}{role}", self.seed);
        Ok(())
    }

    fn draw(&mut self) -> Fault {
        let total: usize = FAULTS.iter().map(|(_, _, weight)| weight).sum();
        let mut left = self.random.below(total);
        for (fault, _, weight) in FAULTS {
            if left < weight {
                let instead = if self.site.is_cluster() { Fault::KillBroker } else { Fault::KillRole };
                return if self.is_possible(fault) { fault } else { instead };
            }
            left -= weight;
        }
        Fault::KillRole
    }

    fn is_possible(&self, fault: Fault) -> bool {
        match fault {
            Fault::FillBroker | Fault::FillDatabase => !self.done.without_disks,
            Fault::CopyBroker | Fault::GoBack | Fault::Wipe => !self.site.is_cluster(),
            _ => true,
        }
    }

    /// Does it; gives the role that suffered.
    async fn commit(&mut self, fault: Fault) -> Result<Option<Role>, Error> {
        let side = self.random.below(2);
        let server = if self.random.percent(50) { Server::Broker } else { Server::Database };
        match fault {
            Fault::KillRole => {
                let (role, number) = self.one_of_the_roles();
                self.done.kills += 1;
                self.site.replace(role, number)?;
                return Ok(Some(role));
            }
            Fault::StopRole => {
                let (role, number) = self.one_of_the_roles();
                self.site.signal(role, number, Signal::Stop)?;
                self.wait(1000, 9000).await;
                self.site.signal(role, number, Signal::Continue)?;
                return Ok(Some(role));
            }
            Fault::KillBroker => self.kill(Server::Broker).await?,
            Fault::KillDatabase => self.kill(Server::Database).await?,
            Fault::StopBroker => self.stop(Server::Broker).await?,
            Fault::StopDatabase => self.stop(Server::Database).await?,
            Fault::Cut => self.site.cut(side, server),
            Fault::Delay => {
                let delay = Duration::from_millis(50 + self.random.below(350) as u64);
                self.site.set(side, server, Mode::Delay(delay));
                self.wait(1000, 6000).await;
                self.site.set(side, server, Mode::Pass);
            }
            Fault::Swallow => {
                self.site.set(side, server, Mode::Swallow);
                self.wait(1000, 12_000).await;
                self.site.set(side, server, Mode::Pass);
            }
            Fault::DeleteConsumer => self.delete_consumer().await?,
            Fault::DeleteStitchStream => self.delete_stream(&self.site.bus.names().stitch_stream()).await?,
            Fault::DeleteEntityStream => self.delete_stream(&self.site.bus.names().entities_stream()).await?,
            Fault::DeleteEventStream => self.delete_events().await?,
            Fault::CopyBroker => {
                self.done.kills += 1;
                self.site.copy_streams().await?;
            }
            Fault::GoBack => self.forget(true).await?,
            Fault::Wipe => self.forget(false).await?,
            Fault::FillBroker => self.fill(Server::Broker).await?,
            Fault::FillDatabase => self.fill(Server::Database).await?,
        }
        Ok(None)
    }

    fn one_of_the_roles(&mut self) -> (Role, usize) {
        let all: Vec<(Role, usize)> =
            ROLES.iter().flat_map(|(role, count)| (1..=*count).map(move |number| (*role, number))).collect();
        *self.random.one_of(&all)
    }

    async fn wait(&mut self, least_ms: usize, most_ms: usize) {
        sleep(Duration::from_millis((least_ms + self.random.below(most_ms - least_ms)) as u64)).await;
    }

    async fn kill(&mut self, server: Server) -> Result<(), Error> {
        self.choose_leader().await;
        self.done.kills += 1;
        self.site.kill(server)?;
        self.wait(0, 4000).await;
        self.site.restart(server).await
    }

    /// In a cluster, the member that leads one of the streams suffers.
    async fn choose_leader(&mut self) {
        let names = self.site.bus.names();
        let streams = [names.events_stream(), names.stitch_stream(), names.entities_stream()];
        let stream = self.random.one_of(&streams).clone();
        self.site.choose_leader(&stream).await;
    }

    async fn stop(&mut self, server: Server) -> Result<(), Error> {
        self.choose_leader().await;
        self.site.send(server, "STOP")?;
        self.wait(1000, 8000).await;
        self.site.send(server, "CONT")
    }

    async fn delete_consumer(&mut self) -> Result<(), Error> {
        let names = self.site.bus.names();
        let consumers = [
            (names.events_stream(), bus::Names::PROCESSOR),
            (names.events_stream(), bus::Names::PROCESSOR_BULK),
            (names.stitch_stream(), bus::Names::STITCHER),
            (names.stitch_stream(), bus::Names::STITCHER_BULK),
        ];
        let (stream, durable) = self.random.one_of(&consumers);
        // One that is not there, or a broker that is away, is left as it is.
        drop(bus::delete(&self.site.bus, stream, Some(durable)).await);
        Ok(())
    }

    async fn delete_stream(&mut self, stream: &str) -> Result<(), Error> {
        drop(bus::delete(&self.site.bus, stream, None).await);
        self.stream_stands(stream).await
    }

    async fn delete_events(&mut self) -> Result<(), Error> {
        let (gaps, settled) = (self.gaps(), self.settled().await);
        let stream = self.site.bus.names().events_stream();
        if bus::delete(&self.site.bus, &stream, None).await.is_ok() {
            self.providers.forget();
            self.done.forgotten += 1;
            self.recover(gaps, settled).await?;
        }
        Ok(())
    }

    /// The broker forgets, while providers go on; it comes back, everything is looked at, and the providers say again what they claim.
    async fn forget(&mut self, go_back: bool) -> Result<(), Error> {
        let (gaps, settled) = (self.gaps(), self.settled().await);
        self.done.kills += 1;
        self.site.forget_streams(go_back)?;
        self.providers.forget();
        self.wait(0, 1500).await;
        self.site.restart(Server::Broker).await?;
        self.done.forgotten += 1;
        self.recover(gaps, settled).await
    }

    /// Waits until a gap is reported, if events are forgotten up to which everything was settled: what the broker had accepted and nobody had taken, nobody can
    /// miss.
    async fn recover(&mut self, gaps: Option<usize>, settled: u64) -> Result<(), Error> {
        let stream = self.site.bus.names().events_stream();
        self.stream_stands(&stream).await?;
        let left = bus::find_stream(&self.site.bus, &stream).await.ok().flatten();
        let is_missed = left.is_none_or(|left| left.last_sequence < settled);
        let until = Instant::now() + GAP_LIMIT;
        while is_missed && gaps.is_some() && self.gaps() <= gaps {
            if Instant::now() > until {
                self.done
                    .violations
                    .push(format!("a broker forgot events, and no gap was reported within {GAP_LIMIT:?}"));
                break;
            }
            sleep(Duration::from_millis(500)).await;
        }
        self.site.discard_snapshots()?;
        self.providers.resynchronize().await;
        Ok(())
    }

    async fn stream_stands(&mut self, stream: &str) -> Result<(), Error> {
        let until = Instant::now() + STREAMS_LIMIT;
        while !matches!(bus::find_stream(&self.site.bus, stream).await, Ok(Some(_))) {
            if Instant::now() > until {
                self.done
                    .violations
                    .push(format!("stream {stream} was deleted, and did not stand again within {STREAMS_LIMIT:?}"));
                return Ok(());
            }
            sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// The highest sequence up to which some consumer has acknowledged all of its events; 0: the broker cannot be asked.
    async fn settled(&self) -> u64 {
        let names = self.site.bus.names();
        let mut settled = 0;
        for durable in [bus::Names::PROCESSOR, bus::Names::PROCESSOR_BULK] {
            let consumer = bus::consumer_status(&self.site.bus, &names.events_stream(), durable).await;
            settled = settled.max(consumer.map_or(0, |consumer| consumer.acknowledged_through));
        }
        settled
    }

    /// Gaps of the event stream that are reported; none: it cannot be asked now.
    fn gaps(&self) -> Option<usize> {
        let reader = self.site.readers().first().cloned().unwrap_or_default();
        let status = self.site.ask(&reader, &["status"]).ok()?.values;
        let gaps = status.first()?.pointer("/database/gaps")?.as_array()?;
        let stream = self.site.bus.names().events_stream();
        Some(gaps.iter().filter(|gap| gap["stream"] == stream.as_str()).count())
    }

    async fn fill(&mut self, server: Server) -> Result<(), Error> {
        self.site.fill(server, true)?;
        self.wait(2000, 6000).await;
        self.site.fill(server, false)?;
        // A broker that had no room closes its store until it is started again.
        if server == Server::Broker || self.site.has_ended(server) {
            self.done.kills += 1;
            self.site.kill(server)?;
            self.site.restart(server).await?;
        }
        Ok(())
    }
}
