//! One signal that says "finish what you hold, take no more", handed to every loop of a process.

use tokio::sync::watch;

/// Creates the signal: the [`Stopper`] gives it, every [`Stop`] hears it.
pub fn stop() -> (Stopper, Stop) {
    let (sender, receiver) = watch::channel(false);
    (Stopper(sender), Stop(receiver))
}

/// Gives the signal.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

impl Stopper {
    /// Asks every holder of a [`Stop`] to finish.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

/// Hears the signal; a dropped [`Stopper`] counts as one.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Returns when the signal was given.
    pub async fn stopped(&self) {
        let mut receiver = self.0.clone();
        let _ = receiver.wait_for(|stopped| *stopped).await;
    }

    /// Whether the signal was given.
    pub fn is_stopped(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Sleeps, but no longer than until the signal; says whether the whole time passed.
    pub async fn sleep(&self, duration: std::time::Duration) -> bool {
        tokio::select! {
            biased;
            () = tokio::time::sleep(duration) => true,
            () = self.stopped() => false,
        }
    }
}
