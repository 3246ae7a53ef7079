//! Three nats-servers as one cluster: each is killed, stopped and started again by itself.

use crate::signal::{self, Signal};
use crate::{Error, metrics};
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Servers of the cluster, and copies of each stream.
pub(crate) const MEMBERS: usize = 3;
/// How long a member may take to have what the others have.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// The cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    program: PathBuf,
    directory: PathBuf,
    members: Vec<Member>,
    /// The member that suffers now.
    victim: usize,
}

#[derive(Debug)]
struct Member {
    client: u16,
    monitor: u16,
    child: Child,
}

impl Cluster {
    /// Starts all, with their data below a directory, and waits until they have a leader.
    pub async fn start(directory: PathBuf) -> Result<Cluster, Error> {
        let program = servers::locate_nats(&servers::cache_dir()?, &mut |line| eprintln!("{line}"))?.path;
        let ports = free_ports(3 * MEMBERS).map_err(Error::io("find free ports for", &directory))?;
        let routes: Vec<u16> = ports[MEMBERS..2 * MEMBERS].to_vec();
        let mut members = Vec::with_capacity(MEMBERS);
        for number in 0..MEMBERS {
            let (client, route, monitor) = (ports[number], routes[number], ports[2 * MEMBERS + number]);
            let home = directory.join(format!("member-{number}"));
            fs::create_dir_all(&home).map_err(Error::io("create", &home))?;
            let config = home.join("nats.conf");
            let text = configuration(number, (client, route, monitor), &routes, &home);
            fs::write(&config, text).map_err(Error::io("write", &config))?;
            members.push(Member { client, monitor, child: spawn(&program, &home)? });
        }
        let cluster = Cluster { program, directory, members, victim: 0 };
        for number in 0..MEMBERS {
            cluster.ready(number).await?;
        }
        Ok(cluster)
    }

    /// The addresses of all members.
    pub fn urls(&self) -> Vec<String> {
        self.members.iter().map(|member| format!("nats://127.0.0.1:{}", member.client)).collect()
    }

    /// Chooses who suffers: the member of this name, as the broker names a stream's leader; without one, the next.
    pub fn choose(&mut self, leader: Option<&str>) {
        let named = (0..MEMBERS).find(|number| leader == Some(&*name(*number)));
        self.victim = named.unwrap_or((self.victim + 1) % MEMBERS);
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> Result<(), Error> {
        let member = &mut self.members[self.victim];
        let killed = member.child.kill().and_then(|()| member.child.wait());
        killed.map(drop).map_err(Error::io("kill a nats-server of", &self.directory))
    }

    /// SIGSTOP or SIGCONT.
    pub fn send(&self, signal: Signal) -> Result<(), Error> {
        let sent = signal::send(&self.members[self.victim].child, signal);
        sent.map_err(Error::io("signal a nats-server of", &self.directory))
    }

    /// Starts the killed member again, and waits until it has what the others have.
    pub async fn restart(&mut self) -> Result<(), Error> {
        let home = self.directory.join(format!("member-{}", self.victim));
        self.members[self.victim].child = spawn(&self.program, &home)?;
        self.ready(self.victim).await
    }

    /// Whether the member that suffered ended by itself.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.members[self.victim].child.try_wait(), Ok(None))
    }

    async fn ready(&self, number: usize) -> Result<(), Error> {
        let address = format!("127.0.0.1:{}", self.members[number].monitor);
        let until = Instant::now() + READY_LIMIT;
        while !matches!(metrics::get(&address, "/healthz").await, Ok((200, _))) {
            if Instant::now() > until {
                let (what, seconds) = (format!("member {number} of the cluster"), READY_LIMIT.as_secs());
                return Err(Error::TimedOut { what, seconds, found: "not healthy".to_owned() });
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            // It may have ended already.
            drop(member.child.kill().and_then(|()| member.child.wait()));
        }
    }
}

fn name(number: usize) -> String {
    format!("member-{number}")
}

/// Clients are told of no other address than they have: theirs are proxies.
fn configuration(number: usize, (client, route, monitor): (u16, u16, u16), routes: &[u16], home: &Path) -> String {
    let others: Vec<String> = routes.iter().map(|port| format!("\"nats://127.0.0.1:{port}\"")).collect();
    format!(
        "server_name: {}\nlisten: \"127.0.0.1:{client}\"\nhttp: \"127.0.0.1:{monitor}\"\nmax_payload: 8388608\n\
         jetstream {{\n  store_dir: \"{}\"\n  sync_interval: always\n  max_memory_store: 268435456\n}}\n\
         cluster {{\n  name: chaos\n  listen: \"127.0.0.1:{route}\"\n  no_advertise: true\n  routes: [{}]\n}}\n",
        name(number),
        home.join("store").display(),
        others.join(", ")
    )
}

fn spawn(program: &Path, home: &Path) -> Result<Child, Error> {
    let path = home.join("nats.log");
    let log = File::options().create(true).append(true).open(&path).map_err(Error::io("write", &path))?;
    let mut command = Command::new(program);
    command.arg("--config").arg(home.join("nats.conf")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    signal::end_with_us(&mut command);
    command.spawn().map_err(Error::io("run", program))
}

/// All are held until all are found, so that they differ.
fn free_ports(count: usize) -> std::io::Result<Vec<u16>> {
    let held: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<Result<_, _>>()?;
    held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}
