//! Alarms: what is stuck is said aloud, when it begins, now and then while it lasts, and when it has ended.
//!
//! `watch` looks every few seconds at what waits and at what has come of it; `book` keeps which alarms last, on disk, and who
//! was told what; `channel` tells, each channel for itself, so that one that does not answer holds up no other and nothing
//! else. No queue can fill: a channel compares the book with what it has said, and what it could not say yet is still
//! there. An alarm that began and ended meanwhile is told as ended, with both times.
//!
//! An alarm names a transfer or a partner, and says what is wrong in a sentence. It knows nothing of the patient.

pub mod book;
pub mod channel;
mod mail;
pub mod message;
pub mod watch;
mod webhook;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gantry_store::index::TransferId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use book::{Alarm, Book, Raised};
use channel::{Channel, ChannelReport, Tested};
use message::Sender;
pub use watch::Watch;

/// What can be wrong.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// An emergency waits, and nothing of it has left for a while.
    EmergencyStalled,
    /// Something of an emergency waits for a person.
    EmergencySetAside,
    /// Nothing leaves for a partner, although something waits that is not paused.
    PartnerSilent,
    /// The rows cannot be reached.
    DatabaseDown,
    /// The object store does not answer, or refuses.
    ObjectStoreDown,
    /// The object store is above its high-water mark.
    ObjectStoreFull,
    /// Stored images are damaged or missing.
    ImagesLost,
}

impl Kind {
    /// As it is written everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EmergencyStalled => "emergency-stalled",
            Self::EmergencySetAside => "emergency-set-aside",
            Self::PartnerSilent => "partner-silent",
            Self::DatabaseDown => "database-down",
            Self::ObjectStoreDown => "object-store-down",
            Self::ObjectStoreFull => "object-store-full",
            Self::ImagesLost => "images-lost",
        }
    }

    /// What a mail's subject calls it.
    fn title(self) -> &'static str {
        match self {
            Self::EmergencyStalled => "an emergency does not move",
            Self::EmergencySetAside => "an emergency needs a person",
            Self::PartnerSilent => "nothing leaves for a partner",
            Self::DatabaseDown => "the database does not answer",
            Self::ObjectStoreDown => "the object store does not answer",
            Self::ObjectStoreFull => "the object store is filling up",
            Self::ImagesLost => "stored images are damaged or missing",
        }
    }
}

/// The alarms of a node, for those who watch, tell and show. A clone is another handle to the same.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    book: Mutex<Book>,
    path: PathBuf,
    /// Held from a change until it is on the disk: nothing older replaces the file, and nothing is told that is not in it.
    saving: tokio::sync::Mutex<()>,
    changes: tokio::sync::watch::Sender<u64>,
    channels: Vec<Channel>,
    clear_for: Duration,
    repeat: Duration,
    sender: Sender,
}

/// How it stands.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Those that last, the gravest first.
    pub alarms: Vec<Alarm>,
    /// Those that ended lately.
    pub ended: Vec<Alarm>,
    /// Who is told.
    pub channels: Vec<ChannelReport>,
}

impl Handle {
    /// Those of the node with this configuration, as its data directory says.
    pub fn open(config: &Config) -> Self {
        let path = config.node.alarms_path();
        let alarm = &config.alarm;
        Self(Arc::new(Shared {
            book: Mutex::new(Book::load(&path)),
            path,
            saving: tokio::sync::Mutex::default(),
            changes: tokio::sync::watch::Sender::default(),
            channels: channel::all(alarm),
            clear_for: alarm.clear_for,
            repeat: alarm.repeat,
            sender: Sender::of(config),
        }))
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Each change is whole in itself; a panic elsewhere leaves at most an alarm that is told twice.
        self.0.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those that last, the gravest first.
    pub fn lasting(&self) -> Vec<Alarm> {
        self.book().lasting()
    }

    /// The transfers that do not move right now, of those that are emergencies.
    pub fn stalled(&self) -> Vec<TransferId> {
        let lasting = self.lasting().into_iter();
        let stalled = lasting
            .filter(|alarm| alarm.kind == Kind::EmergencyStalled && alarm.clear_since.is_none());
        stalled.filter_map(|alarm| alarm.transfer).collect()
    }

    /// How it stands.
    pub fn report(&self) -> Report {
        let (alarms, ended) = {
            let book = self.book();
            (book.lasting(), book.ended())
        };
        Report { alarms, ended, channels: self.0.channels.iter().map(Channel::report).collect() }
    }

    /// Sends a message to everybody who is told, and says what came of it.
    pub async fn test(&self) -> Vec<Tested> {
        let message = self.0.sender.test(Timestamp::now());
        let tests = self.0.channels.iter().map(|channel| channel.test(&message));
        futures_util::future::join_all(tests).await
    }

    /// Begins to watch and to tell.
    pub fn start(&self, watch: Watch, stop: &CancellationToken, tasks: &TaskTracker) {
        let (handle, stopped) = (self.clone(), stop.clone());
        tasks.spawn(async move { stopped.run_until_cancelled(Box::pin(watch.run(handle))).await });
        for number in 0..self.0.channels.len() {
            let (handle, stopped) = (self.clone(), stop.clone());
            tasks.spawn(
                async move { stopped.run_until_cancelled(Box::pin(handle.tell(number))).await },
            );
        }
    }

    /// Tells one channel what it does not know yet, for ever.
    async fn tell(self, number: usize) {
        let Some(channel) = self.0.channels.get(number) else { return };
        let mut changes = self.0.changes.subscribe();
        loop {
            let now = Timestamp::now();
            let due = {
                let _written = self.0.saving.lock().await;
                self.book().due(channel.name(), self.0.repeat, now)
            };
            if due.is_empty() {
                // Reminders fall due without a change.
                let _ = tokio::time::timeout(watch::LOOK, changes.changed()).await;
                continue;
            }
            let message = self.0.sender.message(&due, now);
            if channel.send(&message).await {
                let _until_written = self.0.saving.lock().await;
                self.book().told(channel.name(), &due, now);
                self.write().await;
            } else {
                tokio::time::sleep(channel.pause()).await;
            }
        }
    }

    /// Takes over what was seen. Says whether an alarm began or ended.
    async fn saw(&self, raised: Vec<Raised>, judged: &[Kind], now: Timestamp) -> bool {
        let until_written = self.0.saving.lock().await;
        let changes = {
            let channels: Vec<_> = self.0.channels.iter().map(Channel::name).collect();
            self.book().update(raised, judged, self.0.clear_for, &channels, now)
        };
        for alarm in &changes.begun {
            say(alarm, "an alarm begins");
        }
        for alarm in &changes.ended {
            say(alarm, "an alarm has ended");
        }
        if changes.any {
            self.write().await;
        }
        drop(until_written);
        if changes.any {
            self.0.changes.send_modify(|count| *count += 1);
        }
        changes.any
    }

    async fn write(&self) {
        let handle = self.clone();
        let saved = tokio::task::spawn_blocking(move || {
            let text = handle.book().text()?;
            book::write(&handle.0.path, &text)
        });
        if let Ok(Err(error)) = saved.await {
            tracing::warn!(%error, "alarms cannot be written; after a restart they would be told anew");
        }
    }
}

fn say(alarm: &Alarm, what: &'static str) {
    tracing::warn!(
        alarm = %alarm.id,
        kind = alarm.kind.as_str(),
        partner = alarm.partner,
        transfer = alarm.transfer.map(tracing::field::display),
        since = %alarm.since,
        sentence = alarm.sentence,
        "{what}"
    );
}
