//! What benches note and print: a figure for each contender of a job and round, medians over the rounds, and whether they
//! are what they should be.

use std::collections::BTreeMap;
use std::fs::File;

/// What each contender of a job reached, a value a round.
#[derive(Debug, Default)]
pub struct Board(BTreeMap<&'static str, BTreeMap<&'static str, Vec<f64>>>);

impl Board {
    /// Notes what a contender reached, and says so.
    pub fn note(&mut self, job: &'static str, contender: &'static str, value: f64) {
        eprintln!("  {job}: {contender} {value:.1}");
        self.0.entry(job).or_default().entry(contender).or_default().push(value);
    }

    /// The middle of what a contender reached.
    pub fn median(&self, job: &str, contender: &str) -> Option<f64> {
        let mut values = self.0.get(job)?.get(contender)?.clone();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }

    /// Prints medians, with what they should be.
    pub fn print(&self, targets: &[Target]) {
        for (job, contenders) in &self.0 {
            println!("\n{job}");
            for (contender, values) in contenders {
                let (least, most) =
                    values.iter().fold((f64::MAX, f64::MIN), |(a, b), v| (a.min(*v), b.max(*v)));
                let median = self.median(job, contender).unwrap_or_default();
                println!("  {contender:<44} {median:>9.1}   [{least:.1} to {most:.1}]");
            }
            for target in targets.iter().filter(|target| target.job == *job) {
                target.print(self);
            }
        }
    }
}

/// Ours divided by theirs, and what it should be at least; or ours alone, and what it should be at most.
#[derive(Debug)]
pub struct Target {
    /// The job.
    pub job: &'static str,
    /// The contender that is ours.
    pub ours: &'static str,
    /// What it should reach.
    pub against: Against,
}

/// A bound.
#[derive(Debug)]
pub enum Against {
    /// This part of what another contender reaches.
    AtLeast(f64, &'static str),
    /// This figure.
    AtMost(f64),
}

impl Target {
    fn print(&self, board: &Board) {
        let Some(ours) = board.median(self.job, self.ours) else { return };
        let verdict = |holds: bool| if holds { "reached" } else { "MISSED" };
        match self.against {
            Against::AtLeast(factor, theirs) => {
                if let Some(theirs_median) = board.median(self.job, theirs) {
                    let ratio = ours / theirs_median;
                    println!(
                        "  {} / {theirs}: {ratio:.2}, target {factor}: {}",
                        self.ours,
                        verdict(ratio >= factor)
                    );
                }
            }
            Against::AtMost(most) => {
                println!(
                    "  {}: {ours:.1}, target at most {most}: {}",
                    self.ours,
                    verdict(ours <= most)
                );
            }
        }
    }
}

/// Where everything in temporary folders goes: a folder whose folders ext4 spreads over the disk. In one place it walks,
/// with each new file, past all inodes that were deleted there in the last minutes, and so makes each contender pay for
/// what those before it left behind.
pub fn spread_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let spread = File::open(folder.path()).and_then(|folder| {
        let flags = rustix::fs::ioctl_getflags(&folder)?;
        Ok(rustix::fs::ioctl_setflags(&folder, flags | rustix::fs::IFlags::TOPDIR)?)
    });
    if let Err(error) = spread {
        eprintln!(
            "{} cannot be spread, so later rounds are slower: {error}",
            folder.path().display()
        );
    }
    tempfile::env::override_temp_dir(folder.path()).expect("nothing was made before");
    folder
}

/// What one contender left to be written is not paid for by the next.
pub fn settle_the_disk() {
    rustix::fs::sync();
}
