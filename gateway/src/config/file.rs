//! What `gantry.toml` and `conf.d/*.toml` may say, and reading it.
//!
//! Every field is optional and most are texts: what must be there, and what a text may be, is for `check` to say, with
//! the place and the remedy. Only two things are decided here: a key that does not exist, and a value of the wrong
//! kind. `serde` stops at the first of these, and a person wants all; so the offending entry is taken out, noted, and
//! the rest is read again, which is always possible because nothing is required.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

/// A text with its place, if it is written.
pub(super) type Text = Option<Spanned<String>>;

/// A whole number with its place, if it is written.
pub(super) type Number = Option<Spanned<i64>>;

/// One text or a list of them, if it is written.
pub(super) type Texts = Option<Spanned<OneOrMore>>;

/// One file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct File {
    pub(super) node: Option<Spanned<NodeSection>>,
    #[serde(default)]
    pub(super) listener: Vec<Spanned<ListenerSection>>,
    pub(super) tls: Option<Spanned<TlsSection>>,
    pub(super) web: Option<Spanned<WebSection>>,
    pub(super) dicomweb: Option<Spanned<DicomwebSection>>,
    pub(super) intake: Option<Spanned<IntakeSection>>,
    pub(super) association: Option<Spanned<AssociationSection>>,
    pub(super) object_store: Option<Spanned<ObjectStoreSection>>,
    pub(super) database: Option<Spanned<DatabaseSection>>,
    pub(super) delivery: Option<Spanned<DeliverySection>>,
    pub(super) log: Option<Spanned<LogSection>>,
    #[serde(default)]
    pub(super) source: Vec<Spanned<SourceSection>>,
    #[serde(default)]
    pub(super) partner: Vec<Spanned<PartnerSection>>,
    #[serde(default)]
    pub(super) route: Vec<Spanned<RouteSection>>,
    #[serde(default)]
    pub(super) retention: Vec<Spanned<RetentionSection>>,
    #[serde(default)]
    pub(super) project: Vec<Spanned<ProjectSection>>,
    pub(super) scrub: Option<Spanned<ScrubSection>>,
    pub(super) completeness: Option<Spanned<CompletenessSection>>,
    pub(super) alarm: Option<Spanned<AlarmSection>>,
}

/// `[node]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct NodeSection {
    pub(super) ae_title: Text,
    pub(super) organisation: Text,
    pub(super) data_dir: Text,
}

/// `[[listener]]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct ListenerSection {
    pub(super) address: Text,
    pub(super) tls: Text,
    pub(super) allow: Texts,
    pub(super) max_associations: Number,
}

/// `[tls]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct TlsSection {
    pub(super) certificate: Text,
    pub(super) key: Text,
    pub(super) authorities: Texts,
}

/// `[web]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct WebSection {
    pub(super) address: Text,
    pub(super) tls: Text,
    pub(super) url: Text,
    pub(super) certificate: Text,
    pub(super) key: Text,
}

/// `[dicomweb]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct DicomwebSection {
    pub(super) address: Text,
    pub(super) tls: Text,
    pub(super) url: Text,
    pub(super) allow_origins: Texts,
}

/// `[intake]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct IntakeSection {
    pub(super) acknowledge: Text,
    pub(super) reserve: Text,
    pub(super) spool_high_water: Text,
    pub(super) emergency_reserve: Text,
    pub(super) max_instance_size: Text,
}

/// `[association]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct AssociationSection {
    pub(super) max_pdu: Text,
    pub(super) idle_timeout: Text,
    pub(super) handshake_timeout: Text,
    pub(super) release_timeout: Text,
}

/// `[object-store]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct ObjectStoreSection {
    pub(super) kind: Text,
    pub(super) high_water: Text,
    pub(super) bucket: Text,
    pub(super) prefix: Text,
    pub(super) endpoint: Text,
    pub(super) region: Text,
    pub(super) path_style: Option<Spanned<bool>>,
    pub(super) tls: Text,
    pub(super) authority: Text,
    pub(super) credentials_file: Text,
    pub(super) instance_role: Option<Spanned<bool>>,
    pub(super) sse: Text,
    pub(super) sse_kms_key: Text,
    pub(super) checksum: Text,
    pub(super) connect_timeout: Text,
    pub(super) response_timeout: Text,
    pub(super) parallel: Number,
}

/// `[database]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct DatabaseSection {
    pub(super) url: Text,
    pub(super) tls: Text,
    pub(super) authority: Text,
    pub(super) certificate: Text,
    pub(super) key: Text,
    pub(super) password_file: Text,
    pub(super) connections: Number,
}

/// `[delivery]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct DeliverySection {
    pub(super) retry_floor: Text,
    pub(super) retry_ceiling: Text,
    pub(super) emergency_retry_ceiling: Text,
    pub(super) give_up_after: Text,
    pub(super) association_idle: Text,
    pub(super) connect_timeout: Text,
    pub(super) response_timeout: Text,
    pub(super) report_for: Text,
}

/// `[log]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct LogSection {
    pub(super) format: Text,
    pub(super) level: Text,
}

/// `[[source]]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct SourceSection {
    pub(super) name: Text,
    pub(super) ae_title: Text,
    pub(super) called: Texts,
    pub(super) address: Text,
    pub(super) certificate: Text,
    pub(super) token_file: Text,
    pub(super) count: Text,
    pub(super) fetch: Option<Spanned<bool>>,
    pub(super) may: Texts,
    pub(super) move_to: Texts,
}

/// `[[partner]]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct PartnerSection {
    pub(super) name: Text,
    pub(super) display_name: Text,
    pub(super) ae_title: Text,
    pub(super) address: Text,
    pub(super) tls: Text,
    pub(super) certificate: Text,
    pub(super) token_file: Text,
    pub(super) associations: Option<Spanned<toml::Value>>,
    pub(super) rate: Text,
    pub(super) off_peak: Text,
    pub(super) routine: Text,
    pub(super) compress: Text,
    pub(super) may: Texts,
    pub(super) move_to: Texts,
    pub(super) proof: Text,
    pub(super) recall: Text,
    pub(super) phone: Text,
    pub(super) seal_to: Texts,
}

/// `[[route]]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RouteSection {
    pub(super) name: Text,
    pub(super) when: Option<Spanned<BTreeMap<Spanned<String>, Spanned<OneOrMore>>>>,
    pub(super) to: Texts,
    pub(super) purpose: Text,
    pub(super) priority: Text,
    pub(super) protect: Option<Spanned<toml::Value>>,
    pub(super) protect_at: Text,
}

/// `[[project]]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct ProjectSection {
    pub(super) name: Text,
    pub(super) profile: Text,
    pub(super) key: Text,
    pub(super) masks: Texts,
}

/// `[[retention]]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RetentionSection {
    pub(super) name: Text,
    pub(super) purpose: Texts,
    pub(super) partner: Texts,
    pub(super) unrouted: Option<Spanned<bool>>,
    pub(super) keep: Text,
    pub(super) at_least: Text,
    pub(super) after: Text,
}

/// `[scrub]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct ScrubSection {
    pub(super) every: Text,
    pub(super) rate: Text,
}

/// `[completeness]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct CompletenessSection {
    pub(super) quiet: Text,
}

/// `[alarm]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct AlarmSection {
    pub(super) partner_silent: Text,
    pub(super) emergency_stalled: Text,
    pub(super) clear_for: Text,
    pub(super) repeat: Text,
    pub(super) webhook: Texts,
    pub(super) webhook_tls: Text,
    pub(super) webhook_authority: Text,
    pub(super) webhook_secret_file: Text,
    pub(super) mail: Option<Spanned<MailSection>>,
}

/// `mail` of `[alarm]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct MailSection {
    pub(super) server: Text,
    pub(super) port: Number,
    pub(super) tls: Text,
    pub(super) authority: Text,
    pub(super) from: Text,
    pub(super) to: Texts,
    pub(super) user: Text,
    pub(super) password_file: Text,
}

/// `"CT"` or `["CT", "MR"]`.
#[derive(Debug)]
pub(super) enum OneOrMore {
    One(String),
    More(Vec<Spanned<String>>),
}

impl<'de> Deserialize<'de> for OneOrMore {
    // By hand, as an untagged enum loses the places of what it holds.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = OneOrMore;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E>(self, text: &str) -> Result<OneOrMore, E> {
                Ok(OneOrMore::One(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<OneOrMore, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = list.next_element()? {
                    texts.push(text);
                }
                Ok(OneOrMore::More(texts))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// An entry that is not in [`File`] although it is written.
#[derive(Debug)]
pub(super) struct Rejected {
    /// Its key.
    pub(super) key: String,
    /// The place of the key, or of the value, whichever is wrong.
    pub(super) span: Range<usize>,
    /// The section it stands in.
    pub(super) section: Range<usize>,
    /// What is wrong with it.
    pub(super) why: Why,
}

/// What is wrong with an entry.
#[derive(Debug)]
pub(super) enum Why {
    /// There is no such key; these there are.
    UnknownKey { known: Vec<String> },
    /// The value is of the wrong kind: what it is, and what it should be, in TOML's words.
    WrongKind { is: String, expected: String },
    /// Anything else, in the reader's words.
    Other(String),
}

/// A place where the file is not TOML, and how.
#[derive(Debug)]
pub(super) struct NotToml {
    pub(super) span: Range<usize>,
    pub(super) message: String,
}

/// How the parser calls a key that is there already.
const REPEATED: &str = "duplicate key";

/// Reads one file's text.
pub(super) fn read(text: &str) -> Result<(File, Vec<Rejected>), Vec<NotToml>> {
    let (mut table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let not_toml = |error: toml::de::Error| NotToml {
            span: error.span().unwrap_or(text.len()..text.len()),
            message: error.message().to_owned(),
        };
        let mut errors: Vec<_> = errors.into_iter().map(not_toml).collect();
        errors.sort_by_key(|error| error.span.start);
        // What is repeated is often the heirs of a header that could not be read.
        if errors.iter().any(|error| error.message != REPEATED) {
            errors.retain(|error| error.message != REPEATED);
        }
        return Err(errors);
    }
    let mut rejected = Vec::new();
    loop {
        let error = match File::deserialize(toml::Deserializer::from(table.clone())) {
            Ok(file) => return Ok((file, rejected)),
            Err(error) => error,
        };
        let why = why(error.message());
        let span = error.span().unwrap_or_default();
        let section = 0..text.len();
        let taken = take(table.get_mut(), &section, &span);
        let found = taken.is_some();
        let (key, section) = taken.unwrap_or((String::new(), section));
        rejected.push(Rejected { key, span, section, why });
        if !found {
            return Ok((File::default(), rejected));
        }
    }
}

/// Takes out the innermost entry whose key or value is at `span`; returns its key and the place of its section.
fn take(
    table: &mut DeTable<'_>,
    section: &Range<usize>,
    span: &Range<usize>,
) -> Option<(String, Range<usize>)> {
    for (_, value) in table.iter_mut() {
        let place = value.span();
        let inner = match value.get_mut() {
            DeValue::Table(inner) => take(inner, &place, span),
            DeValue::Array(elements) => elements.iter_mut().find_map(|element| {
                let place = element.span();
                match element.get_mut() {
                    DeValue::Table(inner) => take(inner, &place, span),
                    _ => None,
                }
            }),
            _ => None,
        };
        if inner.is_some() {
            return inner;
        }
    }
    let here = |place: Range<usize>| place.start <= span.start && span.end <= place.end;
    let key = table
        .iter()
        .find(|(key, value)| key.span() == *span || value.span() == *span)
        .or_else(|| table.iter().find(|(_, value)| here(value.span())))
        .map(|(key, _)| key.clone())?;
    table.remove(&key);
    Some((key.into_inner().into_owned(), section.clone()))
}

/// Takes `serde`'s message apart.
fn why(message: &str) -> Why {
    if message.starts_with("unknown field") {
        let known = message.split('`').skip(3).step_by(2).map(str::to_owned).collect();
        return Why::UnknownKey { known };
    }
    let parts =
        message.strip_prefix("invalid type: ").and_then(|parts| parts.split_once(", expected "));
    match parts {
        Some((is, expected)) => {
            let expected = match expected {
                "a string" => "a string",
                "i64" => "a whole number",
                "a boolean" => "true or false",
                "a string or a list of strings" => "a string or a list of strings",
                "a sequence" => "a list of sections",
                "a map" => "a table",
                _ => "a section",
            };
            Why::WrongKind { is: kind(is), expected: expected.to_owned() }
        }
        None => Why::Other(message.to_owned()),
    }
}

fn kind(serde: &str) -> String {
    match serde.split([' ', '`']).next() {
        Some("integer") => "a number",
        Some("floating") => "a number with a fraction",
        Some("boolean") => "true or false",
        Some("string") => "a string",
        Some("sequence") => "a list",
        Some("map") => "a table",
        _ => return serde.to_owned(),
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_in_several_sections_is_found_in_one_reading() {
        let text = r#"
nod = 1
[node]
ae_title = "A"
organisation = 7
[[partner]]
name = "a"
addres = "x:1"
[[partner]]
name = ["b"]
may = [1]
[route]
"#;
        let (file, rejected) = read(text).unwrap();

        let mut found: Vec<_> =
            rejected.iter().map(|entry| (entry.span.start, &text[entry.span.clone()])).collect();
        found.sort_unstable();
        let found: Vec<_> = found.into_iter().map(|(_, text)| text).collect();
        assert_eq!(found, ["nod", "ae_title", "7", "addres", "[\"b\"]", "1", "[route]"]);
        assert_eq!(file.partner.len(), 2);
        assert_eq!(file.partner[0].get_ref().name.as_ref().unwrap().get_ref(), "a");
    }

    #[test]
    fn every_place_that_is_not_toml_is_found() {
        let errors = read("a = \n[b\nc = 1\n").unwrap_err();
        assert_eq!(errors.iter().map(|error| error.span.start).collect::<Vec<_>>(), [4, 7]);
    }

    #[test]
    fn a_section_is_known_by_its_header() {
        let text = "[node]\norganisation = \"x\"\n\n[[route]]\nname = \"r\"\n[route.when]\nmodality = \"CT\"\n";
        let (file, _) = read(text).unwrap();
        assert_eq!(&text[file.node.unwrap().span()], "[node]");
        assert_eq!(&text[file.route[0].span()], "[[route]]");
        assert_eq!(&text[file.route[0].get_ref().when.as_ref().unwrap().span()], "[route.when]");
    }
}
