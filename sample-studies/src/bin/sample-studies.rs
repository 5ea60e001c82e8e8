//! Writes the sample studies as files.

use std::error::Error;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use sample_studies::{Study, malformed};

const HELP: &str = "\
Writes DICOM studies that were built in code; nobody in them exists.

Usage: sample-studies DIR [--study NAME]... [--seed N]
       sample-studies --list

  DIR            folder to write to, created if missing; one sub folder per study
  --study NAME   only this study; may be repeated (default: all that --list marks with *)
  --seed N       another patient, other UIDs; the same seed gives the same bytes (default: 1)
  --list         print the names of the studies and what they are
  --help         print this
";

/// Writes one kind of study into a folder and returns the number of files.
type Write = fn(seed: u64, folder: &Path) -> Result<usize, Box<dyn Error>>;

struct Entry {
    name: &'static str,
    about: &'static str,
    by_default: bool,
    write: Write,
}

const ENTRIES: &[Entry] = &[
    entry(
        "head-ct",
        "CT of the head with a subdural collection, 271 images, 142 MB",
        |seed, folder| write(&sample_studies::head_ct(seed), folder),
    ),
    entry("mr", "MR of the brain, 12 images", |seed, folder| {
        write(&sample_studies::mr(seed), folder)
    }),
    entry("chest-cr", "chest radiograph", |seed, folder| {
        write(&sample_studies::chest_cr(seed), folder)
    }),
    entry(
        "ultrasound",
        "ultrasound in colour with the patient's name in its pixels",
        |seed, folder| write(&sample_studies::ultrasound(seed), folder),
    ),
    entry("structured-report", "report on the head CT", |seed, folder| {
        write(&sample_studies::structured_report(seed), folder)
    }),
    entry("encapsulated-pdf", "letter as a PDF", |seed, folder| {
        write(&sample_studies::encapsulated_pdf(seed), folder)
    }),
    entry("multi-frame", "three frames in one instance", |seed, folder| {
        write(&sample_studies::multi_frame(seed, 3, 64, 64).build()?, folder)
    }),
    entry("small-objects", "ten images of 4 kB", |seed, folder| {
        write(&sample_studies::small_objects(seed, 10), folder)
    }),
    entry(
        "character-sets",
        "names in seven scripts and encodings, a study each",
        |seed, folder| {
            sample_studies::character_sets(seed).iter().map(|study| write(study, folder)).sum()
        },
    ),
    Entry {
        name: "multi-frame-1500-mb",
        about: "one instance of 1.5 GB",
        by_default: false,
        write: |seed, folder| {
            let folder = folder.join("multi-frame-1500-mb");
            fs::create_dir_all(&folder)?;
            let mut file = BufWriter::new(File::create(folder.join("ot-001-0001.dcm"))?);
            sample_studies::multi_frame(seed, 750, 1024, 1000).write_part10(&mut file)?;
            file.flush()?;
            Ok(1)
        },
    },
    Entry {
        name: "malformed",
        about: "data sets with something wrong, a file each; 12 MB",
        by_default: false,
        write: |seed, folder| {
            let folder = folder.join("malformed");
            fs::create_dir_all(&folder)?;
            let all = malformed::all(seed);
            for one in &all {
                fs::write(folder.join(format!("{}.dcm", one.name)), one.part10())?;
            }
            Ok(all.len())
        },
    },
];

const fn entry(name: &'static str, about: &'static str, write: Write) -> Entry {
    Entry { name, about, by_default: true, write }
}

fn write(study: &Study, folder: &Path) -> Result<usize, Box<dyn Error>> {
    Ok(study.write_to(folder)?.len())
}

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(mistake) => {
            eprintln!("error: {mistake}\nhint: sample-studies --help");
            return ExitCode::from(2);
        }
    };
    match arguments {
        Arguments::Help => print!("{HELP}"),
        Arguments::List => {
            for Entry { name, about, by_default, .. } in ENTRIES {
                println!("{} {name:20} {about}", if *by_default { '*' } else { ' ' });
            }
        }
        Arguments::Write { folder, entries, seed } => {
            for entry in entries {
                match (entry.write)(seed, &folder) {
                    Ok(files) => eprintln!("{}: {files} files", entry.name),
                    Err(error) => {
                        eprintln!(
                            "error: cannot write {} to {}: {error}",
                            entry.name,
                            folder.display()
                        );
                        return ExitCode::FAILURE;
                    }
                }
            }
        }
    }
    ExitCode::SUCCESS
}

enum Arguments {
    Help,
    List,
    Write { folder: PathBuf, entries: Vec<&'static Entry>, seed: u64 },
}

impl Arguments {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut folder = None;
        let mut entries = Vec::new();
        let mut seed = 1;
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--help" | "-h" => return Ok(Self::Help),
                "--list" => return Ok(Self::List),
                "--seed" => {
                    let text = value()?;
                    seed = text
                        .parse()
                        .map_err(|_| format!("--seed {text:?} is not a whole number"))?;
                }
                "--study" => {
                    let name = value()?;
                    let entry = ENTRIES.iter().find(|entry| entry.name == name);
                    entries.push(
                        entry.ok_or(format!("there is no study {name:?}; --list names all"))?,
                    );
                }
                option if option.starts_with('-') => {
                    return Err(format!("unknown option {option}"));
                }
                path if folder.is_none() => folder = Some(PathBuf::from(path)),
                path => return Err(format!("{path:?} is one folder too many")),
            }
        }
        if entries.is_empty() {
            entries = ENTRIES.iter().filter(|entry| entry.by_default).collect();
        }
        let folder = folder.ok_or("the folder to write to is missing")?;
        Ok(Self::Write { folder, entries, seed })
    }
}
