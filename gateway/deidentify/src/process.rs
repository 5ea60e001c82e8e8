//! One object, whole: read, judged for what its pixels may show, de-identified, sealed, written and verified.
//!
//! What comes back may leave; whatever else happens is a [`SetAside`], and nothing leaves. Objects up to [`IN_MEMORY`] are
//! made in memory, of longer ones only the header is: their pixel data is read from the source again, through the same
//! filter, each time they are written. Only compressed images under a mask are in memory whatever their length, as their
//! codecs need them whole.

use std::io;
use std::sync::Arc;

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use gantry_store::dicom::TransferSyntax;
use gantry_store::dicom::transfer_syntax::Layout;
use gantry_store::facts::{Digest, Digester};

use crate::data_set::{self, DataSet, Element, PixelData, Reader};
use crate::engine::{Deidentifier, Made, SetAside, mark_pixels_cleaned};
use crate::pixels::blacken::{Area, Native};
use crate::pixels::codec::{self, Codec};
use crate::pixels::codestream::{Codestreams, Note};
use crate::pixels::image::Image;
use crate::pixels::mask::Library;
use crate::pixels::ocr::{Examination, Ocr};
use crate::pixels::risk::{Face, Risk, overlays_in_pixels};
use crate::seal::{Recipient, encrypted_attributes};
use crate::source::Source;
use crate::table::ProfileOption;
use crate::verify::{Finding, Verifier};

/// The longest object that is made in memory.
pub const IN_MEMORY: u64 = 32 << 20;

/// The longest that is decoded, inflated or searched for text, which needs it whole.
const MOST_WHOLE: u64 = 512 << 20;

/// Frames that are searched for text.
const FRAMES_READ: u32 = 3;

/// What pixels are treated with, and who may read what was sealed.
#[derive(Clone, Default)]
pub struct Tools {
    /// Decodes and encodes compressed pixel data.
    pub codec: Option<Arc<dyn Codec + Send + Sync>>,
    /// Where devices write.
    pub masks: Library,
    /// Reads what is left.
    pub ocr: Option<Ocr>,
    /// Whoever may read the originals; nobody, if there is none.
    pub recipients: Vec<Recipient>,
}

impl std::fmt::Debug for Tools {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tools").field("recipients", &self.recipients.len()).finish_non_exhaustive()
    }
}

/// An object that may leave.
#[derive(Debug)]
pub struct Protected {
    /// How it was made.
    pub made: Made,
    /// How it is encoded.
    pub transfer_syntax: TransferSyntax,
    /// Its bytes.
    pub length: u64,
    /// What was done about its pixels.
    pub pixels: PixelReport,
    /// Who may read the originals: SHA-256 of their certificates, in hexadecimal.
    pub sealed_to: Vec<String>,
    content: Content,
}

/// What was done about the pixels of an object, for reports; no value of it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PixelReport {
    /// Why they may show who the patient is.
    pub risk: Option<String>,
    /// The mask that was applied.
    pub mask: Option<String>,
    /// Why they left without a mask, where they may show something.
    pub passed: Option<String>,
    /// That a face may be made out.
    pub face: Option<String>,
    /// What was not looked into in compressed frames, as [`Note`] says it.
    pub notes: Vec<String>,
    /// What a search for text said; `None`, if there was none to be made.
    pub text_search: Option<TextSearch>,
}

/// What a search for text in pixels said.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum TextSearch {
    /// Nothing that was looked for stood in these frames.
    Clear {
        /// How many were looked at.
        frames: usize,
    },
    /// Nobody looked, for this reason.
    NotChecked(String),
}

enum Content {
    Whole(Vec<u8>),
    Spliced(Splice),
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Whole(_) => "whole",
            Self::Spliced(_) => "spliced",
        })
    }
}

/// A header that is written anew, around pixel data that is read again.
struct Splice {
    head: Vec<u8>,
    pixels: Option<(PixelData, Filter)>,
    tail: Vec<u8>,
}

/// What pixel data goes through.
enum Filter {
    /// As they are.
    None,
    /// Bytes from here on are no pixels.
    Trim(u64),
    /// Boxes, unused bits and what is behind the last pixel go.
    Native(Box<(DataSet, Image, Vec<Area>)>),
    /// What compressed frames hide goes.
    Codestreams(TransferSyntax, Box<DataSet>),
}

/// What is to be done with the pixels of an object.
struct Plan {
    report: PixelReport,
    image: Option<Image>,
    boxes: Vec<Area>,
    /// Whether a mask says what they show.
    masked: bool,
    /// Whether bits beside the pixels have to be cleared.
    clears_bits: bool,
}

impl Deidentifier {
    /// De-identifies one object. `source` is a data set without File Meta Information in this transfer syntax.
    pub fn process(
        &self,
        source: &dyn Source,
        syntax: &TransferSyntax,
        tools: &Tools,
    ) -> Result<Protected, SetAside> {
        if matches!(syntax.layout(), Layout::ExplicitBig | Layout::Deflated) {
            // Written anew in Explicit VR Little Endian, which everybody takes.
            let codec = tools.codec.as_deref().ok_or_else(|| SetAside::NoCodec(syntax.clone()))?;
            let whole = collect(source)?;
            let native = codec.decode(&whole, syntax).map_err(pixels)?;
            let explicit = TransferSyntax::explicit_vr_little_endian();
            let protected = self.process_readable(&native, &explicit, tools)?;
            // The source given is not what was spliced from.
            return protected.whole_from(&native);
        }
        self.process_readable(source, syntax, tools)
    }

    fn process_readable(
        &self,
        source: &dyn Source,
        syntax: &TransferSyntax,
        tools: &Tools,
    ) -> Result<Protected, SetAside> {
        let mut reader = Reader::new(syntax, Some(source.length()))?;
        let mut refused = None;
        let read = source.read(0..source.length(), &mut |bytes| {
            reader.feed(bytes).map_err(|error| {
                refused = Some(error);
                io::ErrorKind::InvalidData.into()
            })
        });
        if let Some(error) = refused {
            return Err(error.into());
        }
        read.map_err(|error| SetAside::Source(error.kind()))?;
        let parsed = reader.finish()?;
        let plan = self.plan(&parsed.data_set, parsed.pixel_data.as_ref(), tools)?;
        // Masks and palettes are looked up in what was received.
        let received = plan.clears_bits.then(|| parsed.data_set.clone());
        let character_set = parsed.data_set.bytes(tags::SPECIFIC_CHARACTER_SET).map(<[u8]>::to_vec);
        let mut made = self.make_with(parsed, !tools.recipients.is_empty())?;
        if plan.masked && self.profile().options.has(ProfileOption::CleanPixelData) {
            mark_pixels_cleaned(&mut made.data_set);
        }
        let mut sealed_to = Vec::new();
        if !tools.recipients.is_empty() {
            let element = self.sealed(&made, character_set.as_deref(), &tools.recipients)?;
            made.data_set.put(element);
            sealed_to =
                tools.recipients.iter().map(|recipient| recipient.fingerprint_hex()).collect();
        }
        let Written { content, transfer_syntax, notes } =
            written(&made, &plan, received, source, syntax, tools)?;
        let Plan { report, image, masked, clears_bits, .. } = plan;
        let mut protected =
            Protected { made, transfer_syntax, length: 0, pixels: report, sealed_to, content };
        protected.note(&notes);
        self.verify(&mut protected, source, !clears_bits)?;
        if self.profile().pixels.ocr
            && (protected.pixels.risk.is_some() || masked)
            && image.is_some()
        {
            search_for_text(&mut protected, source, tools)?;
        }
        Ok(protected)
    }

    fn sealed(
        &self,
        made: &Made,
        character_set: Option<&[u8]>,
        recipients: &[Recipient],
    ) -> Result<Element, SetAside> {
        // Deterministic, so that an object that is sent again is the same again.
        let key = self.key().sub_key("seal").sign(b"seal");
        let set = character_set.filter(|set| !set.is_empty());
        encrypted_attributes::protect_repeatably(&made.originals, set, recipients, &key)
            .map_err(|error| SetAside::Seal(error.to_string()))
    }

    /// What pixels may show, and what is done about it.
    fn plan(
        &self,
        data_set: &DataSet,
        pixel_data: Option<&PixelData>,
        tools: &Tools,
    ) -> Result<Plan, SetAside> {
        let settings = &self.profile().pixels;
        let face = Face::of(data_set).map(|face| face.to_string());
        let mut report = PixelReport { face, ..PixelReport::default() };
        let Some(pixel_data) = pixel_data else {
            return Ok(Plan {
                report,
                image: None,
                boxes: Vec::new(),
                masked: false,
                clears_bits: false,
            });
        };
        let image = Image::of(data_set, pixel_data.tag).map_err(pixels)?;
        let overlays = overlays_in_pixels(data_set).next().is_some();
        let mut boxes = Vec::new();
        let mut masked = false;
        if let Some(risk) = Risk::of(data_set) {
            // Bits of overlays are cleared, which leaves nothing of that risk.
            let only_overlays = risk.reasons.iter().all(|reason| {
                matches!(reason, crate::pixels::risk::Reason::OverlayInPixels { .. })
            });
            let mask = settings.clean.then(|| tools.masks.find(data_set)).flatten();
            match (mask, &settings.risky_pass) {
                (Some(mask), _) => {
                    report.mask = Some(mask.to_string());
                    boxes = mask.boxes;
                    masked = true;
                }
                (None, _) if only_overlays => {}
                (None, Some(reason)) => report.passed = Some(reason.clone()),
                (None, None) => return Err(SetAside::Risky(risk.to_string())),
            }
            report.risk = Some(risk.to_string());
        }
        let clears_bits = !boxes.is_empty() || overlays;
        Ok(Plan { report, image: Some(image), boxes, masked, clears_bits })
    }

    /// Looks at what was written, and notes its length.
    fn verify(
        &self,
        protected: &mut Protected,
        source: &dyn Source,
        pixels_stay: bool,
    ) -> Result<(), SetAside> {
        let mut verifier = Verifier::new(self, &protected.made, &protected.transfer_syntax);
        let mut refused = None;
        let written = protected.content.write(source, &mut |bytes| {
            verifier.feed(bytes).map_err(|error| {
                refused = Some(error);
                io::ErrorKind::InvalidData.into()
            })
        });
        if let Some(error) = refused {
            return Err(SetAside::Verification(vec![Finding::Damaged(error)]));
        }
        let notes = written?;
        let scan = verifier.finish().map_err(SetAside::Verification)?;
        if pixels_stay && !protected.pixels_are_those_of(source, scan.pixel_data_offset)? {
            return Err(SetAside::Verification(vec![Finding::Pixels]));
        }
        protected.note(&notes);
        protected.length = scan.length;
        Ok(())
    }
}

/// The result, as it can be written.
struct Written {
    content: Content,
    transfer_syntax: TransferSyntax,
    notes: Vec<Note>,
}

/// How the result is written.
fn written(
    made: &Made,
    plan: &Plan,
    received: Option<DataSet>,
    source: &dyn Source,
    syntax: &TransferSyntax,
    tools: &Tools,
) -> Result<Written, SetAside> {
    let at = made.pixel_data.as_ref().map(|pixel_data| pixel_data.tag);
    let before = |element: &&Element| at.is_none_or(|at| element.tag < at);
    let mut head = Vec::with_capacity(8 << 10);
    made.data_set
        .elements
        .iter()
        .filter(before)
        .for_each(|element| element.write(made.form, &mut head));
    let mut tail = Vec::new();
    let behind = made.data_set.elements.iter().filter(|element| !before(element));
    behind.for_each(|element| element.write(made.form, &mut tail));
    let filter = match (&made.pixel_data, &plan.image, received) {
        (Some(pixel_data), Some(_), received) if pixel_data.encapsulated => {
            if received.is_some() {
                let splice =
                    Splice { head, pixels: Some((pixel_data.clone(), Filter::None)), tail };
                return recoded(&splice, plan, source, syntax, tools);
            }
            Filter::Codestreams(syntax.clone(), Box::new(made.data_set.clone()))
        }
        (Some(_), Some(image), Some(received)) => {
            Filter::Native(Box::new((received, image.clone(), plan.boxes.clone())))
        }
        (Some(pixel_data), Some(image), None) => {
            let length = pixel_data.value.end - pixel_data.value.start;
            let pixels = image.pixel_bytes(length).map_err(pixels)?;
            if pixels < length { Filter::Trim(pixels) } else { Filter::None }
        }
        _ => Filter::None,
    };
    let pixels = made.pixel_data.clone().map(|pixel_data| (pixel_data, filter));
    let splice = Splice { head, pixels, tail };
    let transfer_syntax = syntax.clone();
    if source.length() > IN_MEMORY {
        // What it says is known when it is written.
        return Ok(Written {
            content: Content::Spliced(splice),
            transfer_syntax,
            notes: Vec::new(),
        });
    }
    let (whole, notes) = splice.whole(source)?;
    Ok(Written { content: Content::Whole(whole), transfer_syntax, notes })
}

/// Compressed pixel data under a mask: decoded, blacked, compressed again.
fn recoded(
    splice: &Splice,
    plan: &Plan,
    source: &dyn Source,
    syntax: &TransferSyntax,
    tools: &Tools,
) -> Result<Written, SetAside> {
    let codec = tools.codec.as_deref().ok_or_else(|| SetAside::NoCodec(syntax.clone()))?;
    if source.length() > MOST_WHOLE {
        return Err(SetAside::TooLong(source.length()));
    }
    let (whole, _) = splice.whole(source)?;
    let recoded = codec::blacken(codec, &whole, syntax, &plan.boxes).map_err(pixels)?;
    Ok(Written {
        content: Content::Whole(recoded.data_set),
        transfer_syntax: recoded.syntax,
        // Frames were made anew, and hide nothing.
        notes: Vec::new(),
    })
}

impl Content {
    /// Writes it; what was not looked into meanwhile.
    fn write(
        &self,
        source: &dyn Source,
        take: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<Vec<Note>, SetAside> {
        match self {
            Self::Whole(bytes) => {
                take(bytes).map(|()| Vec::new()).map_err(|error| SetAside::Source(error.kind()))
            }
            Self::Spliced(splice) => splice.write(source, take),
        }
    }
}

impl Splice {
    /// All of it, in memory.
    fn whole(&self, source: &dyn Source) -> Result<(Vec<u8>, Vec<Note>), SetAside> {
        let room = usize::try_from(source.length()).unwrap_or_default();
        let mut whole = Vec::with_capacity(room + 4096);
        let notes = self.write(source, &mut |bytes| {
            whole.extend_from_slice(bytes);
            Ok(())
        })?;
        Ok((whole, notes))
    }

    fn write(
        &self,
        source: &dyn Source,
        take: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<Vec<Note>, SetAside> {
        let failed = |error: io::Error| SetAside::Source(error.kind());
        take(&self.head).map_err(failed)?;
        let mut notes = Vec::new();
        if let Some((pixel_data, filter)) = &self.pixels {
            let PixelData { span, value, .. } = pixel_data;
            let mut running = filter.begin(value.end - value.start)?;
            source.read(span.start..value.start, take).map_err(failed)?;
            let (mut offset, mut refused) = (0, None);
            let read = source.read(value.clone(), &mut |bytes| {
                let fed = running.feed(offset, bytes, take);
                offset += bytes.len() as u64;
                fed.map_err(|error| {
                    refused = Some(error);
                    io::ErrorKind::InvalidData.into()
                })
            });
            if let Some(error) = refused {
                return Err(error);
            }
            read.map_err(failed)?;
            notes = running.finish()?;
            source.read(value.end..span.end, take).map_err(failed)?;
        }
        take(&self.tail).map_err(failed)?;
        Ok(notes)
    }
}

/// A filter with pixel data on its way through.
enum Running {
    None,
    Trim(u64),
    Native(Box<Native>, Vec<u8>),
    Codestreams(Box<Codestreams>, Vec<u8>),
}

impl Filter {
    fn begin(&self, length: u64) -> Result<Running, SetAside> {
        Ok(match self {
            Self::None => Running::None,
            Self::Trim(pixels) => Running::Trim(*pixels),
            Self::Native(native) => {
                let (data_set, image, boxes) = native.as_ref();
                let native = Native::new(data_set, image, boxes, length).map_err(pixels)?;
                Running::Native(Box::new(native), Vec::new())
            }
            Self::Codestreams(syntax, data_set) => {
                let codestreams = Codestreams::new(syntax, data_set).map_err(pixels)?;
                Running::Codestreams(Box::new(codestreams), Vec::new())
            }
        })
    }
}

impl Running {
    fn feed(
        &mut self,
        offset: u64,
        bytes: &[u8],
        take: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), SetAside> {
        let failed = |error: io::Error| SetAside::Source(error.kind());
        match self {
            Self::None => take(bytes).map_err(failed),
            Self::Trim(end) => {
                let ours = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX);
                let (pixels, behind) = bytes.split_at(ours.min(bytes.len()));
                take(pixels).map_err(failed)?;
                take(&vec![0; behind.len()]).map_err(failed)
            }
            Self::Native(native, buffer) => {
                bytes.clone_into(buffer);
                native.feed(offset, buffer).map_err(pixels)?;
                take(buffer).map_err(failed)
            }
            Self::Codestreams(codestreams, buffer) => {
                bytes.clone_into(buffer);
                codestreams.feed(offset, buffer).map_err(pixels)?;
                take(buffer).map_err(failed)
            }
        }
    }

    /// What was not looked into.
    fn finish(self) -> Result<Vec<Note>, SetAside> {
        match self {
            Self::None | Self::Trim(_) => Ok(Vec::new()),
            Self::Native(native, _) => native.finish().map(|_| Vec::new()).map_err(pixels),
            Self::Codestreams(codestreams, _) => {
                codestreams.finish().map(|cleaned| cleaned.notes).map_err(pixels)
            }
        }
    }
}

impl Protected {
    /// Writes it, in pieces. `source` is what it was made of.
    pub fn write(
        &self,
        source: &dyn Source,
        take: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        self.content.write(source, take).map(drop).map_err(|why| match why {
            SetAside::Source(kind) => kind.into(),
            other => io::Error::new(io::ErrorKind::InvalidData, other.to_string()),
        })
    }

    fn note(&mut self, notes: &[Note]) {
        self.pixels.notes.extend(notes.iter().map(ToString::to_string));
    }

    /// SHA-256 of what [`Self::write`] writes. `source` is what it was made of.
    pub fn digest(&self, source: &dyn Source) -> io::Result<Digest> {
        let mut digester = Digester::default();
        self.write(source, &mut |bytes| {
            digester.update(bytes);
            Ok(())
        })?;
        Ok(digester.finish())
    }

    /// All of it, where it was made in memory.
    pub fn in_memory(&self) -> Option<&[u8]> {
        match &self.content {
            Content::Whole(bytes) => Some(bytes),
            Content::Spliced(_) => None,
        }
    }

    /// Its bytes, where it was made in memory; they are not needed anywhere else then.
    pub fn into_memory(mut self: Box<Self>) -> Result<Vec<u8>, Box<Self>> {
        match &mut self.content {
            Content::Whole(bytes) => Ok(std::mem::take(bytes)),
            Content::Spliced(_) => Err(self),
        }
    }

    /// The same with all of it in memory, for a source that will not be there any more.
    fn whole_from(mut self, source: &dyn Source) -> Result<Self, SetAside> {
        if let Content::Spliced(splice) = &self.content {
            self.content = Content::Whole(splice.whole(source)?.0);
        }
        Ok(self)
    }

    /// Whether the pixel data that was written is that of the source, byte for byte, what no pixel is apart.
    fn pixels_are_those_of(
        &self,
        source: &dyn Source,
        offset: Option<u64>,
    ) -> Result<bool, SetAside> {
        let Some(PixelData { span, value, encapsulated, .. }) = &self.made.pixel_data else {
            return Ok(offset.is_none());
        };
        // Spliced ones are the source's by construction; of compressed ones, what hides between may be gone.
        let (Content::Whole(whole), Some(offset), false) = (&self.content, offset, *encapsulated)
        else {
            return Ok(offset.is_some());
        };
        let mut at = usize::try_from(offset).unwrap_or(usize::MAX);
        let mut same = true;
        let pixels = self.pixel_length(value.end - value.start);
        source
            .read(span.start..value.start + pixels, &mut |bytes| {
                same &= whole.get(at..at + bytes.len()) == Some(bytes);
                at += bytes.len();
                Ok(())
            })
            .map_err(|error| SetAside::Source(error.kind()))?;
        Ok(same)
    }

    /// Bytes of pixels in a value of this length.
    fn pixel_length(&self, length: u64) -> u64 {
        let tag =
            self.made.pixel_data.as_ref().map_or(tags::PIXEL_DATA, |pixel_data| pixel_data.tag);
        Image::of(&self.made.data_set, tag)
            .and_then(|image| image.pixel_bytes(length))
            .unwrap_or(length)
    }
}

/// Searches what was written for text that should not be legible.
fn search_for_text(
    protected: &mut Protected,
    source: &dyn Source,
    tools: &Tools,
) -> Result<(), SetAside> {
    let not_checked = |why: &str| Some(TextSearch::NotChecked(why.to_owned()));
    if tools.ocr.is_none() {
        protected.pixels.text_search = not_checked("tesseract is not installed");
        return Ok(());
    }
    if protected.length > MOST_WHOLE {
        protected.pixels.text_search = not_checked("it is too long");
        return Ok(());
    }
    let mut whole = Vec::new();
    let kind = |error: io::Error| SetAside::Source(error.kind());
    protected
        .write(source, &mut |bytes| {
            whole.extend_from_slice(bytes);
            Ok(())
        })
        .map_err(kind)?;
    let mut syntax = protected.transfer_syntax.clone();
    if !syntax.is_native() {
        let Some(codec) = tools.codec.as_deref() else {
            protected.pixels.text_search = not_checked("its frames cannot be decoded here");
            return Ok(());
        };
        let Ok(native) = codec.decode(&whole, &syntax) else {
            protected.pixels.text_search = not_checked("its frames cannot be decoded");
            return Ok(());
        };
        (whole, syntax) = (native, TransferSyntax::explicit_vr_little_endian());
    }
    let parsed = data_set::read(&syntax, &whole)?;
    let Some(pixel_data) = parsed.pixel_data else { return Ok(()) };
    let image = Image::of(&parsed.data_set, pixel_data.tag).map_err(pixels)?;
    let needles: Vec<String> = protected
        .made
        .lost
        .iter()
        .filter(|lost| is_legible(lost))
        .map(|lost| lost.text.clone())
        .collect();
    let frame = |nth| {
        let range = image.frame_bytes(nth)?;
        let start = usize::try_from(pixel_data.value.start + range.start).ok()?;
        let end = usize::try_from(pixel_data.value.start + range.end).ok()?;
        whole.get(start..end).map(<[u8]>::to_vec)
    };
    let examined =
        Ocr::examine(tools.ocr.as_ref(), &parsed.data_set, &image, FRAMES_READ, &needles, frame);
    protected.pixels.text_search = match examined {
        Examination::NotChecked(why) => not_checked(&why.to_string()),
        Examination::Checked { findings, .. } if !findings.is_empty() => {
            let found = findings.iter().map(|(_, finding)| finding.found.to_string());
            let mut found: Vec<String> = found.collect();
            found.sort();
            found.dedup();
            return Err(SetAside::Legible(found.join(", ")));
        }
        Examination::Checked { frames, .. } => Some(TextSearch::Clear { frames: frames.len() }),
    };
    Ok(())
}

/// Whether a device may have drawn this value.
fn is_legible(lost: &crate::engine::Lost) -> bool {
    use dicom_core::VR;
    const IDS: [Tag; 4] =
        [tags::PATIENT_ID, tags::ACCESSION_NUMBER, tags::STUDY_ID, tags::INSTITUTION_NAME];
    matches!(lost.vr, VR::PN | VR::DA) || IDS.contains(&lost.tag)
}

fn pixels(why: impl std::error::Error) -> SetAside {
    let mut text = why.to_string();
    let mut source = why.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    SetAside::Pixels(text)
}

fn collect(source: &dyn Source) -> Result<Vec<u8>, SetAside> {
    if source.length() > MOST_WHOLE {
        return Err(SetAside::TooLong(source.length()));
    }
    let mut whole = Vec::with_capacity(usize::try_from(source.length()).unwrap_or_default());
    source
        .read(0..source.length(), &mut |bytes| {
            whole.extend_from_slice(bytes);
            Ok(())
        })
        .map_err(|error| SetAside::Source(error.kind()))?;
    Ok(whole)
}
