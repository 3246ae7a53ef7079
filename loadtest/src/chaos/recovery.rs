//! `loadtest recovery`: how long after a SIGKILL a change is readable again, with another of its kind running and without.

use super::site::{ROLES, Server, Site};
use crate::Error;
use crate::installation::Started;
use crate::process::Role;
use crate::report::Report;
use crate::view::View;
use bus::Record;
use serde_json::json;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long a change may take.
const LIMIT: Duration = Duration::from_secs(120);

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
    /// One of its role; the others go on, and nobody takes its place before the change is readable.
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

impl Recovery {
    /// Kills each in turn, and publishes a change at once; the time runs until a reader shows it.
    pub async fn run(&self) -> Result<Report, Error> {
        let mut site = Site::start(&self.started, false).await?;
        let mut report =
            Report::new(format!("recovery: from SIGKILL until a change is readable, the longest of {}", self.times));
        let mut victims: Vec<Victim> = Vec::new();
        for (role, _) in ROLES {
            victims.extend([Victim::One(role), Victim::All(role)]);
        }
        victims.extend([Victim::Server(Server::Broker), Victim::Server(Server::Database)]);
        let mut step = 0;
        let calm = self.probe(&site, &mut step, 1).await?;
        report.figure("undisturbed_seconds", calm.as_secs_f64(), "s");
        for victim in victims {
            let mut longest = Duration::ZERO;
            for _ in 0..self.times {
                longest = longest.max(self.once(&mut site, victim, &mut step).await?);
            }
            eprintln!("{}: {:.2} s", victim.name(), longest.as_secs_f64());
            report.figure(format!("{}_seconds", victim.name()), longest.as_secs_f64(), "s");
        }
        site.stop().await?;
        Ok(report)
    }

    async fn once(&self, site: &mut Site, victim: Victim, step: &mut u64) -> Result<Duration, Error> {
        let began = Instant::now();
        match victim {
            Victim::One(role) => site.kill_role(role, 1)?,
            Victim::All(role) => {
                for number in 1..=ROLES.iter().find(|(known, _)| *known == role).map_or(0, |(_, count)| *count) {
                    site.replace(role, number)?;
                }
            }
            Victim::Server(server) => {
                site.kill(server)?;
                site.restart(server).await?;
            }
        }
        self.probe(site, step, 2).await?;
        let took = began.elapsed();
        if let Victim::One(role) = victim {
            site.replace(role, 1)?;
        }
        // Everybody is back before the next one is killed.
        site.ready().await?;
        self.probe(site, step, 1).await?;
        Ok(took)
    }

    /// Publishes a change and waits until a reader shows it.
    async fn probe(&self, site: &Site, step: &mut u64, reader: usize) -> Result<Duration, Error> {
        *step += 1;
        let began = Instant::now();
        let entity = json!({"apiVersion": "backstage.io/v1alpha1", "kind": "System", "metadata": {"name": "probe", "title": format!("{step}")}, "spec": {"owner": "g"}});
        let record =
            Record::new(site.bus.names().event("probe", "upsert"), entity.to_string()).with_id(format!("probe-{step}"));
        while bus::publish(&site.bus, &record).await.is_err() {
            if began.elapsed() > LIMIT {
                return Err(timed_out("a publish"));
            }
            sleep(Duration::from_millis(20)).await;
        }
        let address = site.readers().get(reader - 1).cloned().unwrap_or_default();
        loop {
            if let Ok(view) = View::connect(&format!("http://{address}")).await
                && let Ok(Some(entity)) = view.entity("system:default/probe", 0, Duration::from_secs(2)).await
                && entity
                    .metadata
                    .as_ref()
                    .is_some_and(|metadata| metadata.title.as_deref() == Some(&*step.to_string()))
            {
                return Ok(began.elapsed());
            }
            if began.elapsed() > LIMIT {
                return Err(timed_out("a change"));
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

fn timed_out(what: &str) -> Error {
    Error::TimedOut { what: format!("{what} after a kill"), seconds: LIMIT.as_secs(), found: "none".to_owned() }
}
