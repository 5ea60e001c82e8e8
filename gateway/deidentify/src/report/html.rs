//! The report as one page, for screen and paper: no script, nothing from elsewhere, every text escaped.

use std::fmt::Write as _;

use super::{Report, TextCount};

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --line: #c5ccd3; --soft: #f2f5f7; --warn: #8a4b00; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8ecf0; --paper: #14181c; --line: #46505a; --soft: #1f262c; --warn: #ffbf70; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .25rem; } h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; }
table { border-collapse: collapse; width: 100%; } caption { text-align: left; font-weight: 600; padding: .75rem 0 .25rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .75rem .3rem 0; border-bottom: 1px solid var(--line);
  overflow-wrap: anywhere; }
thead th { background: var(--soft); overflow-wrap: normal; } td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
td.fill { min-width: 7rem; } dl { display: grid; grid-template-columns: minmax(9rem, 14rem) 1fr; gap: .25rem 1rem; margin: 0; }
dt { font-weight: 600; } dd { margin: 0; overflow-wrap: anywhere; }
dd.fill { border-bottom: 1px solid var(--line); min-height: 2rem; } .warn { color: var(--warn); font-weight: 600; }
code { font-family: ui-monospace, monospace; font-size: .92em; }
@media print {
  :root { color-scheme: light; --ink: #000; --paper: #fff; --line: #888; --soft: #eee; --warn: #000; }
  body { max-width: none; padding: 0; font-size: 10pt; } tr { break-inside: avoid; } h2 { break-after: avoid; }
  thead { display: table-header-group; }
}
";

/// Text as HTML shows it.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Nothing that turns the direction of text or is no character.
            c if c.is_control() && c != '\n' => out.push('\u{FFFD}'),
            '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' => out.push('\u{FFFD}'),
            c => out.push(c),
        }
    }
    out
}

struct Page(String);

impl Page {
    fn raw(&mut self, html: &str) {
        self.0.push_str(html);
    }

    fn heading(&mut self, text: &str) {
        let _ = writeln!(self.0, "<h2>{}</h2>", escape(text));
    }

    fn paragraph(&mut self, text: &str) {
        let _ = writeln!(self.0, "<p>{}</p>", escape(text));
    }

    fn warning(&mut self, text: &str) {
        let _ = writeln!(self.0, "<p class=\"warn\">{}</p>", escape(text));
    }

    /// Terms and what they are.
    fn list(&mut self, rows: &[(&str, String)]) {
        self.raw("<dl>\n");
        for (term, text) in rows {
            let _ = writeln!(self.0, "<dt>{}</dt><dd>{}</dd>", escape(term), escape(text));
        }
        self.raw("</dl>\n");
    }

    /// Lines to be filled in by hand.
    fn lines(&mut self, rows: &[(&str, &str)]) {
        self.raw("<dl>\n");
        for (term, text) in rows {
            let (term, text) = (escape(term), escape(text));
            let _ = writeln!(self.0, "<dt>{term}</dt><dd class=\"fill\">{text}</dd>");
        }
        self.raw("</dl>\n");
    }

    /// A table; columns whose heading ends with `#` hold numbers, with `_` what is filled in.
    fn table(&mut self, caption: &str, header: &[&str], rows: &[Vec<String>]) {
        let class = |name: &str| match name.chars().last() {
            Some('#') => " class=\"n\"",
            Some('_') => " class=\"fill\"",
            _ => "",
        };
        let _ = writeln!(self.0, "<table><caption>{}</caption><thead><tr>", escape(caption));
        for name in header {
            let shown = escape(name.trim_end_matches(['#', '_']));
            let _ = write!(self.0, "<th scope=\"col\"{}>{shown}</th>", class(name));
        }
        self.raw("</tr></thead><tbody>\n");
        for row in rows {
            self.raw("<tr>");
            for (name, cell) in header.iter().zip(row) {
                let _ = write!(self.0, "<td{}>{}</td>", class(name), escape(cell));
            }
            self.raw("</tr>\n");
        }
        self.raw("</tbody></table>\n");
    }

    /// Texts with counts, or nothing where there are none.
    fn counted(&mut self, caption: &str, rows: &[TextCount]) {
        if !rows.is_empty() {
            let rows: Vec<_> =
                rows.iter().map(|row| vec![row.text.clone(), row.count.to_string()]).collect();
            self.table(caption, &["What", "Objects#"], &rows);
        }
    }
}

/// The whole page.
pub(super) fn page(report: &Report) -> String {
    let mut page = Page(String::with_capacity(32 << 10));
    let title = format!("De-identification report: {}", report.profile.name);
    let _ = writeln!(
        page.0,
        "<!DOCTYPE html>\n<html lang=\"en-GB\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{}</h1>",
        escape(&title),
        escape(&title)
    );
    summary(&mut page, report);
    profile(&mut page, report);
    objects(&mut page, report);
    attributes(&mut page, report);
    checks(&mut page, report);
    review(&mut page, report);
    page.raw("</main>\n</body>\n</html>\n");
    page.0
}

fn summary(page: &mut Page, report: &Report) {
    let counts = &report.counts;
    page.paragraph(&format!(
        "{} of {} objects were written, {} set aside. The result is {}.",
        counts.written, counts.objects, counts.set_aside, report.linkage.word
    ));
    page.paragraph(&report.linkage.meaning);
    page.list(&[
        ("Made", report.made_at.clone()),
        ("With", report.program.clone()),
        ("Key fingerprint", report.key.fingerprint.clone()),
        ("Key", report.key.origin.clone()),
    ]);
    page.heading("To be filled in");
    let governance = &report.governance;
    page.lines(&[
        ("Purpose", governance.purpose.as_str()),
        ("Recipients", governance.recipients.as_str()),
        ("DPIA reference", governance.dpia_reference.as_str()),
        ("Key holder", governance.key_holder.as_str()),
    ]);
}

fn profile(page: &mut Page, report: &Report) {
    let profile = &report.profile;
    page.heading("Profile");
    page.list(&[
        ("Name and version", format!("{}, version {}", profile.name, profile.version)),
        ("What it is for", profile.description.clone()),
        ("SHA-256 of its file", profile.digest.clone()),
        ("Standard", format!("DICOM PS3.15 {}, Annex E", profile.edition)),
    ]);
    let options = report.options.iter();
    let rows: Vec<_> =
        options.map(|option| vec![option.code.to_owned(), option.meaning.to_owned()]).collect();
    page.table("Profile and options (CID 7050)", &["Code", "Meaning"], &rows);
    if !profile.rules.is_empty() {
        let rules = profile.rules.iter();
        let rows: Vec<_> = rules
            .map(|rule| vec![rule.id.clone(), rule.reason.clone().unwrap_or_default()])
            .collect();
        page.table("Rules of its own", &["Rule", "Reason"], &rows);
    }
}

fn objects(page: &mut Page, report: &Report) {
    let counts = &report.counts;
    page.heading("Objects");
    page.list(&[
        ("Read", counts.objects.to_string()),
        ("Written", counts.written.to_string()),
        ("The same as one written", counts.repeated.to_string()),
        ("Set aside", counts.set_aside.to_string()),
        ("Of those, by a safety rule", counts.set_aside_by_rule.to_string()),
        ("DICOMDIRs, not copied", counts.directories.to_string()),
        ("Not DICOM, not copied", counts.not_dicom.to_string()),
    ]);
    let classes = report.classes.iter();
    let rows: Vec<_> = classes
        .map(|class| {
            vec![class.name.clone(), class.written.to_string(), class.set_aside.to_string()]
        })
        .collect();
    page.table("By SOP class", &["SOP class", "Written#", "Set aside#"], &rows);
    if !report.set_aside.is_empty() {
        let asides = report.set_aside.iter();
        let rows: Vec<_> = asides
            .map(|aside| {
                vec![
                    aside.number.to_string(),
                    aside.sop_instance_uid.clone().unwrap_or_default(),
                    aside.sop_class.clone().unwrap_or_default(),
                    aside.reason.clone(),
                ]
            })
            .collect();
        let header = ["No.#", "SOP Instance UID it would have had", "SOP class", "Reason"];
        page.table("Set aside: not written", &header, &rows);
    }
    let references = &report.references;
    let rows = [
        ("To an object that was written", references.to_written),
        ("To an object that was set aside", references.to_set_aside),
        ("Removed by the profile", references.removed),
        ("To nothing", references.broken),
        ("To objects that were not in the input", references.outside),
    ]
    .map(|(what, count)| vec![what.to_owned(), count.to_string()]);
    page.table("References between objects", &["Where they lead", "References#"], &rows);
    if references.broken > 0 {
        page.warning(
            "References that lead to nothing are meant where studies are not linked; elsewhere they are a fault.",
        );
    }
}

fn attributes(page: &mut Page, report: &Report) {
    page.heading("Attributes");
    let actions = report.actions.iter();
    let rows: Vec<_> =
        actions.map(|one| vec![one.action.to_owned(), one.count.to_string()]).collect();
    page.table("By action", &["Action", "Times#"], &rows);
    let attributes = report.attributes.iter();
    let rows: Vec<_> = attributes
        .map(|one| {
            vec![
                one.keyword.clone(),
                one.tag.clone(),
                one.vr.clone(),
                one.origin.clone(),
                one.action.to_owned(),
                one.count.to_string(),
            ]
        })
        .collect();
    let header = ["Attribute", "Tag", "VR", "Decided by", "Action", "Times#"];
    page.table("By attribute", &header, &rows);
    let sealed = &report.sealed;
    if sealed.recipients.is_empty() {
        page.paragraph("No originals are encrypted in the result.");
    } else {
        let recipients = sealed.recipients.iter();
        let rows: Vec<_> = recipients
            .map(|one| vec![one.subject.clone(), one.fingerprint.clone(), one.valid_until.clone()])
            .collect();
        let header = ["Certificate", "SHA-256", "Valid until"];
        page.table("Who can read the encrypted originals", &header, &rows);
        let attributes = sealed.attributes.iter();
        let rows: Vec<_> = attributes
            .map(|one| vec![one.keyword.clone(), one.tag.clone(), one.count.to_string()])
            .collect();
        page.table("What is encrypted", &["Attribute", "Tag", "Objects#"], &rows);
    }
}

fn checks(page: &mut Page, report: &Report) {
    page.heading("Verification");
    page.paragraph(&format!(
        "{} objects passed: what was written was read again and searched for what was removed. What does not pass is set aside.",
        report.verification.passed
    ));
    page.counted("Found in objects that were set aside", &report.verification.findings);
    page.heading("Pixels");
    let pixels = &report.pixels;
    page.counted("Why images may show who the patient is", &pixels.risks);
    page.counted("Masks that were applied", &pixels.masks);
    page.counted("Left without a mask, and why", &pixels.passed_without_mask);
    page.counted("Faces that may be made out; they are not removed", &pixels.faces);
    page.counted("Compressed frames", &pixels.notes);
    let search = &pixels.text_search;
    page.paragraph(&match (&search.engine, search.wanted) {
        (_, false) => "The profile asks for no search for text in pixels.".to_owned(),
        (None, true) => {
            "Text in pixels was not searched for: tesseract is not installed.".to_owned()
        }
        (Some(engine), true) => format!(
            "Nothing was legible in {} frames of {} objects, by {engine}.",
            search.frames, search.objects
        ),
    });
    page.counted("Not searched for text, and why", &search.not_checked);
    page.heading("What was not checked");
    page.raw("<ul>\n");
    for text in &report.not_checked {
        let _ = writeln!(page.0, "<li>{}</li>", escape(text));
    }
    page.raw("</ul>\n");
}

fn review(page: &mut Page, report: &Report) {
    let review = &report.review;
    page.heading("For a person to look at");
    if review.objects.is_empty() {
        page.paragraph("There is nothing to look at.");
        return;
    }
    page.paragraph(&format!(
        "{} in 1000 objects, and at least one of each SOP class, chosen by a hash of their new UIDs.",
        review.per_mille
    ));
    let objects = review.objects.iter();
    let rows: Vec<_> = objects
        .map(|one| {
            vec![
                one.file.clone(),
                one.sop_class.clone(),
                one.name.clone(),
                one.date.clone(),
                one.finding.clone(),
            ]
        })
        .collect();
    page.table("Sample", &["File", "SOP class", "Name_", "Date_", "Finding_"], &rows);
}
