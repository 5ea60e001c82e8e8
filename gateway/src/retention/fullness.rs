//! How full the object store is, against its high-water mark.

use std::path::PathBuf;

use gantry_store::index::{Index, IndexError};
use serde::Serialize;

use crate::config::{Config, HighWater};

/// The mark, and what it is about.
#[derive(Clone, Debug)]
pub struct Mark {
    high_water: HighWater,
    /// Where objects are, if that is a folder: of it a share can be asked for.
    folder: PathBuf,
    index: Index,
}

/// What is used, and where the mark is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct Fullness {
    /// Bytes: of the disk, whoever uses them, where the mark is a share of it; else of the data sets that are kept.
    pub used_bytes: u64,
    /// Where the mark is.
    pub mark_bytes: u64,
    /// Files of the disk, where the mark is a share of it and its file system counts them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used_files: Option<u64>,
    /// Where the mark is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mark_files: Option<u64>,
}

impl Fullness {
    /// Whether the mark is passed, by bytes or by files.
    pub fn is_above(&self) -> bool {
        self.bytes_above() > 0 || self.files_above() > 0
    }

    /// Bytes that are beyond the mark.
    pub fn bytes_above(&self) -> u64 {
        self.used_bytes.saturating_sub(self.mark_bytes)
    }

    /// Files that are beyond the mark.
    pub fn files_above(&self) -> u64 {
        self.used_files.zip(self.mark_files).map_or(0, |(used, mark)| used.saturating_sub(mark))
    }

    /// Bytes that are left up to the mark.
    pub fn room(&self) -> u64 {
        self.mark_bytes.saturating_sub(self.used_bytes)
    }
}

impl Mark {
    /// That of a configuration; `None` without one.
    pub fn of(config: &Config, index: &Index) -> Option<Self> {
        let high_water = config.store_high_water?;
        Some(Self { high_water, folder: config.node.objects_dir(), index: index.clone() })
    }

    /// Looks; `None` if the disk does not say.
    pub async fn measure(&self) -> Result<Option<Fullness>, IndexError> {
        match self.high_water {
            HighWater::Bytes(mark_bytes) => Ok(Some(Fullness {
                used_bytes: self.index.totals().await?.bytes,
                mark_bytes,
                used_files: None,
                mark_files: None,
            })),
            HighWater::Percent(percent) => {
                let folder = self.folder.clone();
                let disk = tokio::task::spawn_blocking(move || rustix::fs::statvfs(&folder)).await;
                let Ok(Ok(disk)) = disk else { return Ok(None) };
                let share = |all: u64| all / 100 * u64::from(percent);
                let counts_files = disk.f_files > 0;
                Ok(Some(Fullness {
                    used_bytes: disk.f_blocks.saturating_sub(disk.f_bfree) * disk.f_frsize,
                    mark_bytes: share(disk.f_blocks * disk.f_frsize),
                    used_files: counts_files.then(|| disk.f_files.saturating_sub(disk.f_ffree)),
                    mark_files: counts_files.then(|| share(disk.f_files)),
                }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_or_files_pass_the_mark() {
        let at = |used_bytes, used_files| Fullness {
            used_bytes,
            mark_bytes: 90,
            used_files,
            mark_files: used_files.map(|_| 9),
        };
        let cases = [
            (at(90, None), false),
            (at(91, None), true),
            (at(1, Some(9)), false),
            (at(1, Some(10)), true),
        ];
        for (fullness, above) in cases {
            assert_eq!(fullness.is_above(), above, "{fullness:?}");
        }
        assert_eq!((at(91, None).room(), at(80, None).room()), (0, 10));
        assert_eq!((at(95, Some(10)).bytes_above(), at(95, Some(11)).files_above()), (5, 2));
    }
}
