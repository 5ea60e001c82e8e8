//! Writes a data set anew while the scanner walks over it.

use std::borrow::Cow;
use std::ops::Range;

use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use gantry_store::dicom::TransferSyntax;
use gantry_store::dicom::scanner::{ElementHeader, Encoding, Event, ItemHeader, Visitor};

use super::frames::{self, Offsets};
use super::pixels::{Image, Plan};
use super::vr::{self, Implied};
use super::{MAX_DECODED, TranscodeError, compress};

const ITEM: Tag = Tag(0xFFFE, 0xE000);
const ITEM_DELIMITER: Tag = Tag(0xFFFE, 0xE00D);
const SEQUENCE_DELIMITER: Tag = Tag(0xFFFE, 0xE0DD);
const UNDEFINED: u32 = 0xFFFF_FFFF;
/// The longest even value of a value representation with a length of two bytes (PS3.5 6.2.2, note 3).
const MAX_SHORT: u32 = 65_534;

/// How a data set is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Form {
    /// In Implicit VR Little Endian.
    Implicit,
    /// In Explicit VR Little Endian.
    Explicit,
    /// In Explicit VR Little Endian, with Pixel Data in JPEG-LS.
    JpegLs,
}

/// The data set as far as it is written.
pub(super) struct Rewrite<'a> {
    data_set: &'a [u8],
    from: &'a TransferSyntax,
    form: Form,
    out: Vec<u8>,
    /// The element whose value arrives; `None` while what arrives is not copied.
    element: Option<Open>,
    /// The data set, and the items around what is being read, outermost first.
    scopes: Vec<Scope>,
    /// Fragments of the pixel data that are being read; the first is the Basic Offset Table.
    fragments: Option<Vec<&'a [u8]>>,
    decodable: u64,
    compressed: bool,
    failed: Option<TranscodeError>,
}

struct Open {
    tag: Tag,
    /// Where its header and its value begin in what is written.
    at: usize,
    value_at: usize,
    /// Bytes to turn round together.
    width: usize,
    /// What makes a value of odd length even.
    padding: Option<u8>,
}

/// What is known of one data set, or of one item.
#[derive(Default)]
struct Scope {
    image: Image,
    /// Elements that decoding changes, where they are written.
    photometric: Option<Range<usize>>,
    planar: Option<Range<usize>>,
    /// Where Planar Configuration would be written.
    after_planar: Option<usize>,
    /// Where VRs are written that are US until a Pixel Representation, which may come later, says SS.
    us_or_ss: Vec<usize>,
    /// Extended Offset Table (7FE0,0001), where it is in the original.
    extended_offsets: Option<Range<usize>>,
}

impl<'a> Rewrite<'a> {
    pub(super) fn new(data_set: &'a [u8], from: &'a TransferSyntax, form: Form) -> Self {
        Self {
            data_set,
            from,
            form,
            // Explicit headers are longer by at most four bytes, and undefined lengths need delimiters.
            out: Vec::with_capacity(data_set.len().saturating_add(data_set.len() / 16 + 1024)),
            element: None,
            scopes: vec![Scope::default()],
            fragments: None,
            decodable: MAX_DECODED,
            compressed: false,
            failed: None,
        }
    }

    /// What was written.
    pub(super) fn finish(mut self) -> Result<Vec<u8>, TranscodeError> {
        self.leave();
        match self.failed {
            None if self.form == Form::JpegLs && !self.compressed => {
                let why = "is not there to be compressed";
                Err(TranscodeError::Inconsistent { tag: tags::PIXEL_DATA, why })
            }
            None => Ok(self.out),
            Some(error) => Err(error),
        }
    }

    fn step(&mut self, event: Event<'_>) -> Result<(), TranscodeError> {
        match event {
            Event::Element(header) => return self.element(&header),
            Event::Sequence(header) => {
                self.pass(header.tag);
                self.header(header.tag, VR::SQ, UNDEFINED);
            }
            Event::Fragments(_) if self.from.is_native() => {
                return Err(TranscodeError::Inconsistent {
                    tag: tags::PIXEL_DATA,
                    why: "is encapsulated in a native transfer syntax",
                });
            }
            Event::Fragments(_) => self.fragments = Some(Vec::new()),
            Event::Item(_) => {
                self.plain(ITEM, UNDEFINED);
                self.scopes.push(Scope::default());
            }
            Event::Fragment(header) => self.fragment(&header),
            Event::Value(bytes) => {
                if self.element.is_some() {
                    self.out.extend_from_slice(bytes);
                }
            }
            Event::ValueEnd => return self.value_end(),
            Event::ItemEnd(_) => {
                self.leave();
                self.plain(ITEM_DELIMITER, 0);
            }
            Event::SequenceEnd(_) => match self.fragments.take() {
                Some(fragments) => return self.decode(&fragments),
                None => self.plain(SEQUENCE_DELIMITER, 0),
            },
        }
        Ok(())
    }

    fn element(&mut self, header: &ElementHeader<'_>) -> Result<(), TranscodeError> {
        let ElementHeader { tag, encoding, depth, .. } = *header;
        let length = header.length.unwrap_or(0);
        self.pass(tag);
        self.element = None;
        if tag.element() == 0 {
            return Ok(()); // group length
        }
        let encapsulated = !self.from.is_native();
        if encapsulated && tag == tags::EXTENDED_OFFSET_TABLE {
            let range = range(header.value_offset, length);
            self.scope(|scope| scope.extended_offsets = Some(range));
        }
        match tag {
            // They describe fragments (PS3.3 C.7.6.3.1.8).
            tags::EXTENDED_OFFSET_TABLE
            | tags::EXTENDED_OFFSET_TABLE_LENGTHS
            | tags::ENCAPSULATED_PIXEL_DATA_VALUE_TOTAL_LENGTH
                if encapsulated =>
            {
                return Ok(());
            }
            // In an icon it may be native in every syntax (PS3.5 A.4).
            tags::PIXEL_DATA if encapsulated && depth == 0 && length > 0 => {
                return Err(TranscodeError::Inconsistent {
                    tag,
                    why: "is native in an encapsulated transfer syntax",
                });
            }
            _ => {}
        }
        let at = self.out.len();
        let vr = match header.vr.map_or_else(|| vr::implied(tag), Implied::Known) {
            Implied::Known(vr) if vr::is_short(vr) && length > MAX_SHORT => VR::UN,
            Implied::UsOrSs if length > MAX_SHORT => VR::UN,
            Implied::Known(vr) => vr,
            Implied::UsOrSs => {
                if self.form != Form::Implicit {
                    self.scope(|scope| scope.us_or_ss.push(at + 4));
                }
                VR::US
            }
        };
        self.header(tag, vr, length.next_multiple_of(2));
        let padding = (length % 2 == 1).then(|| vr::padding(vr));
        let width = match encoding {
            Encoding::ExplicitBig => header.vr.map_or(1, vr::width),
            Encoding::ExplicitLittle | Encoding::ImplicitLittle => 1,
        };
        self.element = Some(Open { tag, at, value_at: self.out.len(), width, padding });
        Ok(())
    }

    fn value_end(&mut self) -> Result<(), TranscodeError> {
        let Some(Open { tag, at, value_at, width, padding }) = self.element.take() else {
            return Ok(());
        };
        self.out.extend(padding);
        let written = at..self.out.len();
        let value = self.out.get_mut(value_at..).unwrap_or_default();
        if width > 1 {
            value.chunks_exact_mut(width).for_each(<[u8]>::reverse);
        }
        if tag == tags::PIXEL_DATA && self.form == Form::JpegLs && self.scopes.len() == 1 {
            return self.compress(at, value_at);
        }
        let Some(scope) = self.scopes.last_mut() else { return Ok(()) };
        // By the standard they are words, the lower one first (PS3.5 8.1.1), and DCMTK reads them so; pydicom writes
        // whole numbers in big endian. Nothing tells one from the other, and a dose must not be taken for another.
        if tag == tags::PIXEL_DATA && width > 1 && scope.image.is_longer_than_a_word() {
            let why = "is more than 16 in big endian, which writers understand differently";
            return Err(TranscodeError::Inconsistent { tag: tags::BITS_ALLOCATED, why });
        }
        scope.image.note(tag, value);
        match tag {
            tags::PHOTOMETRIC_INTERPRETATION => scope.photometric = Some(written),
            tags::PLANAR_CONFIGURATION => scope.planar = Some(written),
            _ => {}
        }
        Ok(())
    }

    fn fragment(&mut self, header: &ItemHeader<'_>) {
        // What is encapsulated is not deflated, so offsets are those of the data set as it was given.
        let range = range(header.value_offset, header.length.unwrap_or(0));
        let fragment = self.data_set.get(range).unwrap_or_default();
        if let Some(fragments) = &mut self.fragments {
            fragments.push(fragment);
        }
    }

    /// Writes what the fragments decode to, and what it is to the attributes before it.
    fn decode(&mut self, fragments: &[&[u8]]) -> Result<(), TranscodeError> {
        let Some(scope) = self.scopes.last() else { return Ok(()) };
        let extended = scope.extended_offsets.clone().and_then(|range| self.data_set.get(range));
        let (table, fragments) =
            fragments.split_first().map_or((&[][..], &[][..]), |(table, rest)| (*table, rest));
        let offsets = extended.map_or(Offsets::Basic(table), Offsets::Extended);
        let frames: Vec<Cow<'_, [u8]>> = frames::of(fragments, offsets, scope.image.frames()?)?;
        let plan = Plan::new(self.from, &scope.image, &frames, self.decodable)?;
        self.decodable -= plan.length().min(self.decodable);

        self.amend(plan.photometric(), plan.interleaved());
        let at = self.out.len();
        let length = plan.length().next_multiple_of(2);
        self.header(tags::PIXEL_DATA, plan.vr(), u32::try_from(length).unwrap_or(UNDEFINED));
        let start = self.out.len();
        let exact = usize::try_from(plan.length()).unwrap_or(usize::MAX);
        self.out.resize(start.saturating_add(exact), 0);
        plan.decode(&frames, self.out.get_mut(start..).unwrap_or_default())?;
        if exact % 2 == 1 {
            self.out.push(0); // PS3.5 8.1.1
        }
        if self.form == Form::JpegLs && self.scopes.len() == 1 {
            return self.compress(at, start);
        }
        Ok(())
    }

    /// Replaces native Pixel Data, which is written last, by frames of JPEG-LS, each in one fragment, behind a Basic Offset
    /// Table (PS3.5 A.4). An icon stays native, as it may.
    fn compress(&mut self, at: usize, value_at: usize) -> Result<(), TranscodeError> {
        let pixels = self.out.split_off(value_at);
        self.out.truncate(at);
        let Some(scope) = self.scopes.last() else { return Ok(()) };
        let frames = compress::frames(&scope.image, &pixels)?;
        if scope.image.is_by_plane() {
            self.amend(None, true);
        }
        self.header(tags::PIXEL_DATA, VR::OB, UNDEFINED);
        let mut offset = 0_u32;
        let mut table = Vec::with_capacity(frames.len() * 4);
        for frame in &frames {
            table.extend_from_slice(&offset.to_le_bytes());
            // Nothing overflows: the frames are of at most MAX_DECODED bytes, and not even noise grows by much.
            offset = offset.saturating_add(8 + frame.len() as u32);
        }
        for fragment in [&table].into_iter().chain(&frames) {
            self.plain(ITEM, fragment.len() as u32);
            self.out.extend_from_slice(fragment);
        }
        self.plain(SEQUENCE_DELIMITER, 0);
        self.compressed = true;
        Ok(())
    }

    /// Writes Photometric Interpretation and Planar Configuration anew, the later of the two first.
    fn amend(&mut self, photometric: Option<&'static str>, interleaved: bool) {
        let Some(scope) = self.scopes.last_mut() else { return };
        scope.image.settle(photometric, interleaved);
        let (old_planar, old_photometric) = (scope.planar.clone(), scope.photometric.clone());
        let planar_at = scope.after_planar.unwrap_or(self.out.len());
        if interleaved {
            let element = self.written(tags::PLANAR_CONFIGURATION, VR::US, &[0, 0]);
            self.replace(old_planar.unwrap_or(planar_at..planar_at), element);
        }
        if let (Some(old), Some(text)) = (old_photometric, photometric) {
            let mut value = text.as_bytes().to_vec();
            if value.len() % 2 == 1 {
                value.push(b' ');
            }
            let element = self.written(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, &value);
            self.replace(old, element);
        }
    }

    fn written(&mut self, tag: Tag, vr: VR, value: &[u8]) -> Vec<u8> {
        let end = self.out.len();
        self.header(tag, vr, value.len() as u32);
        self.out.extend_from_slice(value);
        self.out.split_off(end)
    }

    fn replace(&mut self, old: Range<usize>, new: Vec<u8>) {
        let (shrunk, grown) = (old.len(), new.len());
        self.scope(|scope| {
            for position in &mut scope.us_or_ss {
                if *position >= old.end {
                    *position = *position - shrunk + grown;
                }
            }
        });
        self.out.splice(old, new);
    }

    /// Ends the innermost scope: what was US or SS is now known, here or further out.
    fn leave(&mut self) {
        let Some(Scope { image, us_or_ss, .. }) = self.scopes.pop() else { return };
        match (image.is_signed(), self.scopes.last_mut()) {
            (Some(true), _) => {
                for position in us_or_ss {
                    if let Some(letters) = self.out.get_mut(position..position + 2) {
                        letters.copy_from_slice(b"SS");
                    }
                }
            }
            (None, Some(outer)) => outer.us_or_ss.extend(us_or_ss),
            (Some(false), _) | (None, None) => {}
        }
    }

    fn scope(&mut self, change: impl FnOnce(&mut Scope)) {
        if let Some(scope) = self.scopes.last_mut() {
            change(scope);
        }
    }

    /// Notes that an element comes next.
    fn pass(&mut self, tag: Tag) {
        let at = self.out.len();
        self.scope(|scope| {
            if tag > tags::PLANAR_CONFIGURATION {
                scope.after_planar.get_or_insert(at);
            }
        });
    }

    fn header(&mut self, tag: Tag, vr: VR, length: u32) {
        if self.form == Form::Implicit {
            return self.plain(tag, length);
        }
        self.tag(tag);
        self.out.extend_from_slice(&vr.to_bytes());
        match u16::try_from(length) {
            Ok(length) if vr::is_short(vr) => self.out.extend_from_slice(&length.to_le_bytes()),
            _ => {
                self.out.extend_from_slice(&[0, 0]);
                self.out.extend_from_slice(&length.to_le_bytes());
            }
        }
    }

    /// Without a value representation.
    fn plain(&mut self, tag: Tag, length: u32) {
        self.tag(tag);
        self.out.extend_from_slice(&length.to_le_bytes());
    }

    fn tag(&mut self, tag: Tag) {
        self.out.extend_from_slice(&tag.group().to_le_bytes());
        self.out.extend_from_slice(&tag.element().to_le_bytes());
    }
}

impl Visitor for Rewrite<'_> {
    fn visit(&mut self, event: Event<'_>) {
        if self.failed.is_none() {
            self.failed = self.step(event).err();
        }
    }
}

/// Where a value is; nowhere, if that is out of reach.
fn range(offset: u64, length: u32) -> Range<usize> {
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    start..start.saturating_add(length as usize)
}
