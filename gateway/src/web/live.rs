//! Events for pages and programs: that something has changed, never what.
//!
//! An event carries the change counter and no data, so whoever hears it asks again with the rights it has then. A
//! listener that was away misses nothing: it hears the latest counter when it is back. At most two events a second go
//! to each listener, however fast images come.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::guard::session_token;
use super::{App, WebState};

/// The least time between two events.
const THROTTLE: Duration = Duration::from_millis(500);
/// How often a stream says that it is alive, and looks whether its session is.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// `/events` and `/api/v1/events`.
pub(super) async fn events(State(app): State<App>, headers: HeaderMap) -> impl IntoResponse {
    let session = session_token(&app.web, &headers).map(str::to_owned);
    let mut changes = app.web.changes.clone();
    // The first event comes at once: what was shown before the stream began may be old by now.
    changes.mark_changed();
    let watcher = Watcher { web: app.web.clone(), session, changes, not_before: Instant::now() };
    Sse::new(stream::unfold(watcher, Watcher::next))
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

struct Watcher {
    web: WebState,
    /// `None` on the administrator's socket, which needs none.
    session: Option<String>,
    changes: watch::Receiver<u64>,
    not_before: Instant,
}

impl Watcher {
    /// The next event; the stream ends when the node stops, or when nobody is signed in any more.
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        loop {
            let stop = self.web.stop.clone();
            let look = Instant::now() + KEEP_ALIVE;
            tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                () = sleep_until(look) => {
                    if !self.still_signed_in() {
                        return None;
                    }
                }
                changed = changed(&mut self.changes, self.not_before) => {
                    if !changed || !self.still_signed_in() {
                        return None;
                    }
                    self.not_before = Instant::now() + THROTTLE;
                    let counter = *self.changes.borrow_and_update();
                    let event = Event::default().event("changed").id(counter.to_string()).data(counter.to_string());
                    return Some((Ok(event), self));
                }
            }
        }
    }

    fn still_signed_in(&self) -> bool {
        self.session.as_ref().is_none_or(|token| self.web.sessions.person(token).is_some())
    }
}

/// Waits for a change and for the time at which it may be told. False if nothing can change any more.
async fn changed(changes: &mut watch::Receiver<u64>, not_before: Instant) -> bool {
    sleep_until(not_before).await;
    changes.changed().await.is_ok()
}
