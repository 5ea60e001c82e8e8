//! The rate at which a partner is sent what is no emergency, kept by all that send to it together.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// When the next byte may go.
#[derive(Debug)]
pub struct Flow {
    due: Mutex<Instant>,
}

impl Default for Flow {
    fn default() -> Self {
        Self { due: Mutex::new(Instant::now()) }
    }
}

impl Flow {
    /// What one instance waits for that goes at so many bytes a second; `None`: as fast as it can. `emergencies` counts those
    /// that come.
    pub fn throttle(&self, rate: Option<u64>, emergencies: watch::Receiver<u64>) -> Throttle<'_> {
        let before = *emergencies.borrow();
        Throttle { flow: self, rate, emergencies, before }
    }

    /// Takes room for so many bytes, and says when that is.
    fn take(&self, bytes: usize, rate: u64) -> Instant {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        // What was not used is not made up for.
        let at = (*due).max(Instant::now());
        *due = at + Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
        at
    }
}

/// Makes one instance wait, but no longer once an emergency has come, as that may stand behind it.
#[derive(Debug)]
pub struct Throttle<'a> {
    flow: &'a Flow,
    rate: Option<u64>,
    emergencies: watch::Receiver<u64>,
    before: u64,
}

impl Throttle<'_> {
    /// Waits until so many more bytes may go.
    pub async fn wait(&mut self, bytes: usize) {
        let Some(rate) = self.rate else { return };
        let at = self.flow.take(bytes, rate);
        let before = self.before;
        tokio::select! {
            () = sleep_until(at) => {}
            // Ends with an error when nobody is left who could tell, and then nothing holds anything up.
            _ = self.emergencies.wait_for(|count| *count != before) => self.rate = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_goes_at_a_rate_takes_its_time_whoever_sends_it() {
        let (flow, count) = (Flow::default(), watch::Sender::new(0));
        let begun = Instant::now();
        let send = || async {
            let mut throttle = flow.throttle(Some(100_000), count.subscribe());
            for _ in 0..5 {
                throttle.wait(10_000).await;
            }
        };

        tokio::join!(send(), send());

        // The last one goes when the nine before it have had their time.
        assert_eq!(begun.elapsed().as_millis() / 10, 90);
        flow.throttle(None, count.subscribe()).wait(1 << 30).await;
        assert_eq!(begun.elapsed().as_millis() / 10, 90);
    }

    #[tokio::test(start_paused = true)]
    async fn an_instance_waits_no_more_once_an_emergency_has_come() {
        let (flow, count) = (Flow::default(), watch::Sender::new(0));
        let mut throttle = flow.throttle(Some(1), count.subscribe());
        throttle.wait(3600).await;
        let begun = Instant::now();

        let come = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            count.send_modify(|count| *count += 1);
        };
        tokio::join!(throttle.wait(1), come);
        throttle.wait(1000).await;

        assert_eq!(begun.elapsed(), Duration::from_secs(5));
    }
}
