//! What goes wrong between a process and the broker or the database, call by call, as the seed decides.

use crate::profile::Rates;
use crate::random::Random;
use crate::trace::Trace;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The faults of one seed, which all processes share.
#[derive(Debug)]
pub(crate) struct Faults {
    rates: Rates,
    random: Mutex<Random>,
    pub trace: Arc<Trace>,
    /// After the storm nothing goes wrong any more; calls still take their time.
    is_over: AtomicBool,
}

enum Drawn {
    Nothing,
    Delay(Duration),
    Away,
    Ambiguous,
}

impl Faults {
    pub fn new(seed: u64, rates: Rates, trace: &Arc<Trace>) -> Faults {
        Faults {
            rates,
            random: Mutex::new(Random::new(seed, 2)),
            trace: trace.clone(),
            is_over: AtomicBool::new(false),
        }
    }

    pub fn end(&self) {
        self.is_over.store(true, Relaxed);
    }

    fn draw(&self, away: u64, ambiguous: u64, longest: u64) -> Drawn {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        let fate = random.below(1000);
        let delay = random.below(longest + 1);
        if self.is_over.load(Relaxed) {
            return if delay == 0 { Drawn::Nothing } else { Drawn::Delay(Duration::from_millis(delay)) };
        }
        if fate < away {
            Drawn::Away
        } else if fate < away + ambiguous {
            Drawn::Ambiguous
        } else if fate < away + ambiguous + self.rates.slow {
            Drawn::Delay(Duration::from_millis(500 + random.below(8000)))
        } else if delay == 0 {
            Drawn::Nothing
        } else {
            Drawn::Delay(Duration::from_millis(delay))
        }
    }
}

impl bus::twin::Faults for Faults {
    fn at(&self, point: &'static str) -> bus::twin::Fault {
        let rates = &self.rates;
        let drawn = match point {
            "bus.deliver" => self.draw(rates.lost, rates.twice, rates.bus_delay),
            "bus.follow" => self.draw(0, 0, rates.bus_delay),
            // What is lost on the way back is waited for.
            "bus.answer" => self.draw(rates.away / 4, 0, rates.bus_delay),
            _ => self.draw(rates.away, rates.ambiguous, rates.bus_delay),
        };
        let fault = match drawn {
            Drawn::Nothing => bus::twin::Fault::None,
            Drawn::Delay(delay) => bus::twin::Fault::Delay(delay),
            Drawn::Away => bus::twin::Fault::Away,
            Drawn::Ambiguous => bus::twin::Fault::Ambiguous,
        };
        self.trace.note(format_args!("{point} {fault:?}"));
        fault
    }
}

/// One process as the database has it: it may stand still.
#[derive(Debug)]
pub(crate) struct Process {
    faults: Arc<Faults>,
    stalled_until: Mutex<Option<Instant>>,
}

impl Process {
    pub fn new(faults: &Arc<Faults>) -> Process {
        Process { faults: faults.clone(), stalled_until: Mutex::default() }
    }

    pub fn stall(&self, duration: Duration) {
        *self.stalled_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + duration);
    }
}

impl store::twin::Faults for Process {
    fn at(&self, point: &'static str) -> store::twin::Fault {
        let stalled = *self.stalled_until.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = stalled.map(|until| until.saturating_duration_since(Instant::now())).unwrap_or_default();
        let rates = &self.faults.rates;
        let fault = match self.faults.draw(rates.store_away, rates.store_ambiguous, rates.store_delay) {
            _ if !rest.is_zero() => store::twin::Fault::Delay(rest),
            Drawn::Nothing => store::twin::Fault::None,
            Drawn::Delay(delay) => store::twin::Fault::Delay(delay),
            Drawn::Away => store::twin::Fault::Lost,
            Drawn::Ambiguous => store::twin::Fault::Ambiguous,
        };
        self.faults.trace.note(format_args!("store.{point} {fault:?}"));
        fault
    }
}
