//! What is done to an installation while it works: processes die, end, stand still and come up; the broker restarts, forgets, loses consumers.

use crate::profile::Blow;
use crate::random::Random;
use crate::site::{Role, Running, Site};
use bus::Names;
use bus::twin::Snapshot;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The processes of a seed, those that are to come up again, and the states of the broker that were.
pub(crate) struct Storm {
    site: Arc<Site>,
    random: Random,
    running: Vec<Running>,
    down: Vec<(Instant, Role)>,
    older: Vec<Snapshot>,
}

impl Storm {
    /// Starts every process.
    pub fn begin(site: &Arc<Site>) -> Storm {
        let profile = &site.profile;
        let roles = [
            (Role::Processor, profile.processors),
            (Role::Stitcher, profile.stitchers),
            (Role::Scheduler, profile.schedulers),
            (Role::Reader, profile.readers),
        ];
        let running = roles.iter().flat_map(|(role, count)| (0..*count).map(|_| site.start(*role))).collect();
        Storm {
            site: site.clone(),
            random: Random::new(site.seed, 4),
            running,
            down: Vec::new(),
            older: vec![Snapshot::default()],
        }
    }

    /// Blows until the time is over; then everything that is down comes up.
    pub async fn rage(&mut self) {
        let until = Instant::now() + self.site.profile.storm;
        let blows = self.site.profile.blows.clone();
        while Instant::now() < until {
            let pause = Duration::from_millis(20 + self.random.below(blows.pause));
            tokio::time::sleep(pause.min(until.saturating_duration_since(Instant::now()))).await;
            self.come_up(Instant::now());
            if self.random.percent(30) {
                self.older.push(self.site.broker.snapshot());
            }
            if !blows.kinds.is_empty() && Instant::now() < until {
                let blow = *self.random.one_of(&blows.kinds);
                self.blow(blow).await;
            }
        }
        self.come_up(Instant::now() + Duration::from_secs(3600));
        self.look_for_dead().await;
    }

    fn come_up(&mut self, now: Instant) {
        let (up, down): (Vec<_>, Vec<_>) = std::mem::take(&mut self.down).into_iter().partition(|(at, _)| *at <= now);
        self.down = down;
        self.running.extend(up.into_iter().map(|(_, role)| self.site.start(role)));
    }

    /// Nobody ends by itself.
    pub async fn look_for_dead(&mut self) {
        let (dead, running): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.running).into_iter().partition(Running::is_finished);
        self.running = running;
        for dead in dead {
            let why = dead.ended().await;
            self.site.violated(why);
        }
    }

    async fn blow(&mut self, blow: Blow) {
        match blow {
            Blow::Crash => self.crash(),
            Blow::Stop => {
                if let Some(one) = self.take_one() {
                    self.down_for_a_while(one.role);
                    let site = self.site.clone();
                    tokio::spawn(async move { site.end(one).await });
                }
            }
            Blow::Stall => {
                let duration = Duration::from_millis(500 + self.random.below(self.site.profile.blows.stall));
                if let Some(one) = self.pick() {
                    self.site.stall(&self.running[one], duration);
                }
            }
            Blow::Reset => {
                if let Some(one) = self.pick() {
                    self.site.reset(&self.running[one]);
                }
            }
            Blow::Restart => {
                self.site.trace.note(format_args!("the broker restarts"));
                self.site.broker.restart();
            }
            Blow::DeleteConsumer | Blow::DeleteStream => self.delete(blow).await,
            Blow::Forget => {
                let older = self.random.one_of(&self.older).clone();
                // What it has now is what it will go back to, if it does again.
                self.older.clear();
                self.older.push(older.clone());
                self.site.forget(&older).await;
            }
        }
    }

    async fn delete(&mut self, blow: Blow) {
        let bus = self.site.bus();
        let names = bus.names();
        let (events, stitch) = (names.events_stream(), names.stitch_stream());
        let consumers = [
            (&events, Names::PROCESSOR),
            (&events, Names::PROCESSOR_BULK),
            (&stitch, Names::STITCHER),
            (&stitch, Names::STITCHER_BULK),
        ];
        let streams = [&stitch, &names.entities_stream()];
        let (stream, durable) = match blow {
            Blow::DeleteConsumer => {
                let (stream, durable) = *self.random.one_of(&consumers);
                (stream, Some(durable))
            }
            _ => (*self.random.one_of(&streams), None),
        };
        self.site.trace.note(format_args!("{stream} {durable:?} is deleted"));
        let _ = bus::delete(&bus, stream, durable).await;
    }

    fn crash(&mut self) {
        if let Some(one) = self.take_one() {
            self.site.crash(&one);
            self.down_for_a_while(one.role);
        }
    }

    fn down_for_a_while(&mut self, role: Role) {
        let pause = Duration::from_millis(self.random.below(3000));
        self.down.push((Instant::now() + pause, role));
    }

    fn pick(&mut self) -> Option<usize> {
        let count = self.running.len() as u64;
        (count > 0).then(|| usize::try_from(self.random.below(count)).unwrap_or(0))
    }

    fn take_one(&mut self) -> Option<Running> {
        let place = self.pick()?;
        Some(self.running.swap_remove(place))
    }

    /// Ends every process in good order.
    pub async fn end(self) {
        for one in self.running {
            self.site.end(one).await;
        }
    }
}
