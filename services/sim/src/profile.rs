//! What one seed is made of: how many of each role, which faults and how often, what providers do. Each seed has only some of the
//! faults, so that one does not hide another.

use crate::random::Random;
use std::time::Duration;

/// A seed's own mixture.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    pub processors: u64,
    pub stitchers: u64,
    pub schedulers: u64,
    pub readers: u64,
    /// How long the storm lasts.
    pub storm: Duration,
    pub providers: u64,
    /// Names of entities of each kind: few, so that claims meet.
    pub names: u64,
    /// The longest pause between two events of one provider, in milliseconds.
    pub pause: u64,
    pub workload: Workload,
    pub faults: Rates,
    pub blows: Blows,
}

/// Shares of events, in percent of a provider's turns.
#[derive(Clone, Debug)]
pub(crate) struct Workload {
    pub snapshots: bool,
    pub expected: bool,
    pub removals: bool,
    pub poison: bool,
    pub keys: u64,
}

/// Of a thousand calls.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rates {
    /// The longest ordinary delay of a call to the broker, and to the database, in milliseconds.
    pub bus_delay: u64,
    pub store_delay: u64,
    /// Calls that take seconds.
    pub slow: u64,
    pub away: u64,
    pub ambiguous: u64,
    pub store_away: u64,
    pub store_ambiguous: u64,
    /// Deliveries that are lost on the way, and that the broker forgets to have made.
    pub lost: u64,
    pub twice: u64,
}

/// Whole things that break, one now and then; none: never.
#[derive(Clone, Debug, Default)]
pub(crate) struct Blows {
    /// The longest pause between two, in milliseconds.
    pub pause: u64,
    /// The longest that a process stands still, in milliseconds.
    pub stall: u64,
    pub kinds: Vec<Blow>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blow {
    /// A process dies, and another comes up after a while.
    Crash,
    /// A process is asked to end, and does.
    Stop,
    /// A process stands still, mostly for longer than the broker waits for it.
    Stall,
    /// A connection breaks.
    Reset,
    /// The broker restarts.
    Restart,
    /// Somebody deletes a durable consumer, or a stream from which nothing can be lost.
    DeleteConsumer,
    DeleteStream,
    /// The broker comes back with less than it had.
    Forget,
}

const BLOWS: [Blow; 7] =
    [Blow::Crash, Blow::Stop, Blow::Stall, Blow::Reset, Blow::Restart, Blow::DeleteConsumer, Blow::DeleteStream];

impl Profile {
    /// The mixture of a seed.
    pub fn of(seed: u64) -> Profile {
        let random = &mut Random::new(seed, 1);
        let forgets = random.percent(15);
        let rate = |random: &mut Random, share: u64, most: u64| {
            if random.percent(share) { 1 + random.below(most) } else { 0 }
        };
        let faults = Rates {
            bus_delay: *random.one_of(&[0, 1, 3, 10, 60]),
            store_delay: *random.one_of(&[0, 1, 3, 10, 60]),
            slow: rate(random, 25, 10),
            away: rate(random, 35, 60),
            ambiguous: rate(random, 35, 60),
            store_away: rate(random, 35, 50),
            store_ambiguous: rate(random, 35, 50),
            lost: rate(random, 25, 80),
            twice: rate(random, 30, 150),
        };
        let mut kinds: Vec<Blow> = BLOWS.into_iter().filter(|_| random.percent(35)).collect();
        if forgets {
            kinds.push(Blow::Forget);
        }
        let snapshots = !forgets && random.percent(40);
        let workload = Workload {
            snapshots,
            expected: random.percent(25),
            removals: random.percent(35),
            poison: random.percent(40),
            keys: *random.one_of(&[0, 20, 40, 80]),
        };
        let profile = Profile {
            processors: 1 + random.below(3),
            stitchers: 1 + random.below(2),
            schedulers: 1 + random.below(2),
            readers: 1,
            storm: Duration::from_millis(1500 + random.below(6000)),
            providers: 1 + random.below(4),
            names: *random.one_of(&[1, 2, 4, 10]),
            pause: *random.one_of(&[30, 100, 400]),
            workload,
            faults,
            blows: Blows { pause: *random.one_of(&[400, 1500, 4000]), stall: 14_000, kinds },
        };
        if random.percent(2) { profile.slow(random) } else { profile }
    }

    /// The same in minutes: withdrawn claims are forgotten while somebody still holds an event from before.
    fn slow(self, random: &mut Random) -> Profile {
        let blows = Blows { pause: 2000, stall: 240_000, kinds: vec![Blow::Stall] };
        let storm = Duration::from_secs(240 + random.below(120));
        Profile { processors: 3, storm, providers: 2, names: 2, pause: 4000, blows, ..self }
    }
}
