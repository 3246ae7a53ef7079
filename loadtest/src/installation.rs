//! The installation under test: one that runs somewhere, or servers and processes of our own, gone without a trace afterwards.

use crate::Error;
use crate::database::Database;
use crate::metrics::{self, Metrics};
use crate::process::{Launch, Process, Role, find_program};
use crate::signal::Signal;
use crate::usage::{self, Usage};
use crate::view::View;
use bus::Bus;
use servers::Servers;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

/// How long a broker may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where a running installation is.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "An installation that runs already (without --nats-url one is started here)")]
pub(crate) struct Given {
    /// Its broker: nats://host:port
    #[arg(long, value_name = "URL", requires = "grpc")]
    pub nats_url: Option<String>,
    /// User at the broker
    #[arg(long, value_name = "NAME", requires = "nats_password")]
    pub nats_user: Option<String>,
    /// That user's password
    #[arg(long, value_name = "TEXT", requires = "nats_user", env = "CALLBOARD_NATS_PASSWORD", hide_env_values = true)]
    pub nats_password: Option<String>,
    /// A reader: http://host:port
    #[arg(long, value_name = "URL", requires = "nats_url")]
    pub grpc: Option<String>,
    /// Where a process serves /metrics: host:port; once for each whose figures count
    #[arg(long, value_name = "HOST:PORT", requires = "nats_url")]
    pub metrics: Vec<String>,
    /// The installation's name
    #[arg(long, value_name = "NAME", default_value = "catalog")]
    pub installation: String,
}

/// How to start one.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "An installation started here")]
pub(crate) struct Started {
    /// The callboard program [default: the one beside this program]
    #[arg(long, value_name = "FILE")]
    pub callboard: Option<PathBuf>,
    /// A setting of every process, for example CALLBOARD_BATCH_EVENTS=50; as often as needed
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = setting)]
    pub settings: Vec<(String, String)>,
    /// Leave data and logs behind, and say where
    #[arg(long)]
    pub keep: bool,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let split = text.split_once('=').filter(|(name, _)| name.starts_with("CALLBOARD_"));
    split
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| format!("expected CALLBOARD_NAME=value, found {text}"))
}

/// An installation that runs. Dropping it stops what was started.
#[derive(Debug)]
pub(crate) struct Installation {
    pub bus: Bus,
    pub view: View,
    // In the order in which they are dropped: processes, then their servers, then the data.
    processes: Vec<Process>,
    own: Option<Own>,
    /// Where the processes of a given installation serve their metrics.
    given_metrics: Vec<String>,
    /// What killed processes had said of themselves.
    lost: Metrics,
}

/// What was started here besides processes.
#[derive(Debug)]
struct Own {
    launch: Launch,
    servers: Servers,
    data: TempDir,
    is_kept: bool,
}

/// What one process or server has used.
pub(crate) struct Used {
    /// For example `processor_1` or `postgres`.
    pub name: String,
    pub usage: Usage,
}

/// Bytes on disk.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Disk {
    /// PostgreSQL's tables and indexes.
    pub database: u64,
    /// PostgreSQL's write-ahead log, which is bounded and used again.
    pub log: u64,
    /// All of the broker's streams.
    pub broker: u64,
}

impl Disk {
    /// What servers have.
    pub fn of(servers: &Servers) -> Disk {
        let data = servers.data_dir();
        let log = usage::disk_bytes(&data.join("postgres/pg_wal"));
        let database = usage::disk_bytes(&data.join("postgres")).saturating_sub(log);
        Disk { database, log, broker: usage::disk_bytes(&data.join("nats")) }
    }
}

impl Installation {
    /// Connects to one that runs.
    pub async fn attach(given: &Given) -> Result<Installation, Error> {
        let (Some(url), Some(grpc)) = (&given.nats_url, &given.grpc) else {
            return Err(Error::Usage(
                "--nats-url and --grpc: expected both, or none to start an installation here".to_owned(),
            ));
        };
        let credentials = given.nats_user.clone().zip(given.nats_password.clone());
        let bus = connect(url, &given.installation, credentials).await?;
        let view = View::connect(grpc).await?;
        Ok(Installation {
            bus,
            view,
            processes: Vec::new(),
            own: None,
            given_metrics: given.metrics.clone(),
            lost: Metrics::default(),
        })
    }

    /// Starts servers (synced to disk before they acknowledge) and processes: so many processors and stitchers, a scheduler and a reader;
    /// waits until all are ready.
    pub async fn start(started: &Started, processors: usize, stitchers: usize) -> Result<Installation, Error> {
        let program = find_program(started.callboard.as_deref())?;
        let data = data_directory(started.keep)?;
        let servers = start_servers(data.path().join("data"), |options| options.count_statements = true).await?;
        let (Some(nats), Some(database)) = (servers.nats_url(), servers.database_url()) else {
            return Err(Error::Usage("the servers have no addresses; this is a bug".to_owned()));
        };
        let (nats, database) = (nats.to_owned(), database.to_owned());
        let mut environment = vec![
            ("CALLBOARD_NATS_URL".to_owned(), nats.clone()),
            ("CALLBOARD_DATABASE_URL".to_owned(), database),
            ("CALLBOARD_INSTALLATION".to_owned(), "catalog".to_owned()),
        ];
        environment.extend(started.settings.iter().cloned());
        let launch = Launch { program, logs: data.path().to_path_buf(), environment };
        let mut roles = vec![(Role::Scheduler, 1), (Role::Reader, 1)];
        roles.extend((1..=processors).map(|number| (Role::Processor, number)));
        roles.extend((1..=stitchers).map(|number| (Role::Stitcher, number)));
        let mut processes = Vec::with_capacity(roles.len());
        for (role, number) in roles {
            processes.push(Process::start(&launch, role, number)?);
        }
        for process in &mut processes {
            process.ready(&launch).await?;
        }
        let reader = processes
            .iter()
            .find(|process| process.role == Role::Reader)
            .map(|process| process.grpc.clone())
            .unwrap_or_default();
        let bus = connect(&nats, "catalog", None).await?;
        let view = View::connect(&format!("http://{reader}")).await?;
        let own = Own { launch, servers, data, is_kept: started.keep };
        Ok(Installation { bus, view, processes, own: Some(own), given_metrics: Vec::new(), lost: Metrics::default() })
    }

    /// Starts one, or connects to the one that is given.
    pub async fn open(
        given: &Given,
        started: &Started,
        processors: usize,
        stitchers: usize,
    ) -> Result<Installation, Error> {
        match given.nats_url {
            Some(_) => Installation::attach(given).await,
            None => Installation::start(started, processors, stitchers).await,
        }
    }

    /// What all processes of a role say of themselves, each alone, in the order of their numbers. Of a given installation: what was given.
    pub async fn metrics_of(&self, role: Role) -> Result<Vec<Metrics>, Error> {
        let own = self.processes.iter().filter(|process| process.role == role).map(|process| &process.http);
        let mut found = Vec::new();
        for address in own.chain(&self.given_metrics) {
            found.push(metrics::fetch(address).await?);
        }
        Ok(found)
    }

    /// What all processes say of themselves together, and what killed ones had said last.
    pub async fn metrics(&self) -> Result<Metrics, Error> {
        let mut sum = self.lost.clone();
        for address in self.processes.iter().map(|process| &process.http).chain(&self.given_metrics) {
            sum.add(metrics::fetch(address).await?);
        }
        Ok(sum)
    }

    /// Whether metrics can be had.
    pub fn has_metrics(&self) -> bool {
        !self.processes.is_empty() || !self.given_metrics.is_empty()
    }

    /// SIGKILL to one process, and another in its place, ready.
    pub async fn replace(&mut self, role: Role, number: usize) -> Result<(), Error> {
        let (Some(own), Some(process)) =
            (&self.own, self.processes.iter_mut().find(|process| process.role == role && process.number == number))
        else {
            return Err(Error::Usage(format!("{} {number} was not started here", role.name())));
        };
        // Its counters end with it; what it counted since is not seen.
        if let Ok(last) = metrics::fetch(&process.http).await {
            self.lost.add(last);
        }
        process.kill()?;
        *process = Process::start(&own.launch, role, number)?;
        process.ready(&own.launch).await
    }

    /// SIGSTOP or SIGCONT to one process.
    pub fn send(&self, role: Role, number: usize, signal: Signal) -> Result<(), Error> {
        match self.processes.iter().find(|process| process.role == role && process.number == number) {
            Some(process) => process.send(signal),
            None => Err(Error::Usage(format!("{} {number} was not started here", role.name()))),
        }
    }

    /// What each process and server has used; nothing where they are not ours, or there is no `/proc`.
    pub fn used(&self) -> Vec<Used> {
        let of_process = |process: &Process| {
            Some(Used { name: process.name().replace('-', "_"), usage: usage::of_process(process.pid())? })
        };
        let mut used: Vec<Used> = self.processes.iter().filter_map(of_process).collect();
        if self.own.is_some() {
            for (program, name) in [("nats-server", "nats"), ("postgres", "postgres")] {
                let pids = usage::children_named(std::process::id(), program);
                used.extend(
                    pids.into_iter()
                        .filter_map(|pid| Some(Used { name: name.to_owned(), usage: usage::of_tree(pid)? })),
                );
            }
        }
        used
    }

    /// What the servers have on disk; none where they are not ours.
    pub fn disk(&self) -> Option<Disk> {
        Some(Disk::of(&self.own.as_ref()?.servers))
    }

    /// Its database; none where it is not ours.
    pub fn database(&self) -> Option<Database<'_>> {
        self.own.as_ref()?.servers.database_url().map(Database)
    }

    /// Runs a command of the `callboard` program that asks the reader; gives what it printed.
    ///
    /// # Errors
    /// [`Error::Process`] when it fails.
    pub async fn ask(&self, arguments: &[&str]) -> Result<String, Error> {
        let reader = self.processes.iter().find(|process| process.role == Role::Reader);
        let (Some(own), Some(reader)) = (&self.own, reader) else {
            return Err(Error::Usage("only an installation started here can be asked by its program".to_owned()));
        };
        let mut command = tokio::process::Command::new(&own.launch.program);
        command.args(arguments).envs(own.launch.environment.iter().cloned()).kill_on_drop(true);
        command.env("CALLBOARD_GRPC_URL", format!("http://{}", reader.grpc)).env("CALLBOARD_DATA_DIR", own.data.path());
        let output = command.output().await.map_err(Error::io("run", &own.launch.program))?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(Error::Process {
                process: format!("callboard {}", arguments.join(" ")),
                reason: format!("ended with {}", output.status),
                log: String::from_utf8_lossy(&output.stderr).into_owned(),
            }),
        }
    }

    /// Stops what was started, processes before servers, and removes their data; says where it is if it was to be kept.
    ///
    /// # Errors
    /// [`Error::Process`] for a process that had ended by itself, or does not end.
    pub async fn stop(mut self) -> Result<(), Error> {
        self.bus.close().await;
        for process in &mut self.processes {
            process.check()?;
        }
        for process in &self.processes {
            process.send(Signal::Terminate)?;
        }
        for process in self.processes.drain(..) {
            process.end().await?;
        }
        if let Some(own) = self.own.take() {
            let stopped = tokio::task::spawn_blocking(move || {
                own.servers.stop();
                // Dropped, it is removed unless it is to be kept; closed, it is removed.
                match own.is_kept {
                    true => Ok(()),
                    false => own.data.close(),
                }
            });
            stopped
                .await
                .map_err(std::io::Error::other)
                .flatten()
                .map_err(Error::io("remove", &std::env::temp_dir()))?;
        }
        Ok(())
    }
}

pub(crate) async fn connect(
    url: &str,
    installation: &str,
    credentials: Option<(String, String)>,
) -> Result<Bus, Error> {
    let (_stopper, stop) = bus::stop();
    let options = bus::Options {
        url: url.to_owned(),
        installation: installation.to_owned(),
        credentials,
        name: "callboard-loadtest".to_owned(),
        patience: Some(PATIENCE),
    };
    Ok(Bus::connect(&options, &stop).await?)
}

pub(crate) fn data_directory(keep: bool) -> Result<TempDir, Error> {
    let place = std::env::temp_dir();
    let mut data = tempfile::Builder::new()
        .prefix("callboard-loadtest-")
        .tempdir()
        .map_err(Error::io("make a directory in", &place))?;
    // PostgreSQL refuses to run as root: then it runs as another user, who has to get here.
    fs::set_permissions(data.path(), fs::Permissions::from_mode(0o755)).map_err(Error::io("open", data.path()))?;
    if keep {
        data.disable_cleanup(true);
        eprintln!("data and logs: {}", data.path().display());
    }
    Ok(data)
}

/// Starts both servers with these options.
pub(crate) async fn start_servers(
    directory: PathBuf,
    adjust: impl FnOnce(&mut servers::Options) + Send + 'static,
) -> Result<Servers, Error> {
    let start = move || {
        let mut options = servers::Options::new(directory, servers::cache_dir()?);
        adjust(&mut options);
        servers::start(options, &mut |line| eprintln!("{line}"))
    };
    let started = tokio::task::spawn_blocking(start).await;
    Ok(started.map_err(std::io::Error::other).map_err(Error::io("start servers below", &std::env::temp_dir()))??)
}
