//! Which alarms last, since when, and who was told what of them, as it lies in the data directory.
//!
//! Written whole or not at all, after every change: what was told is not told again by a restart. Holds no patient data.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use gantry_store::index::TransferId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use ulid::Ulid;

use super::Kind;
use super::message::Event;

/// The most that last at once; further ones wait until one of these has ended. A board with more is no board.
const MOST: usize = 500;
/// How long one that has ended is kept for channels that do not answer, and to be shown; and how many of them.
const KEEP: Duration = Duration::from_hours(24);
const MOST_ENDED: usize = 100;
/// The most that one message holds.
const MOST_TOLD: usize = 50;

/// What is seen to be wrong.
#[derive(Clone, Debug)]
pub struct Raised {
    /// What.
    pub kind: Kind,
    /// With which partner, by configured name.
    pub partner: Option<String>,
    /// With which transfer.
    pub transfer: Option<TransferId>,
    /// Since when.
    pub since: Timestamp,
    /// In words.
    pub sentence: String,
    /// What a person can do.
    pub act: String,
}

/// Something wrong, as people are told of it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Alarm {
    /// Its name, the same from its beginning to its end.
    pub id: Ulid,
    /// What is wrong.
    pub kind: Kind,
    /// With which partner, by configured name.
    pub partner: Option<String>,
    /// With which transfer.
    pub transfer: Option<TransferId>,
    /// Since when it is.
    pub since: Timestamp,
    /// When the alarm began: later, as most things may take a while.
    pub begun_at: Timestamp,
    /// Since when all is well; the alarm ends when it stays so.
    pub clear_since: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// In words.
    pub sentence: String,
    /// What a person can do.
    pub act: String,
}

impl Alarm {
    fn is_of(&self, raised: &Raised) -> bool {
        (self.kind, &self.partner, self.transfer) == (raised.kind, &raised.partner, raised.transfer)
    }
}

/// What a channel has said of an alarm.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
struct Told {
    /// When it said so last.
    at: Timestamp,
    /// Whether it has said that it ended.
    ended: bool,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Entry {
    alarm: Alarm,
    /// By channel.
    told: BTreeMap<String, Told>,
}

/// All alarms.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct Book {
    entries: Vec<Entry>,
}

/// What a look has changed.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) begun: Vec<Alarm>,
    pub(super) ended: Vec<Alarm>,
    /// Whether anything did that people see or the file holds.
    pub(super) any: bool,
}

impl Book {
    /// What is written there. What cannot be read is begun anew: that costs a message and nothing else.
    pub(super) fn load(path: &Path) -> Self {
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self::default(),
            Err(error) => {
                tracing::warn!(%error, "the alarms that lasted cannot be read");
                return Self::default();
            }
        };
        serde_json::from_slice(&text).unwrap_or_else(|error| {
            tracing::warn!(%error, "the alarms that lasted make no sense");
            Self::default()
        })
    }

    /// As it is written.
    pub(super) fn text(&self) -> io::Result<Vec<u8>> {
        Ok(serde_json::to_vec(self)?)
    }

    /// Those that last, the gravest first, then the longest.
    pub(super) fn lasting(&self) -> Vec<Alarm> {
        let mut lasting: Vec<_> = self.open().map(|entry| entry.alarm.clone()).collect();
        lasting.sort_by_key(|alarm| (alarm.kind, alarm.since));
        lasting
    }

    /// Those that have ended lately, the latest first.
    pub(super) fn ended(&self) -> Vec<Alarm> {
        let ended = self.entries.iter().filter(|entry| entry.alarm.ended_at.is_some());
        let mut ended: Vec<_> = ended.map(|entry| entry.alarm.clone()).collect();
        ended.sort_by_key(|alarm| std::cmp::Reverse(alarm.ended_at));
        ended
    }

    fn open(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.alarm.ended_at.is_none())
    }

    /// Takes over what is seen to be wrong. Of kinds that could not be judged everything stays as it was.
    pub(super) fn update(
        &mut self,
        raised: Vec<Raised>,
        judged: &[Kind],
        clear_for: Duration,
        channels: &[&str],
        now: Timestamp,
    ) -> Changes {
        let mut changes = Changes::default();
        for entry in self.entries.iter_mut().filter(|entry| entry.alarm.ended_at.is_none()) {
            let alarm = &mut entry.alarm;
            if let Some(seen) = raised.iter().find(|raised| alarm.is_of(raised)) {
                changes.any |= alarm.clear_since.take().is_some();
                // Figures in it move on; that alone is not worth a write.
                alarm.sentence.clone_from(&seen.sentence);
                alarm.act.clone_from(&seen.act);
            } else if judged.contains(&alarm.kind) {
                // A clock that was set back must not keep it open.
                let since = alarm.clear_since.filter(|since| *since <= now);
                changes.any |= since.is_none();
                let since = *alarm.clear_since.insert(since.unwrap_or(now));
                if now.duration_since(since).unsigned_abs() >= clear_for {
                    alarm.ended_at = Some(now);
                    changes.any = true;
                    changes.ended.push(alarm.clone());
                }
            }
        }
        let mut room = MOST.saturating_sub(self.open().count());
        for seen in raised {
            if room == 0 || self.open().any(|entry| entry.alarm.is_of(&seen)) {
                continue;
            }
            room -= 1;
            let Raised { kind, partner, transfer, since, sentence, act } = seen;
            let alarm = Alarm {
                id: Ulid::new(),
                kind,
                partner,
                transfer,
                since,
                begun_at: now,
                clear_since: None,
                ended_at: None,
                sentence,
                act,
            };
            changes.any = true;
            changes.begun.push(alarm.clone());
            self.entries.push(Entry { alarm, told: BTreeMap::new() });
        }
        self.forget(channels, now);
        changes
    }

    /// Removes what has ended and is of no use any more.
    fn forget(&mut self, channels: &[&str], now: Timestamp) {
        let of_late = |ended: Timestamp| now.duration_since(ended).unsigned_abs() < KEEP;
        self.entries.retain(|entry| entry.alarm.ended_at.is_none_or(of_late));
        // A channel that is not configured any more is not told either.
        for entry in &mut self.entries {
            entry.told.retain(|channel, _| channels.contains(&channel.as_str()));
        }
        let ended = self.entries.iter().filter(|entry| entry.alarm.ended_at.is_some()).count();
        let mut surplus = ended.saturating_sub(MOST_ENDED);
        self.entries.retain(|entry| {
            let goes = surplus > 0 && entry.alarm.ended_at.is_some();
            surplus -= usize::from(goes);
            !goes
        });
    }

    /// What a channel has to say now, the gravest first.
    pub(super) fn due(
        &self,
        channel: &str,
        repeat: Duration,
        now: Timestamp,
    ) -> Vec<(Event, Alarm)> {
        let due = self.entries.iter().filter_map(|entry| {
            let told = entry.told.get(channel);
            let event = match (told, entry.alarm.ended_at) {
                (None, None) => Event::Begun,
                (Some(Told { ended: true, .. }), _) => return None,
                (_, Some(_)) => Event::Ended,
                // What may be over is not worth a reminder.
                (Some(told), None) => {
                    let again = now.duration_since(told.at).unsigned_abs() >= repeat;
                    (again && entry.alarm.clear_since.is_none()).then_some(Event::Lasts)?
                }
            };
            Some((event, entry.alarm.clone()))
        });
        let mut due: Vec<_> = due.collect();
        due.sort_by_key(|(_, alarm)| (alarm.kind, alarm.since));
        due.truncate(MOST_TOLD);
        due
    }

    /// Notes that a channel has said so.
    pub(super) fn told(&mut self, channel: &str, said: &[(Event, Alarm)], now: Timestamp) {
        for (event, alarm) in said {
            if let Some(entry) = self.entries.iter_mut().find(|entry| entry.alarm.id == alarm.id) {
                let told = Told { at: now, ended: *event == Event::Ended };
                entry.told.insert(channel.to_owned(), told);
            }
        }
    }
}

/// Writes it, durably. Blocks.
pub(super) fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    std::fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANNELS: &[&str] = &["webhook", "mail"];
    const SILENT: &[Kind] = &[Kind::PartnerSilent];
    const HOUR: Duration = Duration::from_hours(1);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn silent(partner: &str) -> Raised {
        Raised {
            kind: Kind::PartnerSilent,
            partner: Some(partner.to_owned()),
            transfer: None,
            since: at(0),
            sentence: "Nothing leaves.".to_owned(),
            act: "Phone.".to_owned(),
        }
    }

    fn look(book: &mut Book, raised: &[&str], second: i64) -> Changes {
        let raised = raised.iter().map(|partner| silent(partner)).collect();
        book.update(raised, SILENT, Duration::from_mins(1), CHANNELS, at(second))
    }

    fn say(book: &mut Book, channel: &str, second: i64) -> Vec<Event> {
        let due = book.due(channel, HOUR, at(second));
        book.told(channel, &due, at(second));
        due.into_iter().map(|(event, _)| event).collect()
    }

    #[test]
    fn an_alarm_is_one_from_its_beginning_until_all_was_well_for_a_while() {
        let mut book = Book::default();
        let begun = look(&mut book, &["york"], 10).begun;

        assert!(look(&mut book, &["york"], 20).begun.is_empty());
        assert!(look(&mut book, &[], 30).ended.is_empty(), "well, but not for long");
        assert!(look(&mut book, &["york"], 80).begun.is_empty(), "that was flapping");
        assert!(look(&mut book, &[], 90).ended.is_empty());
        assert!(look(&mut book, &[], 149).ended.is_empty());
        let ended = look(&mut book, &[], 150).ended;

        assert_eq!((begun.len(), ended.len(), ended[0].id), (1, 1, begun[0].id));
        assert_eq!((ended[0].since, ended[0].ended_at), (at(0), Some(at(150))));
        assert!(book.lasting().is_empty() && book.ended().len() == 1);
        assert_ne!(look(&mut book, &["york"], 160).begun[0].id, begun[0].id, "another one");
    }

    #[test]
    fn what_cannot_be_judged_stays_as_it_was() {
        let mut book = Book::default();
        look(&mut book, &["york"], 10);

        let changes = book.update(Vec::new(), &[], Duration::ZERO, CHANNELS, at(999));

        assert!(!changes.any && book.lasting()[0].clear_since.is_none());
    }

    #[test]
    fn each_channel_says_begin_reminders_and_end_once() {
        let mut book = Book::default();
        look(&mut book, &["york"], 0);

        assert_eq!(say(&mut book, "webhook", 0), [Event::Begun]);
        assert!(say(&mut book, "webhook", 3599).is_empty());
        assert_eq!(say(&mut book, "webhook", 3600), [Event::Lasts]);
        assert!(say(&mut book, "webhook", 3601).is_empty());
        look(&mut book, &[], 3700);
        look(&mut book, &[], 3800);
        assert_eq!(say(&mut book, "webhook", 3800), [Event::Ended]);
        assert!(say(&mut book, "webhook", 99_999).is_empty());
        assert_eq!(say(&mut book, "mail", 3900), [Event::Ended], "it was down all the time");
    }

    #[test]
    fn a_restart_tells_nobody_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("alarms.json");
        let mut book = Book::default();
        look(&mut book, &["york"], 0);
        say(&mut book, "webhook", 0);

        write(&path, &book.text().unwrap()).unwrap();
        let mut again = Book::load(&path);

        assert_eq!(again.lasting(), book.lasting());
        assert!(say(&mut again, "webhook", 60).is_empty());
        assert!(look(&mut again, &["york"], 60).begun.is_empty());
        assert_eq!(say(&mut again, "mail", 60), [Event::Begun]);
        std::fs::write(&path, "{").unwrap();
        assert!(Book::load(&path).lasting().is_empty(), "what cannot be read is begun anew");
    }

    #[test]
    fn the_book_does_not_grow_without_end() {
        let mut book = Book::default();
        let many: Vec<_> = (0..MOST + 9).map(|number| number.to_string()).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();

        look(&mut book, &many, 0);
        assert_eq!(book.lasting().len(), MOST);
        assert_eq!(book.due("mail", HOUR, at(0)).len(), MOST_TOLD, "the rest comes next");
        look(&mut book, &[], 1);
        look(&mut book, &[], 100);
        look(&mut book, &[], 101);

        assert!(book.lasting().is_empty() && book.ended().len() == MOST_ENDED);
        look(&mut book, &[], 100 + 25 * 3600);
        assert!(book.ended().is_empty());
    }
}
