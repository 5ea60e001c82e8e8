//! What is printed: data on standard output, as text or as JSON; everything else on standard error.
//!
//! Colours, bars and questions only where a terminal is, and no colour where `NO_COLOR` is set. A closed pipe ends the
//! command quietly, and as a success.

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};

use comfy_table::{Cell, ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::exit::Failure;

/// How this run prints.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
    quiet: bool,
    /// Standard error is a terminal.
    people_watch: bool,
    /// Standard output may have colours.
    colour: bool,
}

impl Output {
    pub(crate) fn new(json: bool, quiet: bool) -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            json,
            quiet,
            people_watch: io::stderr().is_terminal(),
            colour: io::stdout().is_terminal() && !no_color,
        }
    }

    /// Whether data is printed as JSON.
    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// Whether standard output may have colours.
    pub(crate) fn colour_on_stdout(self) -> bool {
        self.colour
    }

    /// Whether standard error may have colours.
    pub(crate) fn colour_on_stderr(self) -> bool {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        self.people_watch && !no_color
    }

    /// Whether a person can answer a question.
    pub(crate) fn can_ask(self) -> bool {
        self.people_watch && io::stdin().is_terminal() && !self.json
    }

    /// A line of data.
    #[expect(clippy::unused_self, reason = "nothing is printed but through the output of this run")]
    pub(crate) fn line(self, line: impl Display) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        writeln!(out, "{line}")
            .and_then(|()| out.flush())
            .map_err(|error| Failure::of_output(&error))
    }

    /// One JSON value on a line of its own.
    pub(crate) fn json(self, value: &impl Serialize) -> Result<(), Failure> {
        let line =
            serde_json::to_string(value).map_err(|error| Failure::of_output(&error.into()))?;
        self.line(line)
    }

    /// A message for people, on standard error.
    pub(crate) fn say(self, message: impl Display) {
        if !self.quiet {
            // Nobody is left to hear that standard error is closed.
            let _ = writeln!(io::stderr().lock(), "{message}");
        }
    }

    /// What went wrong, on standard error; even when quiet.
    pub(crate) fn complain(self, failure: &Failure) {
        let Some(message) = &failure.message else { return };
        let mut err = io::stderr().lock();
        let error = if self.colour_on_stderr() { "\x1b[31merror:\x1b[0m" } else { "error:" };
        let _ = writeln!(err, "{error} {message}");
        if let Some(hint) = &failure.hint {
            let _ = writeln!(err, "hint: {hint}");
        }
    }

    /// Emphasised on a terminal.
    pub(crate) fn paint(self, paint: Paint, text: &str) -> String {
        if self.colour { format!("\x1b[{}m{text}\x1b[0m", paint as u8) } else { text.to_owned() }
    }

    /// A progress bar of so many steps; hidden where nobody watches.
    pub(crate) fn bar(self, length: u64, label: &str) -> ProgressBar {
        let bar = unseen_bar(length, label);
        bar.set_draw_target(self.progress_target());
        bar
    }

    pub(crate) fn progress_target(self) -> ProgressDrawTarget {
        if self.people_watch && !self.quiet && !self.json {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        }
    }

    /// Aligned columns without lines.
    pub(crate) fn table(self, header: &[&str], rows: Vec<Vec<String>>) -> Result<(), Failure> {
        // Into a pipe nothing is wrapped: what reads it takes lines.
        let width = io::stdout().is_terminal().then(|| Table::new().width()).flatten();
        self.line(table(header, rows, width))
    }
}

/// A progress bar that is not shown yet, so that whoever shows several can place it.
pub(crate) fn unseen_bar(length: u64, label: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::hidden());
    let style = ProgressStyle::with_template("{prefix} {bar:36} {pos:>5} of {len}  {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━╸─"));
    bar.set_prefix(label.to_owned());
    bar
}

/// How a text is emphasised; the numbers are those of ECMA-48.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Paint {
    Bold = 1,
    Dim = 2,
    Red = 31,
    Green = 32,
    Yellow = 33,
}

fn table(header: &[&str], rows: Vec<Vec<String>>, width: Option<u16>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_content_arrangement(match width {
        Some(_) => ContentArrangement::Dynamic,
        None => ContentArrangement::Disabled,
    });
    if let Some(width) = width {
        table.set_width(width);
    }
    table.set_header(header.iter().map(Cell::new));
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let shown = table.to_string();
    shown.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other_and_lines_end_with_their_text() {
        let rows = vec![
            vec!["sending".to_owned(), "royal-infirmary".to_owned()],
            vec!["sent".to_owned(), "york".to_owned()],
        ];

        let shown = table(&["STATE", "TO"], rows, None);

        assert_eq!(shown, "STATE    TO\nsending  royal-infirmary\nsent     york");
    }
}
