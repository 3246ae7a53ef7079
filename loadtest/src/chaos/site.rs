//! An installation that is made to suffer: real servers and processes, proxies between them, and everything that can be done to them.

use super::cluster::Cluster;
use super::disk::{DISK_BYTES, Disk, copy_all, remove};
use super::proxy::{Mode, Proxy};
use super::side::Side;
use crate::installation::{Started, connect, data_directory, start_servers};
use crate::process::{Process, Role, find_program};
use crate::signal::Signal;
use crate::{Error, usage};
use bus::Bus;
use servers::Servers;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::Instant;

/// Processes of each role.
pub(crate) const ROLES: [(Role, usize); 4] =
    [(Role::Processor, 3), (Role::Stitcher, 2), (Role::Scheduler, 2), (Role::Reader, 2)];
/// How long a server may take to come back.
const RETURN_LIMIT: Duration = Duration::from_secs(60);

/// One of the two servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    Broker,
    Database,
}

impl Server {
    fn directory(self) -> &'static str {
        match self {
            Server::Broker => "broker",
            Server::Database => "database",
        }
    }

    fn program(self) -> &'static str {
        match self {
            Server::Broker => "nats-server",
            Server::Database => "postgres",
        }
    }

    async fn start(self, data: &Path) -> Result<Servers, Error> {
        start_servers(data.join(self.directory()), move |options| self.adjust(options)).await
    }

    fn adjust(self, options: &mut servers::Options) {
        options.nats = self == Server::Broker;
        options.postgres = self == Server::Database;
        options.nats_config.max_store_bytes = Some(DISK_BYTES / 2);
    }
}

/// What an operator's command answered.
pub(crate) struct Answer {
    /// Its exit code; -1 when a signal ended it.
    pub code: i32,
    /// What it wrote as JSON, a value a line.
    pub values: Vec<serde_json::Value>,
    /// What it said besides: why it failed.
    pub said: String,
}

/// Everything that runs.
pub(crate) struct Site {
    pub bus: Bus,
    processes: Vec<Process>,
    sides: [Side; 2],
    /// For the run itself: never disturbed.
    own: Side,
    broker: Option<Servers>,
    /// In the place of the one broker.
    cluster: Option<Cluster>,
    database: Option<Servers>,
    disks: Vec<Disk>,
    data: TempDir,
}

impl Site {
    /// Starts servers, proxies and processes, and waits until all are ready.
    pub async fn start(started: &Started, is_cluster: bool) -> Result<Site, Error> {
        let program = find_program(started.callboard.as_deref())?;
        let data = data_directory(started.keep)?;
        let mut disks = Vec::new();
        for server in [Server::Broker, Server::Database] {
            disks.extend(Disk::mount(&data.path().join(server.directory())));
        }
        let (broker, cluster) = match is_cluster {
            true => (None, Some(Cluster::start(data.path().join("broker")).await?)),
            false => (Some(Server::Broker.start(data.path()).await?), None),
        };
        let database = Server::Database.start(data.path()).await?;
        let single = || broker.iter().filter_map(Servers::nats_url).map(str::to_owned).collect();
        let nats: Vec<String> = cluster.as_ref().map_or_else(single, Cluster::urls);
        let mut sides = Vec::with_capacity(3);
        for _ in 0..3 {
            let urls = (&nats[..], database.database_url().unwrap_or_default());
            sides.push(Side::start(urls, &program, (data.path(), &started.settings[..])).await?);
        }
        let [first, second, own]: [Side; 3] =
            sides.try_into().map_err(|_| Error::Usage("three sides were started; this is a bug".to_owned()))?;
        let sides = [first, second];
        let mut processes = Vec::new();
        for (role, count) in ROLES {
            for number in 1..=count {
                processes.push(Process::start(&sides[number % 2].launch, role, number)?);
            }
        }
        for process in &mut processes {
            process.ready(&sides[process.number % 2].launch).await?;
        }
        let bus = connect(&own.nats_url(&nats), "catalog", None).await?;
        Ok(Site { bus, processes, sides, own, broker, cluster, database: Some(database), disks, data })
    }

    /// Whether the servers' disks can be filled: on Linux, as root.
    pub fn has_disks(&self) -> bool {
        self.disks.len() == 2 && !self.is_cluster()
    }

    /// Whether the broker is a cluster, which forgets nothing while one of its members goes on.
    pub fn is_cluster(&self) -> bool {
        self.cluster.is_some()
    }

    /// In a cluster, the member that suffers next: the leader of one of the streams.
    pub async fn choose_leader(&mut self, stream: &str) {
        let status = bus::find_stream(&self.bus, stream).await;
        let leader = status.ok().flatten().and_then(|status| status.leader);
        if let Some(cluster) = &mut self.cluster {
            cluster.choose(leader.as_deref());
        }
    }

    /// The gRPC addresses of the readers.
    pub fn readers(&self) -> Vec<String> {
        self.processes
            .iter()
            .filter(|process| process.role == Role::Reader)
            .map(|process| process.grpc.clone())
            .collect()
    }

    /// The metrics addresses of all processes.
    pub fn metrics(&self) -> Vec<String> {
        self.processes.iter().map(|process| process.http.clone()).collect()
    }

    /// SIGKILL to one process, and another in its place; not waited for.
    pub fn replace(&mut self, role: Role, number: usize) -> Result<(), Error> {
        let sides = &self.sides;
        for process in self.processes.iter_mut().filter(|process| process.role == role && process.number == number) {
            process.kill()?;
            *process = Process::start(&sides[number % 2].launch, role, number)?;
        }
        Ok(())
    }

    /// SIGKILL to one process, with nobody in its place.
    pub fn kill_role(&mut self, role: Role, number: usize) -> Result<(), Error> {
        let mut killed = self.processes.iter_mut().filter(|process| process.role == role && process.number == number);
        killed.try_for_each(Process::kill)
    }

    /// Waits until every process is ready.
    pub async fn ready(&mut self) -> Result<(), Error> {
        for process in &mut self.processes {
            process.ready(&self.sides[process.number % 2].launch).await?;
        }
        Ok(())
    }

    /// SIGSTOP or SIGCONT to one process.
    pub fn signal(&self, role: Role, number: usize, signal: Signal) -> Result<(), Error> {
        self.processes
            .iter()
            .filter(|process| process.role == role && process.number == number)
            .try_for_each(|process| process.send(signal))
    }

    /// Processes that ended by themselves, with why; others are started in their place. One that lost its port to another program is not told.
    pub fn ended(&mut self) -> Result<Vec<String>, Error> {
        let mut ended = Vec::new();
        for process in &mut self.processes {
            let Err(error) = process.check() else { continue };
            let error = error.to_string();
            if !error.to_lowercase().contains("address already in use") {
                ended.push(error);
            }
            *process = Process::start(&self.sides[process.number % 2].launch, process.role, process.number)?;
        }
        Ok(ended)
    }

    /// What becomes of what passes between one half of the processes and a server.
    pub fn set(&self, side: usize, server: Server, mode: Mode) {
        self.sides[side % 2].proxies(server).iter().for_each(|proxy| proxy.set(mode));
    }

    /// Cuts the connections between one half of the processes and a server.
    pub fn cut(&self, side: usize, server: Server) {
        self.sides[side % 2].proxies(server).iter().for_each(Proxy::cut);
    }

    /// SIGKILL to a server's process, or to PostgreSQL's first; what is left of it ends by itself.
    pub fn kill(&mut self, server: Server) -> Result<(), Error> {
        if let (Server::Broker, Some(cluster)) = (server, &mut self.cluster) {
            return cluster.kill();
        }
        self.send(server, "KILL")?;
        let running = if server == Server::Broker { self.broker.take() } else { self.database.take() };
        if let Some(running) = running {
            running.stop();
        }
        Ok(())
    }

    /// A signal to every process of a server.
    pub fn send(&self, server: Server, signal: &str) -> Result<(), Error> {
        if let (Server::Broker, Some(cluster)) = (server, &self.cluster) {
            return cluster.send(if signal == "STOP" { Signal::Stop } else { Signal::Continue });
        }
        // Other runs may have servers of theirs; one's own are told by where their data are.
        let place = self.data.path().to_string_lossy();
        let is_own = |pid: &u32| {
            std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains(&*place))
        };
        for pid in usage::children_named(std::process::id(), server.program()).into_iter().filter(is_own) {
            let mut pids = vec![pid];
            if signal != "KILL" {
                pids.extend(usage::children_named(pid, server.program()));
            }
            let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
            drop(Command::new("kill").arg(format!("-{signal}")).args(&pids).output());
        }
        Ok(())
    }

    /// Starts a server again on what is left of its data; tries until it runs, for a minute.
    pub async fn restart(&mut self, server: Server) -> Result<(), Error> {
        if let (Server::Broker, Some(cluster)) = (server, &mut self.cluster) {
            return cluster.restart().await;
        }
        let until = Instant::now() + RETURN_LIMIT;
        let running = loop {
            match server.start(self.data.path()).await {
                Ok(running) => break running,
                Err(error) if Instant::now() >= until => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        };
        let url = if server == Server::Broker { running.nats_url() } else { running.database_url() };
        for side in self.sides.iter().chain([&self.own]) {
            side.proxies(server).iter().for_each(|proxy| proxy.target(url.unwrap_or_default()));
        }
        match server {
            Server::Broker => self.broker = Some(running),
            Server::Database => self.database = Some(running),
        }
        Ok(())
    }

    /// Whether a server ended by itself.
    pub fn has_ended(&mut self, server: Server) -> bool {
        if let (Server::Broker, Some(cluster)) = (server, &mut self.cluster) {
            return cluster.has_ended();
        }
        let running = if server == Server::Broker { self.broker.as_mut() } else { self.database.as_mut() };
        running.is_none_or(|running| running.ended().is_some())
    }

    /// Where the broker keeps its streams.
    fn streams(&self) -> PathBuf {
        self.data.path().join("broker/nats/store")
    }

    /// Copies the broker's streams as they are now, to go back to; the broker is stopped meanwhile.
    pub async fn copy_streams(&mut self) -> Result<(), Error> {
        self.kill(Server::Broker)?;
        let copy = self.data.path().join("copy");
        remove(&copy)?;
        copy_all(&self.streams(), &copy)?;
        self.restart(Server::Broker).await
    }

    /// The broker forgets what came after the copy; without one, everything. It is down then.
    pub fn forget_streams(&mut self, go_back: bool) -> Result<(), Error> {
        self.kill(Server::Broker)?;
        remove(&self.streams())?;
        let copy = self.data.path().join("copy");
        match go_back && copy.is_dir() {
            true => copy_all(&copy, &self.streams()),
            false => Ok(()),
        }
    }

    /// Fills a server's disk, or empties it again.
    pub fn fill(&self, server: Server, is_full: bool) -> Result<(), Error> {
        let filler = self.data.path().join(server.directory()).join("filler");
        if !is_full {
            return remove(&filler);
        }
        // Ends with an error when nothing is left: that is what it is for.
        drop(Command::new("dd").args(["if=/dev/zero", "bs=64k"]).arg(format!("of={}", filler.display())).output());
        Ok(())
    }

    /// Runs `callboard` and waits for it.
    pub fn ask(&self, reader: &str, arguments: &[&str]) -> Result<Answer, Error> {
        let launch = &self.own.launch;
        let mut command = Command::new(&launch.program);
        command.args(arguments).args(["--output", "json"]).envs(launch.environment.iter().cloned());
        command.env("CALLBOARD_GRPC_URL", format!("http://{reader}"));
        let output = command.output().map_err(Error::io("run", &launch.program))?;
        let lines = String::from_utf8_lossy(&output.stdout);
        Ok(Answer {
            code: output.status.code().unwrap_or(-1),
            values: lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect(),
            said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }

    /// What an operator does after a broker has forgotten events: snapshots whose parts may be lost withdraw nothing.
    pub fn discard_snapshots(&self) -> Result<(), Error> {
        let reader = self.readers().first().cloned().unwrap_or_default();
        let snapshots = self.ask(&reader, &["snapshots"])?.values;
        for snapshot in snapshots.iter().filter(|snapshot| snapshot["state"] == "open") {
            let text = |name: &str| snapshot[name].as_str().unwrap_or_default().to_owned();
            // One that was decided meanwhile is left as it is.
            self.ask(&reader, &["snapshots", "discard", &text("snapshot"), "--provider", &text("provider")])?;
        }
        Ok(())
    }

    /// Deadlocks that PostgreSQL has found, as its log tells.
    pub fn deadlocks(&self) -> usize {
        let log = self.data.path().join(Server::Database.directory()).join("postgres.log");
        let log = std::fs::read(log).unwrap_or_default();
        String::from_utf8_lossy(&log).matches("deadlock detected").count()
    }

    /// Stops everything.
    pub async fn stop(mut self) -> Result<(), Error> {
        self.bus.close().await;
        for process in &self.processes {
            process.send(Signal::Terminate)?;
        }
        for process in self.processes.drain(..) {
            process.end().await?;
        }
        let stop = move || {
            drop((self.broker.take(), self.cluster.take(), self.database.take()));
            self.disks.clear();
        };
        tokio::task::spawn_blocking(stop)
            .await
            .map_err(std::io::Error::other)
            .map_err(Error::io("stop", Path::new("servers")))
    }
}
