//! From compressed frames to native Pixel Data (PS3.5 8.1, 8.2).
//!
//! Every claim is checked before memory is taken for it: sizes against the limit, then every frame's own header against
//! the attributes. Frames are then decoded in parallel, each into its place. Decoders see one frame and the attributes
//! that describe it, and a panic in one is an error of that frame.

use std::borrow::Cow;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};

use dicom_core::value::C;
use dicom_core::{Tag, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_encoding::adapters::{PixelDataObject, RawPixelData};
use dicom_encoding::transfer_syntax::TransferSyntaxIndex;
use dicom_encoding::{Codec as RegistryCodec, TransferSyntax as Syntax};
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;
use gantry_store::dicom::TransferSyntax;
use rayon::prelude::*;

use super::{TranscodeError, jpeg, jpeg_ls, jpeg2000, rle};

/// Bytes that a deflated byte can become.
const MAX_INFLATION: u64 = 1032;
/// The registry's decoders refuse frames of 16 MiB that are compressed by more than this, taking them for attacks. Here
/// sizes have been checked, and a blank image is an image: a stream is lengthened with zeros behind its end.
const REGISTRY_RATIO: usize = 64;

/// The attributes of an image that say what its pixel data are (PS3.3 C.7.6.3), as far as they have been seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    rows: Option<u16>,
    columns: Option<u16>,
    samples: Option<u16>,
    allocated: Option<u16>,
    stored: Option<u16>,
    planar: Option<u16>,
    representation: Option<u16>,
    frames: Option<String>,
    photometric: Option<String>,
}

impl Image {
    /// Takes note of an element, its value in little endian.
    pub(super) fn note(&mut self, tag: Tag, value: &[u8]) {
        let number = || value.first_chunk().copied().map(u16::from_le_bytes);
        // Of the 16 characters that CS has, and the 12 that IS has (PS3.5 6.2).
        let text = || {
            Some(
                String::from_utf8_lossy(value.get(..16).unwrap_or(value))
                    .trim_matches([' ', '\0'])
                    .to_owned(),
            )
        };
        match tag {
            tags::ROWS => self.rows = number(),
            tags::COLUMNS => self.columns = number(),
            tags::SAMPLES_PER_PIXEL => self.samples = number(),
            tags::BITS_ALLOCATED => self.allocated = number(),
            tags::BITS_STORED => self.stored = number(),
            tags::PLANAR_CONFIGURATION => self.planar = number(),
            tags::PIXEL_REPRESENTATION => self.representation = number(),
            tags::NUMBER_OF_FRAMES => self.frames = text(),
            tags::PHOTOMETRIC_INTERPRETATION => self.photometric = text(),
            _ => {}
        }
    }

    /// Whether pixels are signed, if that has been said.
    pub(super) fn is_signed(&self) -> Option<bool> {
        self.representation.map(|representation| representation == 1)
    }

    /// Takes note of what decoding makes of the colours.
    pub(super) fn settle(&mut self, photometric: Option<&str>, interleaved: bool) {
        if let Some(text) = photometric {
            self.photometric = Some(text.to_owned());
        }
        if interleaved {
            self.planar = Some(0);
        }
    }

    /// Bits Stored.
    pub(super) fn stored(&self) -> Option<u16> {
        self.stored
    }

    /// Whether the samples of each colour are together.
    pub(super) fn is_by_plane(&self) -> bool {
        self.planar == Some(1)
    }

    /// Whether a sample takes more than 16 bits.
    pub(super) fn is_longer_than_a_word(&self) -> bool {
        self.allocated.is_some_and(|allocated| allocated > 16)
    }

    /// How many frames there are; one, where it is not said (PS3.3 C.7.6.6).
    pub(super) fn frames(&self) -> Result<u32, TranscodeError> {
        let frames = match self.frames.as_deref() {
            None | Some("") => Some(1),
            Some(text) => text.trim_start_matches('+').parse().ok().filter(|frames| *frames > 0),
        };
        frames.ok_or(TranscodeError::Inconsistent {
            tag: tags::NUMBER_OF_FRAMES,
            why: "is not a number of frames",
        })
    }

    /// What a frame is, if that has been said.
    pub(super) fn shape(&self) -> Result<Shape, TranscodeError> {
        let number = |tag, value: Option<u16>| {
            let why = "is needed to decode the pixel data and is missing or 0";
            value.filter(|value| *value > 0).ok_or(TranscodeError::Inconsistent { tag, why })
        };
        Ok(Shape {
            rows: number(tags::ROWS, self.rows)?,
            columns: number(tags::COLUMNS, self.columns)?,
            samples: number(tags::SAMPLES_PER_PIXEL, self.samples)?,
            allocated: number(tags::BITS_ALLOCATED, self.allocated)?,
            signed: self.is_signed().unwrap_or(false),
            photometric: self.photometric.clone().unwrap_or_default(),
        })
    }
}

/// What one frame is, by the attributes.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) rows: u16,
    pub(super) columns: u16,
    pub(super) samples: u16,
    pub(super) allocated: u16,
    pub(super) signed: bool,
    pub(super) photometric: String,
}

impl Shape {
    /// How many bits a frame decodes to. Where it is native inside, two pixels of YBR_FULL_422 share their two
    /// chrominance samples (PS3.3 C.7.6.3.1.2); other decoders deliver every sample of every pixel.
    fn bits(&self, codec: Codec) -> u64 {
        let subsampled = codec.is_native() && self.photometric == "YBR_FULL_422";
        let samples = if subsampled { 2 } else { self.samples };
        // Four numbers of 16 bits are at most 64 bits.
        u64::from(self.rows)
            * u64::from(self.columns)
            * u64::from(samples)
            * u64::from(self.allocated)
    }

    /// How many bytes a sample takes by itself; single bits are packed later.
    pub(super) fn bytes_per_sample(&self) -> u16 {
        self.allocated.div_ceil(8)
    }
}

/// What decodes a transfer syntax.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Codec {
    Jpeg,
    Jpeg2000,
    /// Lossless and near-lossless (PS3.5 A.4.3).
    JpegLs,
    Rle,
    /// Deflated Image Frame Compression (PS3.5 A.4.13).
    Deflated,
    /// Encapsulated Uncompressed (PS3.5 A.4.11).
    Uncompressed,
}

impl Codec {
    fn of(syntax: &TransferSyntax) -> Option<Self> {
        Some(match syntax.uid() {
            uids::JPEG_BASELINE8_BIT
            | uids::JPEG_EXTENDED12_BIT
            | uids::JPEG_LOSSLESS
            | uids::JPEG_LOSSLESS_SV1 => Self::Jpeg,
            uids::JPEG2000_LOSSLESS
            | uids::JPEG2000
            | uids::HTJ2K_LOSSLESS
            | uids::HTJ2K_LOSSLESS_RPCL
            | uids::HTJ2K => Self::Jpeg2000,
            uids::JPEGLS_LOSSLESS | uids::JPEGLS_NEAR_LOSSLESS => Self::JpegLs,
            uids::RLE_LOSSLESS => Self::Rle,
            uids::DEFLATED_IMAGE_FRAME_COMPRESSION => Self::Deflated,
            uids::ENCAPSULATED_UNCOMPRESSED_EXPLICIT_VR_LITTLE_ENDIAN => Self::Uncompressed,
            _ => return None,
        })
    }

    /// Whether a frame is a native one, packed.
    fn is_native(self) -> bool {
        matches!(self, Self::Deflated | Self::Uncompressed)
    }
}

/// What a frame says of itself.
#[derive(Clone, Copy, Debug)]
enum Header {
    Jpeg(jpeg::Header),
    Jpeg2000(jpeg2000::Header),
    JpegLs(jpeg_ls::Header),
    Plain,
}

/// How pixel data will be decoded, once every frame has been found to be what the attributes say.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    syntax: &'a TransferSyntax,
    codec: Codec,
    shape: Shape,
    headers: Vec<Header>,
    frame_bits: u64,
    length: u64,
    photometric: Option<&'static str>,
}

impl<'a> Plan<'a> {
    /// Checks all frames; nothing is decoded yet. `limit` is what they may take.
    pub(super) fn new(
        syntax: &'a TransferSyntax,
        image: &Image,
        frames: &[Cow<'_, [u8]>],
        limit: u64,
    ) -> Result<Self, TranscodeError> {
        let codec = Codec::of(syntax).ok_or_else(|| TranscodeError::NoDecoder(syntax.clone()))?;
        let shape = image.shape()?;
        check(codec, &shape)?;
        let frame_bits = shape.bits(codec);
        let length = frame_bits.saturating_mul(frames.len() as u64).div_ceil(8);
        if length > limit {
            return Err(TranscodeError::TooLarge { bytes: length, limit });
        }
        let mut plan = Self {
            syntax,
            codec,
            shape,
            headers: Vec::new(),
            frame_bits,
            length,
            photometric: None,
        };
        plan.headers = frames
            .iter()
            .enumerate()
            .map(|(nth, frame)| plan.header(frame).map_err(|why| plan.refuse(nth, why)))
            .collect::<Result<_, _>>()?;
        plan.photometric = plan.delivered()?;
        Ok(plan)
    }

    /// How many bytes the frames decode to.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// OW for what is not bytes (PS3.5 A.2).
    pub(super) fn vr(&self) -> VR {
        if self.shape.allocated > 8 { VR::OW } else { VR::OB }
    }

    /// Photometric Interpretation of what is delivered, where it is another than before.
    pub(super) fn photometric(&self) -> Option<&'static str> {
        self.photometric
    }

    /// Whether Planar Configuration (0028,0006) has to be 0, colour by pixel, now.
    pub(super) fn interleaved(&self) -> bool {
        self.shape.samples > 1 && !self.codec.is_native()
    }

    fn refuse(&self, nth: usize, why: &'static str) -> TranscodeError {
        TranscodeError::Codec { syntax: self.syntax.clone(), frame: nth as u64 + 1, why }
    }

    fn header(&self, frame: &[u8]) -> Result<Header, &'static str> {
        const SIZE: &str = "its size is not that of the attributes";
        const DEPTH: &str = "its samples are longer than Bits Allocated";
        let shape = &self.shape;
        let frame_bytes = self.frame_bits.div_ceil(8);
        let may_be = match self.codec {
            Codec::Jpeg => {
                let header = jpeg::Header::read(frame)?;
                let size = (header.rows, header.columns, u16::from(header.components));
                if size != (shape.rows, shape.columns, shape.samples) {
                    return Err(SIZE);
                }
                if u16::from(header.precision) > shape.allocated {
                    return Err(DEPTH);
                }
                return Ok(Header::Jpeg(header));
            }
            Codec::Jpeg2000 => {
                let stream = jpeg2000::codestream(frame).ok_or("no JPEG 2000 codestream")?;
                let header = jpeg2000::Header::read(stream)?;
                let size = (header.rows, header.columns, header.components);
                if size != (shape.rows.into(), shape.columns.into(), shape.samples) {
                    return Err(SIZE);
                }
                if u16::from(header.precision) > shape.allocated {
                    return Err(DEPTH);
                }
                return Ok(Header::Jpeg2000(header));
            }
            Codec::JpegLs => {
                let header = jpeg_ls::Header::read(frame)?;
                let size = (header.rows, header.columns, u16::from(header.components));
                if size != (shape.rows, shape.columns, shape.samples) {
                    return Err(SIZE);
                }
                if u16::from(header.precision) > shape.allocated {
                    return Err(DEPTH);
                }
                return Ok(Header::JpegLs(header));
            }
            Codec::Rle => rle::may_hold(frame, frame_bytes),
            Codec::Deflated => (frame.len() as u64).saturating_mul(MAX_INFLATION) >= frame_bytes,
            // One byte may be padding.
            Codec::Uncompressed => {
                [frame_bytes, frame_bytes.next_multiple_of(2)].contains(&(frame.len() as u64))
            }
        };
        may_be.then_some(Header::Plain).ok_or(SIZE)
    }

    /// What the colours are that come out, where they are others than those that went in (PS3.5 8.2.1, 8.2.4): JPEG's
    /// decoder makes RGB of three components unless they are lossless, JPEG 2000's where they were transformed for
    /// compression. Of what stays luminance and chrominance, no decoder delivers less than all samples.
    fn delivered(&self) -> Result<Option<&'static str>, TranscodeError> {
        let lossless =
            |header: &Header| matches!(header, Header::Jpeg(jpeg::Header { lossless: true, .. }));
        let any = self.headers.iter().any(lossless);
        if any && !self.headers.iter().all(lossless) {
            return Err(self.refuse(0, "frames are of different JPEG processes"));
        }
        Ok(match self.shape.photometric.as_str() {
            _ if self.codec.is_native() || self.shape.samples == 1 => None,
            "YBR_ICT" | "YBR_RCT" => Some("RGB"),
            "RGB" => None,
            _ if self.codec == Codec::Jpeg && !any => Some("RGB"),
            "YBR_FULL_422" => Some("YBR_FULL"),
            _ => None,
        })
    }

    /// Decodes all frames into `pixels`, which is as long as [`Plan::length`] says.
    pub(super) fn decode(
        &self,
        frames: &[Cow<'_, [u8]>],
        pixels: &mut [u8],
    ) -> Result<(), TranscodeError> {
        if self.shape.allocated == 1 {
            return self.decode_bits(frames, pixels);
        }
        let frame_bytes = usize::try_from(self.frame_bits / 8).unwrap_or(usize::MAX).max(1);
        pixels
            .par_chunks_mut(frame_bytes)
            .zip(frames.par_iter().zip(&self.headers))
            .enumerate()
            .try_for_each(|(nth, (pixels, (frame, header)))| {
                self.decode_frame(frame, *header, pixels).map_err(|why| self.refuse(nth, why))
            })
    }

    /// Frames of single bits begin at a byte where they are compressed, and right behind another natively (PS3.5 8.1.1).
    fn decode_bits(
        &self,
        frames: &[Cow<'_, [u8]>],
        pixels: &mut [u8],
    ) -> Result<(), TranscodeError> {
        let bits = usize::try_from(self.frame_bits).unwrap_or(usize::MAX);
        let mut frame_pixels = vec![0; bits.div_ceil(8)];
        for (nth, (frame, header)) in frames.iter().zip(&self.headers).enumerate() {
            self.decode_frame(frame, *header, &mut frame_pixels)
                .map_err(|why| self.refuse(nth, why))?;
            if bits % 8 > 0
                && let Some(last) = frame_pixels.last_mut()
            {
                *last &= (1 << (bits % 8)) - 1;
            }
            let (start, shift) = (nth * bits / 8, nth * bits % 8);
            for (at, byte) in (start..).zip(&frame_pixels) {
                let shifted = u16::from(*byte) << shift;
                for (at, byte) in (at..).zip(shifted.to_le_bytes()) {
                    if let Some(place) = pixels.get_mut(at) {
                        *place |= byte;
                    }
                }
            }
        }
        Ok(())
    }

    fn decode_frame(
        &self,
        frame: &[u8],
        header: Header,
        pixels: &mut [u8],
    ) -> Result<(), &'static str> {
        let shape = &self.shape;
        match (self.codec, header) {
            (Codec::Rle, _) => {
                rle::decode(frame, shape.samples.into(), shape.bytes_per_sample().into(), pixels)
            }
            (Codec::Deflated, _) => inflate(frame, pixels),
            (Codec::Uncompressed, _) => {
                pixels.copy_from_slice(frame.get(..pixels.len()).ok_or("frame is too short")?);
                Ok(())
            }
            (_, Header::Jpeg(header)) => {
                let stream = jpeg::settle_colours(frame, header, shape)?;
                let samples = self.by_registry(&stream, header.bytes())?;
                fit(&samples, header.bytes(), shape.bytes_per_sample(), pixels)
            }
            (_, Header::Jpeg2000(header)) => {
                let stream = jpeg2000::codestream(frame).ok_or("no JPEG 2000 codestream")?;
                let samples = self.by_registry(stream, shape.bytes_per_sample())?;
                if shape.allocated == 1 {
                    pack(&samples, pixels);
                    return Ok(());
                }
                fit(&samples, shape.bytes_per_sample(), shape.bytes_per_sample(), pixels)?;
                jpeg2000::settle_signs(&header, shape.signed, shape.allocated, pixels);
                Ok(())
            }
            (_, Header::JpegLs(header)) if header.bytes() == shape.bytes_per_sample() => {
                jpeg_ls::decode(frame, header, pixels)
            }
            (_, Header::JpegLs(header)) => {
                let cells = pixels.len() / usize::from(shape.bytes_per_sample());
                let mut samples = vec![0; cells * usize::from(header.bytes())];
                jpeg_ls::decode(frame, header, &mut samples)?;
                fit(&samples, header.bytes(), shape.bytes_per_sample(), pixels)
            }
            (Codec::Jpeg | Codec::Jpeg2000 | Codec::JpegLs, Header::Plain) => Err("no header"),
        }
    }

    /// Decodes a frame with the decoder that the registry has for the transfer syntax, to so many bytes a sample.
    fn by_registry(&self, stream: &[u8], bytes: u16) -> Result<Vec<u8>, &'static str> {
        let syntax = TransferSyntaxRegistry.get(self.syntax.uid());
        let decoder =
            syntax.and_then(|syntax| syntax.pixel_data_reader()).ok_or("no decoder is built in")?;
        let expected = usize::from(self.shape.rows)
            * usize::from(self.shape.columns)
            * usize::from(self.shape.samples)
            * usize::from(bytes);
        let mut stream = Cow::Borrowed(stream);
        if stream.len() <= expected / REGISTRY_RATIO {
            stream.to_mut().resize(expected / REGISTRY_RATIO + 1, 0);
        }
        let frame = Frame {
            syntax: self.syntax,
            shape: &self.shape,
            allocated: bytes * 8,
            stream: &stream,
        };
        let mut pixels = Vec::new();
        // The vector is thrown away if the decoder panics.
        let decoded =
            catch_unwind(AssertUnwindSafe(|| decoder.decode_frame(&frame, 0, &mut pixels)));
        match decoded {
            Ok(Ok(())) if pixels.len() == expected => Ok(pixels),
            Ok(Ok(())) => Err("decoder delivered another length"),
            Ok(Err(_)) => Err("decoder refused it"),
            Err(_) => Err("decoder gave up"),
        }
    }
}

/// What a codec can be asked to decode at all.
fn check(codec: Codec, shape: &Shape) -> Result<(), TranscodeError> {
    let decodable = match codec {
        Codec::Jpeg | Codec::JpegLs => &[8, 16][..],
        Codec::Jpeg2000 => &[1, 8, 16],
        Codec::Rle | Codec::Deflated | Codec::Uncompressed => &[1, 8, 16, 32, 64],
    };
    if !decodable.contains(&shape.allocated) || shape.allocated == 1 && shape.samples > 1 {
        let why = "is not a number of bits that is decoded from this transfer syntax";
        return Err(TranscodeError::Inconsistent { tag: tags::BITS_ALLOCATED, why });
    }
    let by_component = matches!(codec, Codec::Jpeg | Codec::Jpeg2000 | Codec::JpegLs);
    if by_component && !matches!(shape.samples, 1 | 3) {
        let why = "is not 1 or 3";
        return Err(TranscodeError::Inconsistent { tag: tags::SAMPLES_PER_PIXEL, why });
    }
    // Retired, ambiguous or of video: their samples are not those that a still image's decoder expects.
    let strange = ["YBR_PARTIAL_422", "YBR_PARTIAL_420", "CMYK", "ARGB", "HSV"];
    // Neither has half the chrominance, and JPEG-LS has no transform of its own (PS3.5 8.2.2, 8.2.3).
    let foreign: &[&str] = match codec {
        Codec::Rle => &["YBR_FULL_422"],
        Codec::JpegLs => &["YBR_FULL_422", "YBR_ICT", "YBR_RCT"],
        _ => &[],
    };
    if strange.iter().chain(foreign).any(|strange| *strange == shape.photometric) {
        let why = "is not one that is decoded from this transfer syntax";
        return Err(TranscodeError::Inconsistent { tag: tags::PHOTOMETRIC_INTERPRETATION, why });
    }
    Ok(())
}

/// Copies samples into cells of another width, little endian.
fn fit(samples: &[u8], from: u16, to: u16, pixels: &mut [u8]) -> Result<(), &'static str> {
    let (from, to) = (usize::from(from), usize::from(to));
    if pixels.len().checked_mul(from) != samples.len().checked_mul(to) || from == 0 || to == 0 {
        return Err("decoder delivered another length");
    }
    if from == to {
        pixels.copy_from_slice(samples);
        return Ok(());
    }
    for (pixel, sample) in pixels.chunks_exact_mut(to).zip(samples.chunks_exact(from)) {
        pixel.iter_mut().zip(sample).for_each(|(to, from)| *to = *from);
    }
    Ok(())
}

/// Packs samples of 0 or 1, the first into the lowest bit (PS3.5 8.1.1).
fn pack(samples: &[u8], pixels: &mut [u8]) {
    for (pixel, samples) in pixels.iter_mut().zip(samples.chunks(8)) {
        *pixel = samples.iter().rev().fold(0, |bits, sample| bits << 1 | sample & 1);
    }
}

fn inflate(frame: &[u8], pixels: &mut [u8]) -> Result<(), &'static str> {
    let syntax = TransferSyntaxRegistry.get(uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN);
    let Some(RegistryCodec::Dataset(Some(adapter))) = syntax.map(Syntax::codec) else {
        return Err("no decoder is built in");
    };
    let mut inflated = adapter.adapt_reader(Box::new(frame));
    inflated.read_exact(pixels).map_err(|_| "deflated frame is damaged or too short")?;
    // One byte may be padding.
    match inflated.take(2).read_to_end(&mut Vec::new()) {
        Ok(0 | 1) => Ok(()),
        _ => Err("deflated frame is damaged or too long"),
    }
}

/// One frame, as the registry's decoders want to see an object.
struct Frame<'a> {
    syntax: &'a TransferSyntax,
    shape: &'a Shape,
    allocated: u16,
    stream: &'a [u8],
}

impl PixelDataObject for Frame<'_> {
    fn transfer_syntax_uid(&self) -> &str {
        self.syntax.uid()
    }

    fn rows(&self) -> Option<u16> {
        Some(self.shape.rows)
    }

    fn cols(&self) -> Option<u16> {
        Some(self.shape.columns)
    }

    fn samples_per_pixel(&self) -> Option<u16> {
        Some(self.shape.samples)
    }

    fn bits_allocated(&self) -> Option<u16> {
        Some(self.allocated)
    }

    fn bits_stored(&self) -> Option<u16> {
        Some(self.allocated)
    }

    fn photometric_interpretation(&self) -> Option<&str> {
        Some(&self.shape.photometric)
    }

    fn number_of_frames(&self) -> Option<u32> {
        Some(1)
    }

    fn number_of_fragments(&self) -> Option<u32> {
        Some(1)
    }

    fn fragment(&self, fragment: usize) -> Option<Cow<'_, [u8]>> {
        (fragment == 0).then_some(Cow::Borrowed(self.stream))
    }

    fn offset_table(&self) -> Option<Cow<'_, [u32]>> {
        None
    }

    fn raw_pixel_data(&self) -> Option<RawPixelData> {
        Some(RawPixelData {
            fragments: C::from_vec(vec![self.stream.to_vec()]),
            offset_table: C::new(),
        })
    }
}
