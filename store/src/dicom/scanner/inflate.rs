//! A deflated data set (PS3.5 A.5), inflated a buffer at a time.

use flate2::{Crc, Decompress, FlushDecompress, Status};

use super::Budget;
use super::error::ScanError;
use super::visitor::Visitor;
use super::walk::Walk;

/// Inflated bytes that are held at once.
const BUFFER: usize = 32 * 1024;

/// What may follow the stream: one NUL that makes the length even (PS3.5 A.5), and before it the checksum and length that
/// end a gzip file (RFC 1952 2.3.1), which some writers leave there; they must be right.
const MAX_TAIL: usize = 9;

pub(super) struct Inflate {
    stream: Decompress,
    buffer: Vec<u8>,
    ended: bool,
    /// What follows the stream, and what it may be checked with.
    tail: Vec<u8>,
    crc: Crc,
    budget: Budget,
}

impl Inflate {
    pub(super) fn new(budget: &Budget) -> Self {
        Self {
            stream: Decompress::new(false),
            buffer: vec![0; BUFFER],
            ended: false,
            tail: Vec::new(),
            crc: Crc::new(),
            budget: *budget,
        }
    }

    /// Inflates and walks on. Data that were inflated before damage shows are walked first, so that the error does not
    /// depend on chunks. One verdict may, by the few bytes that an inflater reads ahead: a ratio that is just at its limit.
    pub(super) fn feed<V: Visitor>(
        &mut self,
        mut input: &[u8],
        walk: &mut Walk<V>,
    ) -> Result<(), ScanError> {
        while !self.ended {
            let (before_in, before_out) = (self.stream.total_in(), self.stream.total_out());
            let status = self.stream.decompress(input, &mut self.buffer, FlushDecompress::None);
            let consumed = (self.stream.total_in() - before_in) as usize;
            let produced = (self.stream.total_out() - before_out) as usize;
            input = input.get(consumed..).unwrap_or_default();

            let room = usize::try_from(self.budget.inflated.saturating_sub(before_out))
                .unwrap_or(usize::MAX);
            let inflated = self.buffer.get(..produced.min(room)).unwrap_or_default();
            self.crc.update(inflated);
            walk.feed(inflated)?;
            self.within_budget()?;
            match status {
                Err(_) => return Err(ScanError::Damaged { inflated: self.stream.total_out() }),
                Ok(Status::StreamEnd) => self.ended = true,
                Ok(Status::Ok | Status::BufError) if consumed == 0 && produced == 0 => {
                    return Ok(());
                }
                Ok(Status::Ok | Status::BufError) => {}
            }
        }
        if input.len() > MAX_TAIL - self.tail.len() {
            return Err(ScanError::AfterDeflate);
        }
        self.tail.extend_from_slice(input);
        Ok(())
    }

    fn within_budget(&self) -> Result<(), ScanError> {
        let (received, inflated) = (self.stream.total_in(), self.stream.total_out());
        let Budget { inflate_ratio, inflate_free, inflated: limit, .. } = self.budget;
        if inflated > limit {
            return Err(ScanError::TooMuchInflated { limit });
        }
        if inflated > inflate_free && inflated > received.saturating_mul(inflate_ratio.into()) {
            return Err(ScanError::InflateRatio { limit: inflate_ratio });
        }
        Ok(())
    }

    /// Whether the stream has ended, as it must before the data set may.
    pub(super) fn finish(&self) -> Result<(), ScanError> {
        match self.stream.total_in() {
            0 => return Err(ScanError::Empty),
            _ if self.ended => {}
            _ => return Err(ScanError::DeflateCut { inflated: self.stream.total_out() }),
        }
        let trailer = [self.crc.sum().to_le_bytes(), self.crc.amount().to_le_bytes()];
        let trailed = self.tail.strip_prefix(trailer.as_flattened()).unwrap_or(&self.tail);
        if matches!(trailed, [] | [0]) { Ok(()) } else { Err(ScanError::AfterDeflate) }
    }
}
