//! Media types (PS3.18 8.7): what is asked for, and what of it can be answered.
//!
//! Defaults, where `*/*` or nothing is asked for: instances are `multipart/related; type="application/dicom"` and frames
//! and bulk data `multipart/related; type="application/octet-stream"`, both in Explicit VR Little Endian (PS3.18 Tables
//! 8.7.3-2 and 8.7.3-4); metadata and searches are `application/dicom+json` (Table 8.7.3-6); rendered instances, frames
//! and thumbnails are `image/jpeg` (Table 8.7.4-1). Where Explicit VR Little Endian cannot be had, because nobody here
//! can decode what is stored, `*/*` is answered in what is stored.
//!
//! `transfer-syntax=*` means as stored, with `application/octet-stream` too, as viewers ask for it. A compressed media type
//! without a transfer syntax means whichever of it is stored. GIF and video are not offered.

use std::borrow::Cow;

use dicom_dictionary_std::uids;
use gantry_store::dicom::TransferSyntax;
use thiserror::Error;

/// Bytes of the longest Accept header or parameter, and the most media ranges in it.
const MAX_ACCEPT: usize = 8 << 10;
const MAX_RANGES: usize = 64;
/// The most parameters of one.
const MAX_PARAMETERS: usize = 16;

/// A text that is no media type or list of them; answered with 400.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum BadMediaType {
    /// Not by the grammar of RFC 9110 8.3.1 and 12.5.1.
    #[error("not a media type")]
    Grammar,
    /// Longer, or more of them, than is read.
    #[error("more than {MAX_RANGES} media types or {MAX_ACCEPT} bytes")]
    TooLong,
}

/// A media type or range with its parameters.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MediaType {
    essence: String,
    parameters: Vec<(String, String)>,
}

impl MediaType {
    /// Reads one (RFC 9110 8.3.1).
    pub fn parse(text: &str) -> Result<Self, BadMediaType> {
        let mut parts = split(text, b';')?.into_iter().map(str::trim);
        let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
        let is_pair =
            essence.split_once('/').is_some_and(|(kind, sub)| is_token(kind) && is_token(sub));
        if !is_pair {
            return Err(BadMediaType::Grammar);
        }
        let mut parameters: Vec<(String, String)> = Vec::new();
        for part in parts.filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').ok_or(BadMediaType::Grammar)?;
            let name = name.trim_end().to_ascii_lowercase();
            let twice = parameters.iter().any(|(other, _)| *other == name);
            if !is_token(&name) || twice || parameters.len() == MAX_PARAMETERS {
                return Err(BadMediaType::Grammar);
            }
            parameters.push((name, unquoted(value.trim_start())?.into_owned()));
        }
        Ok(Self { essence, parameters })
    }

    /// Type and subtype in lower case.
    pub fn essence(&self) -> &str {
        &self.essence
    }

    /// The value of a parameter, by its name in lower case.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// Whether it is a token (RFC 9110 5.6.2).
fn is_token(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(allowed)
}

/// Splits at a separator that is not inside quotes.
fn split(text: &str, separator: u8) -> Result<Vec<&str>, BadMediaType> {
    let mut parts = Vec::new();
    let (mut begin, mut quoted, mut escaped) = (0, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if byte == separator && !quoted => {
                parts.extend(text.get(begin..at));
                begin = at + 1;
            }
            _ => {}
        }
    }
    parts.extend(text.get(begin..));
    if quoted { Err(BadMediaType::Grammar) } else { Ok(parts) }
}

/// What stands in quotes, or without them; there not a token alone, as `type=application/dicom` and boundaries with colons
/// are common.
fn unquoted(value: &str) -> Result<Cow<'_, str>, BadMediaType> {
    let Some(quoted) = value.strip_prefix('"') else {
        let good = |byte: u8| byte.is_ascii_graphic() && !b"\"\\;,".contains(&byte);
        return if !value.is_empty() && value.bytes().all(good) {
            Ok(Cow::Borrowed(value))
        } else {
            Err(BadMediaType::Grammar)
        };
    };
    let inside = quoted.strip_suffix('"').ok_or(BadMediaType::Grammar)?;
    let mut plain = String::with_capacity(inside.len());
    let mut characters = inside.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => plain.push(characters.next().ok_or(BadMediaType::Grammar)?),
            '"' => return Err(BadMediaType::Grammar),
            c if c.is_control() && c != '\t' => return Err(BadMediaType::Grammar),
            c => plain.push(c),
        }
    }
    Ok(Cow::Owned(plain))
}

/// What a client would take.
#[derive(Clone, Debug, PartialEq)]
pub struct Accept(Vec<Range>);

#[derive(Clone, Debug, PartialEq)]
struct Range {
    multipart: Multipart,
    /// The media type of a part, or of the whole answer; may have asterisks.
    essence: String,
    syntax: Asked,
    /// In thousandths (RFC 9110 12.4.2).
    quality: u16,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Multipart {
    Yes,
    No,
    /// `*/*`
    Either,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Asked {
    Default,
    AsStored,
    One(String),
}

impl Accept {
    /// Reads the header and the query parameter of that name, decoded, which goes before the header (PS3.18 8.3.3.1).
    /// Neither means `*/*`.
    pub fn parse(header: Option<&str>, parameter: Option<&str>) -> Result<Self, BadMediaType> {
        let text = parameter.or(header).unwrap_or_default();
        if text.len() > MAX_ACCEPT {
            return Err(BadMediaType::TooLong);
        }
        let parts = split(text, b',')?.into_iter().map(str::trim).filter(|part| !part.is_empty());
        let mut ranges = Vec::new();
        for part in parts {
            if ranges.len() == MAX_RANGES {
                return Err(BadMediaType::TooLong);
            }
            ranges.push(Range::new(&MediaType::parse(part)?)?);
        }
        if ranges.is_empty() {
            ranges.push(Range {
                multipart: Multipart::Either,
                essence: "*/*".to_owned(),
                syntax: Asked::Default,
                quality: 1000,
            });
        }
        Ok(Self(ranges))
    }
}

impl Range {
    fn new(media: &MediaType) -> Result<Self, BadMediaType> {
        let syntax = match media.parameter("transfer-syntax") {
            None => Asked::Default,
            Some("*") => Asked::AsStored,
            Some(uid) => Asked::One(uid.to_owned()),
        };
        let (multipart, essence) = match media.essence() {
            "*/*" => (Multipart::Either, "*/*"),
            "multipart/related" => (Multipart::Yes, media.parameter("type").unwrap_or("*/*")),
            "multipart/*" => (Multipart::Yes, "*/*"),
            single => (Multipart::No, single),
        };
        let quality =
            media.parameter("q").map_or(Some(1000), quality).ok_or(BadMediaType::Grammar)?;
        Ok(Self { multipart, essence: essence.to_ascii_lowercase(), syntax, quality })
    }

    /// How exactly it names this answer; `None` if it does not.
    fn names(&self, offer: &Answer, target: &Target<'_>) -> Option<u8> {
        let multipart = match self.multipart {
            Multipart::Either => true,
            Multipart::Yes => offer.multipart,
            Multipart::No => !offer.multipart,
        };
        let media = offer.media.name();
        let exact = match self.essence.as_str() {
            "*/*" => 0,
            range if range == media => 2,
            range => {
                let family = range.strip_suffix('*').filter(|family| family.ends_with('/'))?;
                if !media.starts_with(family) {
                    return None;
                }
                1
            }
        };
        let encoded = matches!(offer.media, Media::Dicom | Media::OctetStream);
        let syntax = match (&offer.syntax, &self.syntax) {
            (None, _) if !encoded => true,
            // Each as it is stored.
            (None, Asked::AsStored) => true,
            (None, Asked::Default) => target.default().is_none(),
            (None, Asked::One(_)) => false,
            (Some(syntax), Asked::One(uid)) => syntax.uid() == uid,
            (Some(syntax), Asked::AsStored) => target.stored == Some(syntax),
            (Some(syntax), Asked::Default) => {
                target.default() == Some(syntax)
                    || exact > 0 && compressed(syntax) == Some(offer.media)
            }
        };
        (multipart && syntax).then_some(match self.multipart {
            Multipart::Either => 0,
            _ => exact + 1,
        })
    }
}

/// A weight of RFC 9110 12.4.2 in thousandths.
fn quality(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let thousandths = format!("{fraction:0<3}").parse::<u16>().ok()?;
    match whole {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(1000),
        _ => None,
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Resource {
    /// Instances of a study or series, or one (PS3.18 10.4.1.1.1).
    Instances,
    /// Frames (PS3.18 10.4.1.1.6).
    Frames,
    /// Bulk data (PS3.18 10.4.1.1.5).
    BulkData,
    /// Metadata (PS3.18 10.4.1.1.2).
    Metadata,
    /// Matches of a search (PS3.18 10.6).
    Search,
    /// The outcome of a store (PS3.18 10.5.3).
    Store,
    /// Rendered instances and frames (PS3.18 10.4.1.1.3).
    Rendered,
    /// Thumbnails (PS3.18 10.4.1.1.4).
    Thumbnail,
}

/// What could be answered.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// What kind of thing it is.
    pub resource: Resource,
    /// Whether the answer is one thing, so that it may do without multipart.
    pub single: bool,
    /// The transfer syntax in which it is stored; `None` where that does not matter, or differs within the answer.
    pub stored: Option<&'a TransferSyntax>,
    /// Transfer syntaxes into which all that is stored can be brought, by preference.
    pub transcodes: &'a [TransferSyntax],
}

/// Media types that are answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Media {
    /// application/dicom
    Dicom,
    /// application/dicom+json
    DicomJson,
    /// application/json, to who asks for nothing better.
    Json,
    /// application/dicom+xml
    DicomXml,
    /// application/octet-stream
    OctetStream,
    /// image/jpeg
    Jpeg,
    /// image/png
    Png,
    /// image/dicom-rle
    Rle,
    /// image/jls
    JpegLs,
    /// image/jp2
    Jpeg2000,
    /// image/jpx
    Jpeg2000Part2,
    /// image/jphc
    HighThroughput,
    /// image/jxl
    JpegXl,
}

impl Media {
    /// Type and subtype.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dicom => "application/dicom",
            Self::DicomJson => "application/dicom+json",
            Self::Json => "application/json",
            Self::DicomXml => "application/dicom+xml",
            Self::OctetStream => "application/octet-stream",
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
            Self::Rle => "image/dicom-rle",
            Self::JpegLs => "image/jls",
            Self::Jpeg2000 => "image/jp2",
            Self::Jpeg2000Part2 => "image/jpx",
            Self::HighThroughput => "image/jphc",
            Self::JpegXl => "image/jxl",
        }
    }
}

/// The media type of compressed frames (PS3.18 Table 8.7.3-5).
pub fn compressed(syntax: &TransferSyntax) -> Option<Media> {
    Some(match syntax.uid() {
        "1.2.840.10008.1.2.4.50"
        | "1.2.840.10008.1.2.4.51"
        | "1.2.840.10008.1.2.4.57"
        | "1.2.840.10008.1.2.4.70" => Media::Jpeg,
        "1.2.840.10008.1.2.5" => Media::Rle,
        "1.2.840.10008.1.2.4.80" | "1.2.840.10008.1.2.4.81" => Media::JpegLs,
        "1.2.840.10008.1.2.4.90" | "1.2.840.10008.1.2.4.91" => Media::Jpeg2000,
        "1.2.840.10008.1.2.4.92" | "1.2.840.10008.1.2.4.93" => Media::Jpeg2000Part2,
        "1.2.840.10008.1.2.4.110" | "1.2.840.10008.1.2.4.111" | "1.2.840.10008.1.2.4.112" => {
            Media::JpegXl
        }
        "1.2.840.10008.1.2.4.201" | "1.2.840.10008.1.2.4.202" | "1.2.840.10008.1.2.4.203" => {
            Media::HighThroughput
        }
        _ => return None,
    })
}

/// How to answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Answer {
    /// Whether the parts stand in multipart/related.
    pub multipart: bool,
    /// The media type of the answer, or of each part.
    pub media: Media,
    /// The transfer syntax to send in; `None` where the media type has none, or each instance is sent as it is stored.
    pub syntax: Option<TransferSyntax>,
}

impl Answer {
    /// The Content-Type of the answer without multipart, or of a part.
    pub fn content_type(&self) -> String {
        match &self.syntax {
            Some(syntax) => format!("{}; transfer-syntax={syntax}", self.media.name()),
            None => self.media.name().to_owned(),
        }
    }
}

impl Target<'_> {
    /// In which syntax something is sent to who names none.
    fn default(&self) -> Option<&TransferSyntax> {
        let explicit = |syntax: &&TransferSyntax| syntax.uid() == uids::EXPLICIT_VR_LITTLE_ENDIAN;
        self.syntaxes().find(explicit).or(self.stored)
    }

    fn syntaxes(&self) -> impl Iterator<Item = &TransferSyntax> {
        self.stored.into_iter().chain(self.transcodes)
    }

    /// All that can be answered, the default first.
    fn offers(&self) -> Vec<Answer> {
        let plain = |multipart, media| Answer { multipart, media, syntax: None };
        match self.resource {
            Resource::Metadata | Resource::Search => vec![
                plain(false, Media::DicomJson),
                plain(true, Media::DicomXml),
                plain(false, Media::Json),
            ],
            Resource::Store => vec![
                plain(false, Media::DicomJson),
                plain(false, Media::DicomXml),
                plain(false, Media::Json),
            ],
            Resource::Rendered | Resource::Thumbnail => {
                let mut offers = vec![plain(false, Media::Jpeg), plain(false, Media::Png)];
                if self.resource == Resource::Rendered {
                    offers.extend([plain(true, Media::Jpeg), plain(true, Media::Png)]);
                }
                offers
            }
            Resource::Instances => self.encoded(&|_| vec![Media::Dicom]),
            Resource::Frames | Resource::BulkData => self.encoded(&|syntax| {
                [Some(Media::OctetStream), compressed(syntax)].into_iter().flatten().collect()
            }),
        }
    }

    fn encoded(&self, media: &dyn Fn(&TransferSyntax) -> Vec<Media>) -> Vec<Answer> {
        let mut syntaxes: Vec<&TransferSyntax> = self.default().into_iter().collect();
        for syntax in self.syntaxes() {
            if !syntaxes.contains(&syntax) {
                syntaxes.push(syntax);
            }
        }
        let mut offers = Vec::new();
        for multipart in [true, false].into_iter().filter(|multipart| *multipart || self.single) {
            for syntax in &syntaxes {
                let answer = |media| Answer { multipart, media, syntax: Some((*syntax).clone()) };
                offers.extend(media(syntax).into_iter().map(answer));
            }
            if self.stored.is_none() {
                let media = if self.resource == Resource::Instances {
                    Media::Dicom
                } else {
                    Media::OctetStream
                };
                offers.push(Answer { multipart, media, syntax: None });
            }
        }
        offers
    }
}

/// Nothing that is asked for can be answered: 406.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("none of the accepted media types and transfer syntaxes can be answered")]
pub struct NotAcceptable;

/// Chooses how to answer: what is wanted most, by the most exact range that names it (RFC 9110 12.5.1), and of equals what
/// is stored so already, then the default.
pub fn choose(accept: &Accept, target: &Target<'_>) -> Result<Answer, NotAcceptable> {
    let mut best: Option<((u16, u8, bool), Answer)> = None;
    for offer in target.offers() {
        let named =
            accept.0.iter().filter_map(|range| Some((range.names(&offer, target)?, range.quality)));
        let Some((exact, quality)) = named.max() else { continue };
        let as_stored = exact > 1 && offer.syntax.as_ref() == target.stored;
        let rank = (quality, exact, as_stored);
        if quality > 0 && best.as_ref().is_none_or(|(other, _)| rank > *other) {
            best = Some((rank, offer));
        }
    }
    best.map(|(_, answer)| answer).ok_or(NotAcceptable)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ELE: &str = "1.2.840.10008.1.2.1";
    const JLS: &str = "1.2.840.10008.1.2.4.80";

    /// Stored in JPEG-LS, can be decoded; one thing.
    fn answer(resource: Resource, accept: &str) -> Option<String> {
        answer_of(resource, accept, JLS, &[ELE], true)
    }

    fn answer_of(
        resource: Resource,
        accept: &str,
        stored: &str,
        to: &[&str],
        single: bool,
    ) -> Option<String> {
        let stored: TransferSyntax = stored.parse().unwrap();
        let to: Vec<TransferSyntax> = to.iter().map(|uid| uid.parse().unwrap()).collect();
        let target = Target { resource, single, stored: Some(&stored), transcodes: &to };
        let answer = choose(&Accept::parse(Some(accept), None).unwrap(), &target).ok()?;
        Some(format!(
            "{}{}",
            if answer.multipart { "multipart " } else { "" },
            answer.content_type()
        ))
    }

    #[test]
    fn defaults_are_those_of_the_standard() {
        let dicom = "multipart application/dicom; transfer-syntax=1.2.840.10008.1.2.1";
        let octets = "multipart application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1";
        let defaults = [
            (Resource::Instances, dicom),
            (Resource::Frames, octets),
            (Resource::BulkData, octets),
            (Resource::Metadata, "application/dicom+json"),
            (Resource::Search, "application/dicom+json"),
            (Resource::Store, "application/dicom+json"),
            (Resource::Rendered, "image/jpeg"),
            (Resource::Thumbnail, "image/jpeg"),
        ];
        for (resource, expected) in defaults {
            for accept in ["", "*/*", "*/*;q=0.1", "text/html, */*; q=0.5"] {
                assert_eq!(
                    answer(resource, accept).as_deref(),
                    Some(expected),
                    "{resource:?} {accept}"
                );
            }
        }
    }

    #[test]
    fn what_is_asked_for_is_chosen() {
        use Resource::{Frames, Instances, Metadata, Rendered, Search, Store, Thumbnail};
        let cases: &[(Resource, &str, Option<&str>)] = &[
            (
                Instances,
                "multipart/related; type=\"application/dicom\"",
                Some("multipart application/dicom; transfer-syntax=1.2.840.10008.1.2.1"),
            ),
            (
                Instances,
                "multipart/related; type=application/dicom; transfer-syntax=*",
                Some("multipart application/dicom; transfer-syntax=1.2.840.10008.1.2.4.80"),
            ),
            (
                Instances,
                "multipart/related; type=\"application/dicom\"; transfer-syntax=1.2.840.10008.1.2.4.80",
                Some("multipart application/dicom; transfer-syntax=1.2.840.10008.1.2.4.80"),
            ),
            (
                Instances,
                "multipart/related; type=\"application/dicom\"; transfer-syntax=1.2.840.10008.1.2.4.90",
                None,
            ),
            (
                Instances,
                "multipart/related",
                Some("multipart application/dicom; transfer-syntax=1.2.840.10008.1.2.1"),
            ),
            (
                Instances,
                "application/dicom; transfer-syntax=*",
                Some("application/dicom; transfer-syntax=1.2.840.10008.1.2.4.80"),
            ),
            (Instances, "application/dicom+json", None),
            (
                Instances,
                "application/dicom;q=0.5, multipart/related;type=\"application/dicom\";q=0.4",
                Some("application/dicom; transfer-syntax=1.2.840.10008.1.2.1"),
            ),
            (
                Frames,
                "multipart/related; type=\"image/jls\"",
                Some("multipart image/jls; transfer-syntax=1.2.840.10008.1.2.4.80"),
            ),
            (
                Frames,
                "multipart/related; type=\"image/jls\"; transfer-syntax=1.2.840.10008.1.2.4.81",
                None,
            ),
            (
                Frames,
                "multipart/related; type=\"image/*\"",
                Some("multipart image/jls; transfer-syntax=1.2.840.10008.1.2.4.80"),
            ),
            (
                Frames,
                "multipart/related; type=image/jpeg, multipart/related; type=image/jls, multipart/related; type=application/octet-stream",
                Some("multipart image/jls; transfer-syntax=1.2.840.10008.1.2.4.80"),
            ),
            (
                Frames,
                "multipart/related; type=application/octet-stream; transfer-syntax=*",
                Some("multipart application/octet-stream; transfer-syntax=1.2.840.10008.1.2.4.80"),
            ),
            (
                Frames,
                "application/octet-stream",
                Some("application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1"),
            ),
            (Frames, "image/jls", Some("image/jls; transfer-syntax=1.2.840.10008.1.2.4.80")),
            (Metadata, "application/json", Some("application/json")),
            (Metadata, "application/json, application/dicom+json", Some("application/dicom+json")),
            (
                Metadata,
                "multipart/related; type=\"application/dicom+xml\"",
                Some("multipart application/dicom+xml"),
            ),
            (Metadata, "application/dicom+xml", None),
            (
                Search,
                "multipart/related; type=\"application/dicom+xml\", application/dicom+json;q=0.9",
                Some("multipart application/dicom+xml"),
            ),
            (Search, "application/*", Some("application/dicom+json")),
            (Store, "application/dicom+xml", Some("application/dicom+xml")),
            (Rendered, "image/png", Some("image/png")),
            (Rendered, "image/gif, video/mp4", None),
            (Rendered, "image/jpeg;q=0, image/*", Some("image/png")),
            (Rendered, "image/png;q=0.5, image/jpeg;q=0.501", Some("image/jpeg")),
            (Thumbnail, "IMAGE/PNG", Some("image/png")),
            (Metadata, "*/*;q=0", None),
        ];
        for (resource, accept, expected) in cases {
            assert_eq!(answer(*resource, accept).as_deref(), *expected, "{resource:?} {accept}");
        }
        // Several instances are never a single part, and what cannot be decoded is sent as it is.
        assert_eq!(answer_of(Instances, "application/dicom", ELE, &[], false), None);
        let as_stored = answer_of(Instances, "*/*", JLS, &[], true);
        assert_eq!(
            as_stored.as_deref(),
            Some("multipart application/dicom; transfer-syntax=1.2.840.10008.1.2.4.80")
        );
    }

    #[test]
    fn what_is_stored_in_several_syntaxes_is_sent_as_it_is_or_in_one_that_all_can_have() {
        let explicit = TransferSyntax::explicit_vr_little_endian();
        let to = |transcodes: &[TransferSyntax], accept: &str| {
            let target =
                Target { resource: Resource::Instances, single: false, stored: None, transcodes };
            choose(&Accept::parse(Some(accept), None).unwrap(), &target).map(|answer| answer.syntax)
        };
        let dicom = "multipart/related; type=\"application/dicom\"";
        let explicit = [explicit];
        assert_eq!(to(&explicit, "*/*"), Ok(Some(explicit[0].clone())));
        assert_eq!(to(&explicit, &format!("{dicom}; transfer-syntax=*")), Ok(None));
        assert_eq!(to(&explicit, &format!("{dicom}; transfer-syntax={JLS}")), Err(NotAcceptable));
        assert_eq!(to(&[], "*/*"), Ok(None));
        assert_eq!(to(&[], dicom), Ok(None));
        assert_eq!(to(&[], &format!("{dicom}; transfer-syntax={ELE}")), Err(NotAcceptable));
    }

    #[test]
    fn the_parameter_goes_before_the_header() {
        let accept = Accept::parse(Some("application/dicom+json"), Some("image/png")).unwrap();
        let target =
            Target { resource: Resource::Rendered, single: true, stored: None, transcodes: &[] };
        assert_eq!(choose(&accept, &target).unwrap().media, Media::Png);
    }

    #[test]
    fn what_is_no_media_type_is_refused() {
        let wrong = [
            "a",
            "a/",
            "/b",
            "a/b/c",
            "a b/c",
            "a/b;x",
            "a/b;x=\"",
            "a/b;x=\"a",
            "a/b;x=1;X=2",
            "*/*;q=2",
            "*/*;q=0.1234",
            "*/*;q=-1",
            "a/b;x=\"\\\"",
            "\u{e9}/b",
        ];
        for accept in wrong {
            assert_eq!(Accept::parse(Some(accept), None), Err(BadMediaType::Grammar), "{accept}");
        }
        let many = "a/b,".repeat(65);
        assert_eq!(Accept::parse(Some(&many), None), Err(BadMediaType::TooLong));
        let long = format!("a/{}", "b".repeat(9000));
        assert_eq!(Accept::parse(Some(&long), None), Err(BadMediaType::TooLong));
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "[a-z*/;=\",q0-9. \\\\é-]{0,80}") {
            if let Ok(accept) = Accept::parse(Some(&text), None) {
                let target = Target { resource: Resource::Search, single: true, stored: None, transcodes: &[] };
                let _ = choose(&accept, &target);
            }
        }
    }
}
