//! Sessions: who may look, and for how long.
//!
//! A person comes in by a link that works once, within ten minutes, and only when a button is pressed: a mail filter that
//! opens the link does not use it up. Links and sessions are 256 random bits, and this process keeps only their SHA-256,
//! in memory: a restart signs everyone out, and what a dump of memory or a timing of look-ups gives away opens nothing.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::time::Instant;

/// How long a link may be used.
pub const LINK: Duration = Duration::from_mins(10);
/// How long a session lives without a request. A page that is left open asks for news, and so stays: boards hang on
/// walls, and [`LONGEST`] ends them too.
pub const IDLE: Duration = Duration::from_mins(30);
/// How long a session lives at most.
pub const LONGEST: Duration = Duration::from_hours(12);

/// Links that wait at most; a further one pushes out the oldest.
const MOST_LINKS: usize = 64;
/// Sessions at most, likewise.
const MOST_SESSIONS: usize = 1024;
/// Wrong links within [`WINDOW`] that are answered as such. Nobody guesses 256 bits; this keeps a scanner from filling
/// the log.
const MOST_GUESSES: usize = 20;
const WINDOW: Duration = Duration::from_mins(1);

type Hash = [u8; 32];

/// Who is signed in, and who may. Gone when the process ends.
#[derive(Default)]
pub struct Sessions(Mutex<Tables>);

#[derive(Default)]
struct Tables {
    links: HashMap<Hash, Instant>,
    sessions: HashMap<Hash, Session>,
    guesses: VecDeque<Instant>,
}

struct Session {
    began: Instant,
    seen: Instant,
    person: String,
}

/// Why nobody was signed in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refused {
    /// No such link, or it was used, or it is too old.
    Unknown,
    /// Too many wrong ones in a short time.
    TooOften,
}

/// Someone who is signed in, or the administrator on the socket.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Person(pub String);

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tables = self.tables();
        f.debug_struct("Sessions")
            .field("links", &tables.links.len())
            .field("sessions", &tables.sessions.len())
            .finish()
    }
}

impl Sessions {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        // Every change is one call on a map, so a panic elsewhere leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a link's token. It is not kept: only its hash is.
    pub fn issue_link(&self) -> String {
        let token = token();
        let now = Instant::now();
        let mut tables = self.tables();
        tables.links.retain(|_, issued| now - *issued < LINK);
        make_room(&mut tables.links, MOST_LINKS, |issued| *issued);
        tables.links.insert(hash(&token), now);
        token
    }

    /// Whether the link could be used now. Asking does not use it.
    pub fn knows_link(&self, token: &str) -> bool {
        let now = Instant::now();
        self.tables().links.get(&hash(token)).is_some_and(|issued| now - *issued < LINK)
    }

    /// Uses a link: it is gone, and whoever had it is signed in under the name that the timeline will show. The answer
    /// is the session's token.
    pub fn sign_in(&self, link: &str, person: &str) -> Result<String, Refused> {
        let now = Instant::now();
        let mut tables = self.tables();
        let issued = tables.links.remove(&hash(link));
        if issued.is_none_or(|issued| now - issued >= LINK) {
            while tables.guesses.front().is_some_and(|guess| now - *guess >= WINDOW) {
                tables.guesses.pop_front();
            }
            if tables.guesses.len() >= MOST_GUESSES {
                return Err(Refused::TooOften);
            }
            tables.guesses.push_back(now);
            return Err(Refused::Unknown);
        }
        tables.sessions.retain(|_, session| session.lives(now));
        make_room(&mut tables.sessions, MOST_SESSIONS, |session| session.seen);
        let token = token();
        let session = Session { began: now, seen: now, person: person.to_owned() };
        tables.sessions.insert(hash(&token), session);
        Ok(token)
    }

    /// Who that is, and that it was seen now.
    pub fn person(&self, token: &str) -> Option<Person> {
        let now = Instant::now();
        let key = hash(token);
        let mut tables = self.tables();
        let session = tables.sessions.get_mut(&key)?;
        if !session.lives(now) {
            tables.sessions.remove(&key);
            return None;
        }
        session.seen = now;
        Some(Person(session.person.clone()))
    }

    /// Ends a session.
    pub fn sign_out(&self, token: &str) {
        self.tables().sessions.remove(&hash(token));
    }
}

impl Session {
    fn lives(&self, now: Instant) -> bool {
        now - self.seen < IDLE && now - self.began < LONGEST
    }
}

/// Drops the oldest until one more fits.
fn make_room<T>(map: &mut HashMap<Hash, T>, most: usize, age: impl Fn(&T) -> Instant) {
    while map.len() >= most {
        let oldest = map.iter().min_by_key(|(_, entry)| age(entry)).map(|(key, _)| *key);
        let Some(oldest) = oldest else { return };
        map.remove(&oldest);
    }
}

/// Equal hashes mean equal tokens, and how long it takes to find one says nothing about the token.
fn hash(token: &str) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    hash
}

#[expect(clippy::expect_used, reason = "a system without random numbers must not sign anyone in")]
fn token() -> String {
    let mut bytes = [0_u8; 32];
    SystemRandom::new().fill(&mut bytes).expect("the system gives random numbers");
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_link_works_once() {
        let sessions = Sessions::default();
        let link = sessions.issue_link();

        assert!(sessions.knows_link(&link) && sessions.knows_link(&link), "looking uses it up");
        let session = sessions.sign_in(&link, "A Registrar").unwrap();

        assert_eq!(sessions.person(&session), Some(Person("A Registrar".to_owned())));
        assert_eq!(sessions.sign_in(&link, "Someone"), Err(Refused::Unknown));
        assert_eq!(sessions.person(&link), None, "a link is no session");
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_is_too_old_after_ten_minutes() {
        let sessions = Sessions::default();
        let link = sessions.issue_link();

        advance(LINK).await;

        assert_eq!(sessions.sign_in(&link, ""), Err(Refused::Unknown));
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_ends_when_it_is_left_alone_and_after_half_a_day() {
        let sessions = Sessions::default();
        let left_alone = sessions.sign_in(&sessions.issue_link(), "").unwrap();
        let in_use = sessions.sign_in(&sessions.issue_link(), "").unwrap();

        for look in 1..=25 {
            advance(Duration::from_mins(29)).await;
            assert_eq!(
                sessions.person(&in_use).is_some(),
                look * 29 < 12 * 60,
                "after {look} times 29 minutes"
            );
        }

        assert_eq!(sessions.person(&left_alone), None);
        let signed_out = sessions.sign_in(&sessions.issue_link(), "").unwrap();
        advance(Duration::from_mins(29)).await;
        assert!(sessions.person(&signed_out).is_some());
        sessions.sign_out(&signed_out);
        assert_eq!(sessions.person(&signed_out), None);
    }

    #[tokio::test(start_paused = true)]
    async fn guesses_are_slowed_and_do_not_lock_out_who_has_a_link() {
        let sessions = Sessions::default();
        for _ in 0..MOST_GUESSES {
            assert_eq!(sessions.sign_in("guess", ""), Err(Refused::Unknown));
        }

        assert_eq!(sessions.sign_in("guess", ""), Err(Refused::TooOften));
        assert!(sessions.sign_in(&sessions.issue_link(), "").is_ok());
        advance(WINDOW).await;
        assert_eq!(sessions.sign_in("guess", ""), Err(Refused::Unknown));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_is_bounded() {
        let sessions = Sessions::default();
        let first = sessions.issue_link();
        for _ in 0..MOST_LINKS {
            advance(Duration::from_millis(1)).await;
            sessions.issue_link();
        }

        assert!(!sessions.knows_link(&first));
        assert!(!format!("{sessions:?}").contains(&first));
    }
}
