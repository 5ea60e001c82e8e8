//! What a text of the configuration may be, and what a person is told when it is not.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use axum::http::Uri;
use gantry_store::dicom::AeTitle;
use gantry_store::spool::HighWater;
use ipnet::IpNet;

use super::values::{self, HostPort};

/// Why a text cannot stand where it stands.
#[derive(Debug)]
pub(super) struct Bad {
    /// One line: what is wrong.
    pub(super) message: String,
    /// A few words beside the text.
    pub(super) label: String,
    /// What to write instead.
    pub(super) help: String,
}

impl Bad {
    pub(super) fn new(
        message: impl Into<String>,
        label: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self { message: message.into(), label: label.into(), help: help.into() }
    }

    /// What the design has and this version has not. `instead` says what can be done today.
    pub(super) fn not_yet(what: &str, instead: &str) -> Self {
        Self::new(
            format!("this version does not have {what} yet"),
            "understood, but not available",
            instead,
        )
    }
}

pub(super) fn ae_title(text: &str) -> Result<AeTitle, Bad> {
    text.parse().map_err(|error: gantry_store::dicom::InvalidAeTitle| {
        let length = text.trim_matches(' ').chars().count();
        let label =
            if length > 16 { format!("{length} characters") } else { error.reason().to_owned() };
        let message = format!("AE title {} is not valid", quoted(text));
        Bad::new(
            message,
            label,
            "An AE title has 1 to 16 characters, printable ASCII, no backslash.",
        )
    })
}

pub(super) fn host_port(text: &str) -> Result<HostPort, Bad> {
    text.parse().map_err(|error: values::InvalidHostPort| {
        let message = format!("address {} is not valid", quoted(text));
        Bad::new(
            message,
            error.to_string(),
            "Write host and port, such as \"pacs.york.example:2762\".",
        )
    })
}

pub(super) fn listen_address(text: &str) -> Result<SocketAddr, Bad> {
    text.parse().map_err(|_| {
        let label = match text.parse::<HostPort>() {
            Ok(_) => "a name, where an address of this machine is needed",
            Err(_) => "not an address and a port",
        };
        let message = format!("cannot listen on {}", quoted(text));
        let help = "Write an address of this machine and a port, such as \"127.0.0.1:11112\"; \"0.0.0.0:2762\" and \
                    \"[::]:2762\" are all of its addresses.";
        Bad::new(message, label, help)
    })
}

pub(super) fn network(text: &str) -> Result<IpNet, Bad> {
    let network = text.parse::<IpNet>().map(|network| network.trunc());
    network.or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map_err(|_| {
        let message = format!("{} is not a network", quoted(text));
        Bad::new(
            message,
            "neither a network nor an address",
            "Write a network such as \"10.20.0.0/16\", or one address.",
        )
    })
}

pub(super) fn duration(text: &str, range: &RangeInclusive<Duration>) -> Result<Duration, Bad> {
    let message = format!("{} is not a time that can stand here", quoted(text));
    let (shortest, longest) =
        (values::duration_text(*range.start()), values::duration_text(*range.end()));
    let help = format!("Write a time from \"{shortest}\" to \"{longest}\".");
    match values::duration(text) {
        None => {
            let label = if text.parse::<f64>().is_ok() {
                "the unit is missing"
            } else {
                "not a whole number and a unit"
            };
            Err(Bad::new(message, label, format!("{help} Units are ms, s, m, h and d.")))
        }
        Some(time) if time < *range.start() => Err(Bad::new(message, "too short", help)),
        Some(time) if time > *range.end() => Err(Bad::new(message, "too long", help)),
        Some(time) => Ok(time),
    }
}

pub(super) fn size(text: &str, range: &RangeInclusive<u64>) -> Result<u64, Bad> {
    let message = format!("{} is not a size that can stand here", quoted(text));
    let (smallest, largest) = (values::size_text(*range.start()), values::size_text(*range.end()));
    let help = format!("Write a size from \"{smallest}\" to \"{largest}\".");
    match values::size(text) {
        None => {
            let label = if text.parse::<f64>().is_ok() {
                "the unit is missing"
            } else {
                "not a whole number and a unit"
            };
            Err(Bad::new(message, label, format!("{help} Units are B, KiB, MiB, GiB and TiB.")))
        }
        Some(size) if size < *range.start() => Err(Bad::new(message, "too small", help)),
        Some(size) if size > *range.end() => Err(Bad::new(message, "too large", help)),
        Some(size) => Ok(size),
    }
}

/// A share of the disk, or a size.
pub(super) fn high_water(text: &str) -> Result<HighWater, Bad> {
    if let Some(percent) = text.strip_suffix('%') {
        if let Ok(percent @ 10..=100) = percent.trim_end().parse() {
            return Ok(HighWater::Percent(percent));
        }
        let message = format!("{} is not a share that can stand here", quoted(text));
        let help =
            "Write a share of the disk from \"10%\" to \"100%\", or a size such as \"200GiB\".";
        return Err(Bad::new(message, "not a whole number from 10 to 100", help));
    }
    size(text, &(64 << 20..=1 << 50)).map(HighWater::Bytes).map_err(|bad| Bad {
        help: format!("{} Or a share of the disk, such as \"90%\".", bad.help),
        ..bad
    })
}

/// A bucket's name, as AWS has it; other servers are more liberal, and nobody needs them to be.
pub(super) fn bucket(text: &str) -> Result<String, Bad> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    if (3..=63).contains(&text.len())
        && text.chars().all(fits)
        && ends(text.chars().next())
        && ends(text.chars().next_back())
    {
        return Ok(text.to_owned());
    }
    Err(Bad::new(
        format!("{} is not the name of a bucket", quoted(text)),
        "not a name that S3 allows",
        "A bucket's name has 3 to 63 small letters, digits, hyphens and full stops.",
    ))
}

/// What all keys in a bucket begin with.
pub(super) fn prefix(text: &str) -> Result<String, Bad> {
    let fits = |part: &str| {
        !matches!(part, "" | "." | "..")
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    if text.is_empty() || text.len() <= 256 && text.split('/').all(fits) {
        return Ok(text.to_owned());
    }
    Err(Bad::new(
        format!("{} is not a prefix that can stand here", quoted(text)),
        "not folders' names",
        "Write names of letters, digits, hyphens, underscores and full stops with single slashes between them, such as \
         \"gantry/rxx\".",
    ))
}

/// Where an object store answers: scheme and host, and whether it is on this machine.
pub(super) fn endpoint(text: &str) -> Result<Endpoint, Bad> {
    let bad = |label: &str| {
        let help = "Write scheme, host and port, such as \"https://s3.trust.example:443\"; leave it out for AWS.";
        Err(Bad::new(format!("endpoint {} is not valid", quoted(text)), label, help))
    };
    let Ok(uri) = text.parse::<Uri>() else { return bad("not an address of a server") };
    let Some(authority) = uri.authority() else { return bad("not a scheme and a host") };
    if authority.as_str().contains('@') {
        // Not quoted, as it may hold a secret.
        let help = "Write credentials-file, and scheme, host and port here.";
        return Err(Bad::new("credentials do not stand in an endpoint", "hold a secret", help));
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return bad("has a path; the bucket's name stands in bucket");
    }
    let host = authority.host().trim_matches(['[', ']']);
    let loopback =
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    let encrypted = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return bad("neither https nor http"),
    };
    Ok(Endpoint { url: text.trim_end_matches('/').to_owned(), encrypted, loopback })
}

/// What an endpoint's address says.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) url: String,
    pub(super) encrypted: bool,
    pub(super) loopback: bool,
}

/// The name of a region, as it goes into signatures.
pub(super) fn region(text: &str) -> Result<String, Bad> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    if (1..=64).contains(&text.len()) && text.chars().all(fits) {
        return Ok(text.to_owned());
    }
    let message = format!("{} is not the name of a region", quoted(text));
    Err(Bad::new(message, "not a name", "Write it as the store has it, such as \"eu-west-2\"."))
}

pub(super) fn whole(number: i64, range: &RangeInclusive<u16>) -> Result<usize, Bad> {
    match u16::try_from(number) {
        Ok(number) if range.contains(&number) => Ok(number.into()),
        _ => {
            let message = format!("{number} is not a number that can stand here");
            let help = format!("Write a number from {} to {}.", range.start(), range.end());
            Err(Bad::new(message, "out of range", help))
        }
    }
}

/// One of some words; `None` beside a word says that this version does not have it.
pub(super) fn one_of<T: Copy>(
    what: &str,
    text: &str,
    words: &[(&str, Option<T>)],
) -> Result<T, Bad> {
    let can: Vec<_> = words
        .iter()
        .filter(|(_, value)| value.is_some())
        .map(|(word, _)| format!("\"{word}\""))
        .collect();
    let can = match can.split_last() {
        Some((last, others)) if !others.is_empty() => {
            format!("It can be {} or {last}.", others.join(", "))
        }
        _ => format!("It can only be {}.", can.concat()),
    };
    match words.iter().find(|(word, _)| *word == text) {
        Some((_, Some(value))) => Ok(*value),
        Some((word, None)) => Err(Bad::not_yet(&format!("\"{word}\" as {what}"), &can)),
        None => {
            let known = words.iter().map(|(word, _)| *word);
            let message = format!("{what} cannot be {}", quoted(text));
            Err(Bad::new(message, "unknown", format!("{}{can}", did_you_mean(text, known))))
        }
    }
}

/// A name of a source or partner: it is typed on command lines and stands in addresses of pages.
pub(super) fn name(text: &str) -> Result<String, Bad> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if (1..=64).contains(&text.len())
        && text.chars().all(fits)
        && text.starts_with(|c: char| c != '-')
    {
        return Ok(text.to_owned());
    }
    let help = "A name has 1 to 64 letters, digits, hyphens, underscores and full stops, and does not begin with a \
                hyphen; what people read goes into display-name.";
    Err(Bad::new(
        format!("the name {} is not valid", quoted(text)),
        "cannot be typed safely on a command line",
        help,
    ))
}

/// Something that people read: one line.
pub(super) fn line(text: &str) -> Result<String, Bad> {
    let trimmed = text.trim();
    if !trimmed.is_empty() && trimmed.chars().count() <= 128 && !trimmed.contains(char::is_control)
    {
        return Ok(trimmed.to_owned());
    }
    Err(Bad::new(
        format!("{} cannot be shown", quoted(text)),
        "not one line",
        "Write 1 to 128 characters on one line.",
    ))
}

/// What a browser calls this node: scheme and host, no path.
pub(super) fn web_url(text: &str) -> Result<String, Bad> {
    let fits = text.parse::<Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
            && matches!(uri.path(), "" | "/")
            && uri.query().is_none()
    });
    if fits {
        return Ok(text.trim_end_matches('/').to_owned());
    }
    let message = format!("{} is not the address of a web site", quoted(text));
    Err(Bad::new(
        message,
        "not a scheme and a host",
        "Write it as \"https://images.trust.example\", without a path.",
    ))
}

/// `Did you mean "address"? `, or nothing when no candidate is near.
pub(super) fn did_you_mean<'a>(
    text: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> String {
    nearest(text, candidates).map(|near| format!("Did you mean \"{near}\"? ")).unwrap_or_default()
}

/// The candidate with the smallest edit distance, if that is at most half of its length.
pub(super) fn nearest<'a>(
    text: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let text = text.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| {
            (strsim::normalized_damerau_levenshtein(&text, &candidate.to_lowercase()), candidate)
        })
        .filter(|(likeness, _)| *likeness >= 0.5)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, candidate)| candidate)
}

/// A text in quotes, cut to what a line can hold.
pub(super) fn quoted(text: &str) -> String {
    let shown: String = text.chars().take(64).collect();
    if shown.len() < text.len() { format!("{:?}", shown + "…") } else { format!("{shown:?}") }
}
