//! What is wrong with a configuration, shown where it is wrong: for people with the line itself, for machines as JSON.

use std::fmt::{self, Write as _};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError,
    MietteSpanContents, SourceCode, SourceSpan, SpanContents,
};
use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

/// How findings are shown to people.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Style {
    /// With colours: for a terminal, unless `NO_COLOR` is set.
    Colour,
    /// Without: for files and pipes.
    #[default]
    Plain,
}

/// Whether the node can run in spite of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// It cannot.
    Problem,
    /// It can; somebody should look at it.
    Warning,
}

/// One thing found: what, where, and what to do.
///
/// Serialises as `{severity, file, line, column, text, message, label, help}`, where `text` is the offending text, and
/// what has no place in a file has null there.
#[derive(Clone, Debug)]
pub struct Finding {
    severity: Severity,
    message: String,
    place: Option<Place>,
    label: Option<String>,
    help: Option<String>,
}

/// A finding that does not stop the node.
pub type Warning = Finding;

/// A text of a configuration file, and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) source: Arc<SourceFile>,
    pub(super) span: Range<usize>,
}

impl Place {
    /// The span of what concerns a file as a whole; no line is shown for it.
    pub(super) const WHOLE: Range<usize> = 0..0;

    fn of_a_line(&self) -> Option<&Self> {
        (self.span != Self::WHOLE).then_some(self)
    }

    /// `gantry.toml:12`, to point there from elsewhere.
    pub(super) fn file_and_line(&self) -> String {
        format!("{}:{}", self.source.name, self.source.line_start(self.span.start).1 + 1)
    }
}

/// A configuration file as it is shown.
#[derive(Debug)]
pub(super) struct SourceFile {
    /// Which of the files it is: findings are in the order of these.
    number: usize,
    name: String,
    text: String,
}

impl SourceFile {
    /// Passwords in addresses (`scheme://user:password@host`) are shown as asterisks, byte for byte, so that every
    /// place stays where it is.
    pub(super) fn new(number: usize, path: &Path, text: &str) -> Self {
        Self { number, name: path.display().to_string(), text: without_passwords(text) }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn get(&self, span: Range<usize>) -> &str {
        self.text.get(span).unwrap_or_default()
    }

    /// Where the line begins in which `offset` is, how many are before it, and how many characters of it.
    fn line_start(&self, offset: usize) -> (usize, usize, usize) {
        let before = self.get(0..offset);
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (start, before.matches('\n').count(), self.get(start..offset).chars().count())
    }
}

/// Gives `miette` whole lines and nothing around them; its own reader would cut the lines to the span.
impl SourceCode for SourceFile {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        _before: usize,
        _after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let end = (span.offset() + span.len()).min(self.text.len());
        let (start, line, column) = self.line_start(span.offset());
        let end = self
            .text
            .get(end..)
            .and_then(|rest| rest.find('\n'))
            .map_or(self.text.len(), |newline| end + newline);
        let lines = self.get(start..end);
        let shown = SourceSpan::from((start, lines.len()));
        let (name, count) = (self.name.clone(), lines.matches('\n').count() + 1);
        Ok(Box::new(MietteSpanContents::new_named(
            name,
            lines.as_bytes(),
            shown,
            line,
            column,
            count,
        )))
    }
}

impl Finding {
    pub(super) fn new(severity: Severity, message: impl Into<String>) -> Self {
        Self { severity, message: message.into(), place: None, label: None, help: None }
    }

    pub(super) fn at(self, place: Place, label: impl Into<String>) -> Self {
        Self { place: Some(place), label: Some(label.into()), ..self }
    }

    pub(super) fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    /// Whether the node can run in spite of it.
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// What was found, in one line.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do about it.
    pub fn remedy(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// The file it was found in.
    pub fn file(&self) -> Option<&str> {
        Some(&self.place.as_ref()?.source.name)
    }

    /// Line and column, both counted from 1, the column in characters.
    pub fn line_and_column(&self) -> Option<(usize, usize)> {
        let place = self.place.as_ref()?.of_a_line()?;
        let (_, line, column) = place.source.line_start(place.span.start);
        Some((line + 1, column + 1))
    }

    /// The offending text.
    pub fn text(&self) -> Option<&str> {
        let place = self.place.as_ref()?.of_a_line()?;
        Some(place.source.get(place.span.clone()))
    }

    /// All of it for a person, ending in a newline.
    pub fn render(&self, style: Style) -> String {
        let theme = match style {
            Style::Colour => GraphicalTheme::unicode(),
            Style::Plain => GraphicalTheme::unicode_nocolor(),
        };
        let handler = GraphicalReportHandler::new_themed(theme)
            .with_links(false)
            .with_context_lines(0)
            .with_width(100);
        let mut shown = String::new();
        if handler.render_report(&mut shown, &Framed(self)).is_err() {
            shown = format!("{self}\n");
        }
        // `miette` pads lines to the frame's width.
        shown.lines().fold(String::new(), |mut lines, line| {
            let _ = writeln!(lines, "{}", line.trim_end());
            lines
        })
    }

    /// What has no place comes first.
    pub(super) fn order(&self) -> Option<(usize, usize)> {
        self.place.as_ref().map(|place| (place.source.number, place.span.start))
    }
}

/// `gantry.toml:2:12: AE title "…" is not valid`, for logs.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(file), Some((line, column))) = (self.file(), self.line_and_column()) {
            write!(f, "{file}:{line}:{column}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Finding {}

/// A finding as `miette` wants it: the message alone in the headline, as the frame below says where.
#[derive(Debug)]
struct Framed<'a>(&'a Finding);

impl fmt::Display for Framed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Framed<'_> {}

impl Diagnostic for Framed<'_> {
    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.0.severity {
            Severity::Problem => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.0.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.0
            .place
            .as_ref()
            .and_then(Place::of_a_line)
            .map(|place| &*place.source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let place = self.0.place.as_ref()?.of_a_line()?;
        let (offset, length) = (place.span.start, place.span.len());
        Some(Box::new(std::iter::once(LabeledSpan::new(self.0.label.clone(), offset, length))))
    }
}

impl Serialize for Finding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let place = self.line_and_column();
        let mut finding = serializer.serialize_struct("Finding", 8)?;
        finding.serialize_field("severity", &self.severity)?;
        finding.serialize_field("file", &self.file())?;
        finding.serialize_field("line", &place.map(|(line, _)| line))?;
        finding.serialize_field("column", &place.map(|(_, column)| column))?;
        finding.serialize_field("text", &self.text())?;
        finding.serialize_field("message", &self.message)?;
        finding.serialize_field("label", &self.label)?;
        finding.serialize_field("help", &self.help)?;
        finding.end()
    }
}

/// All that was found in a configuration that cannot be run: at least one problem, and the warnings beside it, in the
/// order of the files. Serialises as a list.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct Problems(Vec<Finding>);

impl Problems {
    pub(super) fn new(findings: Vec<Finding>) -> Self {
        Self(findings)
    }

    /// Every finding.
    pub fn iter(&self) -> std::slice::Iter<'_, Finding> {
        self.0.iter()
    }

    /// All of them for a person, with an empty line between two.
    pub fn render(&self, style: Style) -> String {
        self.0.iter().map(|finding| finding.render(style)).collect::<Vec<_>>().join("\n")
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Finding;
    type IntoIter = std::slice::Iter<'a, Finding>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// How many; [`Problems::render`] says which.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.iter().filter(|finding| finding.severity == Severity::Problem).count() {
            1 => f.write_str("the configuration has a problem"),
            count => write!(f, "the configuration has {count} problems"),
        }
    }
}

impl std::error::Error for Problems {}

fn without_passwords(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        shown.push_str(before);
        shown.push_str("://");
        // A slash does not end it: people write passwords with slashes unescaped.
        let end = after.find(['"', '\'', '\n', ' ']).unwrap_or(after.len());
        let (authority, further) = after.split_at(end);
        match authority
            .rsplit_once('@')
            .and_then(|(user, host)| Some((user.split_once(':')?, host)))
        {
            Some(((user, password), host)) => {
                let _ = write!(shown, "{user}:{}@{host}", "*".repeat(password.len()));
            }
            None => shown.push_str(authority),
        }
        rest = further;
    }
    shown.push_str(rest);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding() -> Finding {
        let text = "[node]\nae-title = \"RXX_GATEWAY_LONG_NAME\"\n";
        let source = Arc::new(SourceFile::new(0, Path::new("gantry.toml"), text));
        Finding::new(Severity::Problem, "AE title \"RXX_GATEWAY_LONG_NAME\" is not valid")
            .at(Place { source, span: 18..41 }, "21 characters")
            .help("An AE title has 1 to 16 characters, no backslash.")
    }

    #[test]
    fn a_person_sees_the_line_what_is_wrong_with_it_and_the_remedy() {
        let expected = "  × AE title \"RXX_GATEWAY_LONG_NAME\" is not valid
   ╭─[gantry.toml:2:12]
 2 │ ae-title = \"RXX_GATEWAY_LONG_NAME\"
   ·            ───────────┬───────────
   ·                       ╰── 21 characters
   ╰────
  help: An AE title has 1 to 16 characters, no backslash.
";
        assert_eq!(finding().render(Style::Plain), expected);
        assert!(finding().render(Style::Colour).contains("\u{1b}["));
    }

    #[test]
    fn a_machine_gets_the_same_in_parts() {
        let expected = serde_json::json!([{
            "severity": "problem",
            "file": "gantry.toml",
            "line": 2,
            "column": 12,
            "text": "\"RXX_GATEWAY_LONG_NAME\"",
            "message": "AE title \"RXX_GATEWAY_LONG_NAME\" is not valid",
            "label": "21 characters",
            "help": "An AE title has 1 to 16 characters, no backslash.",
        }]);
        assert_eq!(serde_json::to_value(Problems::new(vec![finding()])).unwrap(), expected);
    }

    #[test]
    fn a_log_line_has_the_place_in_front() {
        let expected = "gantry.toml:2:12: AE title \"RXX_GATEWAY_LONG_NAME\" is not valid";
        assert_eq!(finding().to_string(), expected);
        assert_eq!(Finding::new(Severity::Problem, "cannot read x").to_string(), "cannot read x");
    }

    #[test]
    fn a_password_is_never_shown_and_no_place_moves() {
        for (text, shown) in [
            (
                "url = \"postgres://gantry:s3/cr@t@db/x\"",
                "url = \"postgres://gantry:*******@db/x\"",
            ),
            (
                "url = \"postgres://gantry:secret@db/x\" # a://b:c@d",
                "url = \"postgres://gantry:******@db/x\" # a://b:*@d",
            ),
            ("url = \"http://host:9000/\"", "url = \"http://host:9000/\""),
        ] {
            assert_eq!(without_passwords(text), shown);
        }
    }
}
