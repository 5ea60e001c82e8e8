//! Reads what is left on the pixels, with Debian's `tesseract` where it is installed.
//!
//! A detector and a verifier, never a cleaner: it misses small and coloured text, and sees words in anatomy. So what it finds
//! counts and what it does not find proves nothing; and where it is absent, or fails, the result is
//! [`Examination::NotChecked`], which is not "passed". The program is a process of its own, with a limit for its time and its
//! output, and is given pixels and nothing else. Words that it reads are patients' data and print nowhere; a [`Finding`]
//! says what was found and where, not the text.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use dicom_core::Tag;
use gantry_store::dicom::Phi;
use thiserror::Error;

use super::blacken::Area;
use super::image::{Image, ImageError};
use crate::data_set::DataSet;

mod compare;
mod picture;
mod process;

#[cfg(test)]
mod tests;

pub use self::picture::Picture;

/// The most that one frame may take. Tesseract needs about a second for a frame of 640 x 480 on one core.
const LIMIT: Duration = Duration::from_mins(1);
/// The most that it may say about one frame.
const MAX_OUTPUT: u64 = 8 << 20;

/// The program, which was found and answers.
#[derive(Clone, Debug)]
pub struct Ocr {
    program: PathBuf,
    version: String,
    limit: Duration,
}

/// Why a frame was not read. Holds no text that was.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OcrError {
    /// It did not start, or the connection to it broke.
    #[error("tesseract cannot be run")]
    Run(#[from] std::io::Error),
    /// It was ended.
    #[error("tesseract took more than {} s", .0.as_secs())]
    Slow(Duration),
    /// It was ended.
    #[error("tesseract said more than {MAX_OUTPUT} bytes")]
    Verbose,
    /// It says that it failed.
    #[error("tesseract failed")]
    Failed,
    /// There is no picture to show it.
    #[error("frame cannot be made a picture")]
    Image(#[from] ImageError),
    /// There is no picture to show it: these colours are not understood.
    #[error("photometric interpretation is not one that a picture is made of")]
    Photometric,
    /// A picture of that size would take too much memory and time.
    #[error("frame has more pixels than are searched for text")]
    TooLarge,
}

/// A word that was read.
#[derive(Clone, Debug)]
pub struct Word {
    /// What it says.
    pub text: Phi<String>,
    /// How sure the program is, from 0 to 100.
    pub confidence: f32,
    /// Where it is in the frame.
    pub area: Area,
    /// Words of the same line have the same number, in reading order.
    pub line: u32,
}

/// What a word, or several in a line, look like.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Found {
    /// The identifier with this index in what was looked for, or a part of it.
    Identifier(usize),
    /// A date.
    Date,
    /// Ten digits, of which the last is the check digit of an NHS number.
    NhsNumber,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Identifier(_) => "an identifier of this instance",
            Self::Date => "a date",
            Self::NhsNumber => "an NHS number",
        })
    }
}

/// Something that should not be legible.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Finding {
    /// What it looks like.
    pub found: Found,
    /// Where it is in the frame.
    pub area: Area,
    /// How sure the program is of the words, from 0 to 100; the least of several.
    pub confidence: f32,
}

/// What came of looking at an instance.
#[derive(Debug)]
pub enum Examination {
    /// Nothing can be said.
    NotChecked(NotChecked),
    /// Some frames were read.
    Checked {
        /// Which, from 0.
        frames: Vec<u32>,
        /// How many words there were.
        words: usize,
        /// Those that should not be legible, with their frame; none proves nothing.
        findings: Vec<(u32, Finding)>,
    },
}

/// Why nothing can be said.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NotChecked {
    /// The program, or what it needs for English, is not there.
    #[error("tesseract is not installed")]
    NotInstalled,
    /// A frame could not be read.
    #[error("frame {} could not be searched for text", .frame + 1)]
    Frame {
        /// Which, from 0.
        frame: u32,
        /// Why.
        source: OcrError,
    },
    /// The caller had no pixels for a frame.
    #[error("frame {} was not there to be searched for text", .0 + 1)]
    Absent(u32),
}

impl Ocr {
    /// The program on `PATH`, if it is there and has what it needs to read English.
    pub fn find() -> Option<Self> {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path)
            .map(|folder| folder.join("tesseract"))
            .filter(|program| program.is_absolute() && program.is_file())
            .find_map(Self::at)
    }

    /// The program at this place.
    pub fn at(program: PathBuf) -> Option<Self> {
        let ask = |argument| {
            process::run(&program, &[argument], Vec::new(), LIMIT, MAX_OUTPUT)
                .ok()
                .map(|said| String::from_utf8_lossy(&said).into_owned())
        };
        let said = ask("--version")?;
        let version = said.split_whitespace().nth(1)?;
        let version: String = version.chars().filter(char::is_ascii_graphic).take(32).collect();
        ask("--list-langs")?.lines().any(|line| line.trim() == "eng").then_some(())?;
        Some(Self { program, version, limit: LIMIT })
    }

    /// What it calls itself, for reports.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// With another limit for one frame; 60 seconds is the default.
    #[must_use]
    pub fn with_limit(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// Reads a picture. Blocks for as long as that takes.
    pub fn read(&self, picture: &Picture) -> Result<Vec<Word>, OcrError> {
        let (pgm, scale) = picture.pgm();
        // Sparse text, in any order; a line for each word.
        let arguments = ["stdin", "stdout", "-l", "eng", "--psm", "11", "tsv"];
        let said = process::run(&self.program, &arguments, pgm, self.limit, MAX_OUTPUT)?;
        Ok(words(&String::from_utf8_lossy(&said), scale))
    }

    /// What of these words should not be legible: identifiers of the instance (names, numbers, dates as they were in the
    /// header), whatever looks like a date, and whatever is an NHS number. Tolerates what is easily misread.
    pub fn check(words: &[Word], needles: &[String]) -> Vec<Finding> {
        compare::check(words, needles)
    }

    /// Reads frames of an instance and checks them. `frame` gives the bytes of [`Image::frame_bytes`] of a frame. The first
    /// that cannot be read ends it: what was not looked at was not checked.
    pub fn examine(
        ocr: Option<&Self>,
        data_set: &DataSet,
        image: &Image,
        at_most: u32,
        needles: &[String],
        mut frame: impl FnMut(u32) -> Option<Vec<u8>>,
    ) -> Examination {
        let Some(ocr) = ocr else { return Examination::NotChecked(NotChecked::NotInstalled) };
        let frames = frames_to_read(image, at_most);
        let (mut words, mut findings) = (0, Vec::new());
        for nth in &frames {
            let Some(bytes) = frame(*nth) else {
                return Examination::NotChecked(NotChecked::Absent(*nth));
            };
            let read =
                Picture::of(data_set, image, *nth, &bytes).and_then(|picture| ocr.read(&picture));
            match read {
                Ok(read) => {
                    words += read.len();
                    findings
                        .extend(Self::check(&read, needles).into_iter().map(|found| (*nth, found)));
                }
                Err(source) => {
                    return Examination::NotChecked(NotChecked::Frame { frame: *nth, source });
                }
            }
        }
        Examination::Checked { frames, words, findings }
    }
}

/// Frames to look at, from 0: of three the first, the middle one and the last, of more as many between them; at least one.
pub fn frames_to_read(image: &Image, at_most: u32) -> Vec<u32> {
    let last = u64::from(image.frames.saturating_sub(1));
    let count = u64::from(at_most).clamp(1, last + 1);
    let mut frames: Vec<u32> =
        (0..count).map(|nth| (nth * last / (count - 1).max(1)) as u32).collect();
    frames.dedup();
    frames
}

/// Words of tesseract's table: level, page, block, paragraph, line, word, left, top, width, height, confidence, text.
fn words(table: &str, scale: u32) -> Vec<Word> {
    let mut lines: Vec<[u32; 4]> = Vec::new();
    let row = |row: &str| {
        let mut columns = row.splitn(12, '\t');
        let mut number = || columns.next()?.trim().parse::<u32>().ok();
        let level = number()?;
        let line = [number()?, number()?, number()?, number()?];
        let (_, x, y) = (number()?, number()?, number()?);
        let (width, height) = (number()?, number()?);
        let confidence = columns.next()?.trim().parse::<f32>().ok()?;
        let text = columns.next()?.trim();
        if level != 5 || text.is_empty() {
            return None;
        }
        if lines.last() != Some(&line) {
            lines.push(line);
        }
        let scale = scale.max(1);
        let (right, bottom) = (x.saturating_add(width), y.saturating_add(height));
        let (left, top) = (x / scale, y / scale);
        let area = Area {
            x: left,
            y: top,
            width: right.div_ceil(scale) - left,
            height: bottom.div_ceil(scale) - top,
        };
        let line = u32::try_from(lines.len()).unwrap_or(u32::MAX);
        Some(Word { text: Phi::new(text.to_owned()), confidence, area, line })
    };
    table.lines().filter_map(row).collect()
}

/// Names the pixel data for errors about their bytes.
const PIXELS: Tag = dicom_dictionary_std::tags::PIXEL_DATA;
