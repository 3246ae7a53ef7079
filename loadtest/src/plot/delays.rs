//! How long work waits in the queues while a run goes on, from the processes' own histograms.

use super::{Axis, Line, Plot, Plots, Scale};
use crate::installation::Installation;
use crate::metrics::Metrics;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior};

/// How often the processes are asked.
const SAMPLE_EVERY: Duration = Duration::from_millis(500);
const STAGES: [&str; 2] = ["processing", "stitching"];

/// The mean delay of what was taken in each interval, in seconds, by stage.
#[derive(Debug, Default)]
pub(crate) struct Delays {
    lines: Mutex<[Vec<(f64, f64)>; 2]>,
}

impl Delays {
    /// Looks at the delays while `work` goes on, if plots are asked for and there are processes to be asked.
    pub async fn beside<T>(&self, plots: &Plots, installation: &Installation, work: impl Future<Output = T>) -> T {
        if !plots.is_asked() || !installation.has_metrics() {
            return work.await;
        }
        tokio::select! {
            done = work => done,
            never = self.sample(installation) => match never {},
        }
    }

    async fn sample(&self, installation: &Installation) -> std::convert::Infallible {
        let began = Instant::now();
        let mut ticks = tokio::time::interval(SAMPLE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut before: Option<[(f64, f64); 2]> = None;
        loop {
            ticks.tick().await;
            // A process that does not answer now is asked again.
            let Ok(metrics) = installation.metrics().await else { continue };
            let now = STAGES.map(|stage| taken(&metrics, stage));
            if let Some(before) = before.replace(now) {
                let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
                for (stage, line) in lines.iter_mut().enumerate() {
                    let (count, seconds) = (now[stage].0 - before[stage].0, now[stage].1 - before[stage].1);
                    if count > 0.0 {
                        line.push((began.elapsed().as_secs_f64(), seconds / count));
                    }
                }
            }
        }
    }

    /// The delays over time, and beside them others' lines.
    pub fn plot(self, title: impl Into<String>, others: Vec<Line>) -> Plot {
        let lines = self.lines.into_inner().unwrap_or_else(PoisonError::into_inner);
        let of_stages =
            STAGES.into_iter().zip(lines).map(|(stage, points)| Line { name: format!("{stage} queue"), points });
        Plot {
            title: title.into(),
            x: Axis { label: "seconds since the first publish", scale: Scale::Linear },
            y: Axis { label: "seconds of delay", scale: Scale::Linear },
            lines: of_stages.chain(others).collect(),
        }
    }
}

/// How many work items of a stage were taken so far, and the seconds that they had waited.
fn taken(metrics: &Metrics, stage: &str) -> (f64, f64) {
    let of = |what: &str| metrics.sum(&format!("catalog_{stage}_queue_delay_seconds_{what}"), &[]);
    (of("count"), of("sum"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_summed_over_processes_and_labels() {
        let mut metrics = Metrics::parse(
            "catalog_processing_queue_delay_seconds_sum{lane=\"fresh\"} 1.5\n\
             catalog_processing_queue_delay_seconds_sum{lane=\"bulk\"} 2\n\
             catalog_processing_queue_delay_seconds_count{lane=\"fresh\"} 3\n",
        );
        metrics.add(Metrics::parse("catalog_processing_queue_delay_seconds_count 4\n"));
        assert_eq!(taken(&metrics, "processing"), (7.0, 3.5));
        assert_eq!(taken(&metrics, "stitching"), (0.0, 0.0));
    }
}
