//! `loadtest planted`: whether chaos catches each bug that can be planted in Callboard, and how fast.

use crate::Error;
use crate::chaos::Chaos;
use crate::installation::Started;
use crate::report::Report;
use catalog::planted::BUGS;
use std::time::Instant;

/// Minutes of faults in one try; each try has another seed.
const TRIES: [f64; 4] = [0.5, 1.0, 2.0, 4.0];

/// Which bugs, and with which program.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Planted {
    /// Only this bug; as often as needed
    #[arg(long = "bug", value_name = "NAME", value_parser = bug)]
    bugs: Vec<String>,
    /// Of the first try
    #[arg(long, default_value = "1")]
    seed: u64,
    /// Tries a bug at most, of half a minute, 1, 2 and 4 minutes
    #[arg(long, value_name = "COUNT", default_value = "4", value_parser = clap::value_parser!(u8).range(1..=4))]
    tries: u8,
    #[command(flatten)]
    started: Started,
}

fn bug(text: &str) -> Result<String, String> {
    let known = || BUGS.map(|(name, _)| name).join(", ");
    BUGS.iter()
        .any(|(name, _)| *name == text)
        .then(|| text.to_owned())
        .ok_or_else(|| format!("expected one of {}", known()))
}

impl Planted {
    /// Torments a program with each of the bugs in it; the program has to be built with `--features planted`.
    pub async fn run(&self) -> Result<Report, Error> {
        let mut report = Report::new(format!("planted: bugs that chaos has to catch (seed {})", self.seed));
        let mut rows = Vec::new();
        let mut missed = 0;
        for (name, what) in
            BUGS.iter().filter(|(name, _)| self.bugs.is_empty() || self.bugs.iter().any(|bug| bug == name))
        {
            let caught = self.plant(name).await?;
            missed += usize::from(caught.is_none());
            let (seconds, by) =
                caught.map_or(("-".to_owned(), "missed".to_owned()), |(seconds, by)| (format!("{seconds:.0}"), by));
            eprintln!("{name}: {by} after {seconds} s");
            rows.push(vec![(*name).to_owned(), seconds, by, (*what).to_owned()]);
        }
        report.table(&["bug", "seconds", "caught by", "what is wrong"], rows);
        report.equal("bugs missed", 0.0, missed as f64);
        Ok(report)
    }

    /// The seconds until it was caught, and by what; none: it was not.
    async fn plant(&self, bug: &str) -> Result<Option<(f64, String)>, Error> {
        let began = Instant::now();
        for (place, minutes) in TRIES.into_iter().take(usize::from(self.tries)).enumerate() {
            let mut started = self.started.clone();
            started.settings.push(("CALLBOARD_PLANTED".to_owned(), bug.to_owned()));
            let chaos = Chaos::new(minutes, self.seed + place as u64, started);
            if let Some(violation) = chaos.violations().await?.into_iter().next() {
                return Ok(Some((began.elapsed().as_secs_f64(), violation.chars().take(80).collect())));
            }
        }
        Ok(None)
    }
}
