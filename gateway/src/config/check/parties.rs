//! Sources and partners: each with a name, an AE title and a certificate that nobody else has.

use std::collections::{BTreeMap, BTreeSet};

use gantry_store::dicom::AeTitle;
use rustls::RootCertStore;
use serde_spanned::Spanned;

use super::super::{
    Compress, Fingerprint, Partner, PartnerTls, Permission, ProofMeans, RecallMeans, Secret, Source,
};
use super::{Bad, Check, Section, Text, Texts, Written, file, words};

/// What must not occur twice, with who has it.
#[derive(Default)]
pub(super) struct Names {
    pub(super) taken: BTreeMap<String, String>,
    pub(super) ae_titles: BTreeMap<AeTitle, String>,
    pub(super) certificates: BTreeMap<Fingerprint, String>,
    tokens: Vec<(Secret, String)>,
}

/// The names of all sources and partners, as they are written.
fn everybody<'a>(files: &[&'a Written]) -> BTreeSet<&'a str> {
    let sources =
        files.iter().flat_map(|file| file.file.source.iter()).map(|it| &it.get_ref().name);
    let partners =
        files.iter().flat_map(|file| file.file.partner.iter()).map(|it| &it.get_ref().name);
    sources.chain(partners).flatten().map(|name| name.get_ref().as_str()).collect()
}

/// Characters of the shortest bearer token: 128 bits in hexadecimal.
const SHORTEST_TOKEN: usize = 32;

impl Check {
    pub(super) fn sources(
        &mut self,
        files: &[&Written],
        names: &mut Names,
        own_title: Option<&AeTitle>,
        authorities: Option<&RootCertStore>,
    ) -> Vec<Source> {
        let sections = files
            .iter()
            .flat_map(|file| file.file.source.iter().map(|body| Section::of(file, body)));
        let everybody = everybody(files);
        let mut sources = Vec::new();
        for (section, body) in sections.collect::<Vec<_>>() {
            let name = self.party_name(&section, &body.name, "pacs", names);
            let help = "Write the AE title that it calls itself, such as ae-title = \"PACS\".";
            self.required(&section, "ae-title", body.ae_title.as_ref(), help);
            let ae_title = self.party_ae_title(&section, &body.ae_title, name.as_deref(), names);
            let called = self.texts(&section, &body.called, words::ae_title);
            let called: Vec<_> = called.into_iter().map(|(_, title)| title).collect();
            let (counted, fetch) = self.counted(&section, body, &called, own_title);
            let address = self.text(&section, &body.address, words::host_port);
            let certificate = body.certificate.as_ref().map(|certificate| {
                let who = name.as_deref().unwrap_or_default();
                self.pins(&section, certificate, who, names, authorities).0
            });
            let token = self.token(&section, &body.token_file, name.as_deref(), names);
            let words =
                [("query", Some(Permission::Query)), ("retrieve", Some(Permission::Retrieve))];
            let understand = |text: &str| words::one_of("a permission of a source", text, &words);
            let may = self.texts(&section, &body.may, understand);
            let may = may.into_iter().map(|(_, permission)| permission).collect();
            let move_to = self.move_to(&section, &body.move_to, &everybody);
            if let (Some(name), Some(ae_title)) = (name, ae_title) {
                sources.push(Source {
                    name,
                    ae_title,
                    called,
                    address,
                    counted,
                    fetch,
                    certificate,
                    token,
                    may,
                    move_to,
                });
            }
        }
        sources
    }

    pub(super) fn partners(
        &mut self,
        files: &[&Written],
        names: &mut Names,
        own_title: Option<&AeTitle>,
        has_tls: bool,
        authorities: Option<&RootCertStore>,
    ) -> Vec<Partner> {
        let sections = files
            .iter()
            .flat_map(|file| file.file.partner.iter().map(|body| Section::of(file, body)));
        let everybody = everybody(files);
        let mut partners = Vec::new();
        for (section, body) in sections.collect::<Vec<_>>() {
            let move_to = self.move_to(&section, &body.move_to, &everybody);
            let partner = self.partner(&section, body, names, own_title, has_tls, authorities);
            partners.extend(partner.map(|partner| Partner { move_to, ..partner }));
        }
        partners
    }

    fn partner(
        &mut self,
        section: &Section<'_>,
        body: &file::PartnerSection,
        names: &mut Names,
        own_title: Option<&AeTitle>,
        has_tls: bool,
        authorities: Option<&RootCertStore>,
    ) -> Option<Partner> {
        let name = self.party_name(section, &body.name, "royal-infirmary", names);
        let display_name = self.text(section, &body.display_name, words::line);
        let help = "Write the AE title of its node, such as ae-title = \"RI_GATEWAY\".";
        self.required(section, "ae-title", body.ae_title.as_ref(), help);
        let ae_title = self.party_ae_title(section, &body.ae_title, name.as_deref(), names);
        if let (Some(title), Some(own), Some(written)) = (&ae_title, own_title, &body.ae_title)
            && title == own
        {
            let help =
                "Ask the partner for the AE title of its node; two nodes cannot have the same.";
            let message = format!("AE title \"{title}\" is this node's own");
            self.problem(section, written.span(), Bad::new(message, "the same as in [node]", help));
        }
        let help =
            "Write where it takes associations, such as address = \"gateway.ri.example:2762\".";
        self.required(section, "address", body.address.as_ref(), help);
        let address = self.text(section, &body.address, words::host_port);
        let words = [
            ("mutual", Some(PartnerTls::Mutual)),
            ("off", Some(PartnerTls::Off)),
            ("server-only", None),
        ];
        let tls =
            self.text(section, &body.tls, |text| words::one_of("tls of a partner", text, &words));
        // A word that was not understood is neither.
        let tls = if body.tls.is_none() { Some(PartnerTls::Mutual) } else { tls };
        let mutual = tls == Some(PartnerTls::Mutual);
        if mutual && !has_tls {
            let bad = Bad::new(
                "this partner needs [tls]",
                "TLS is mutual unless the section says otherwise",
                "Write [tls] with certificate, key and authorities; or, on a private network, tls = \"off\" here.",
            );
            self.problem(
                section,
                body.tls.as_ref().map_or(section.span.clone(), Spanned::span),
                bad,
            );
        }
        let (certificates, certificates_until) = match &body.certificate {
            Some(certificate) if tls == Some(PartnerTls::Off) => {
                let help = "Remove it, or tls = \"off\".";
                let message = "this certificate is never compared with anything";
                self.problem(section, certificate.span(), Bad::new(message, "tls is off", help));
                (Vec::new(), None)
            }
            Some(certificate) => self.pins(
                section,
                certificate,
                name.as_deref().unwrap_or_default(),
                names,
                authorities,
            ),
            None => {
                if mutual && !section.was_rejected("certificate") {
                    let bad = Bad::new(
                        "this partner is known by its AE title alone",
                        "certificate is missing",
                        "Write certificate = \"….crt\" with the partner's certificate; until then any peer that an \
                         authority of [tls] vouches for can call itself by this AE title.",
                    );
                    self.warning(section, section.span.clone(), bad);
                }
                (Vec::new(), None)
            }
        };
        let token = self.token(section, &body.token_file, name.as_deref(), names);
        let may = match &body.may {
            Some(_) => self.permissions(section, &body.may),
            None => BTreeSet::from([Permission::Receive]),
        };
        let phone = self.text(section, &body.phone, words::line);
        let name = name?;
        Some(Partner {
            display_name: display_name.unwrap_or_else(|| name.clone()),
            name,
            ae_title: ae_title?,
            address: address?,
            tls: tls.unwrap_or_default(),
            certificates,
            certificates_until,
            token,
            associations: self.associations(section, body),
            pace: self.pace(section, body),
            compress: self.compress(section, &body.compress),
            may,
            move_to: Vec::new(),
            proof: self.means_of_proof(section, &body.proof),
            recall: self.means_of_recall(section, &body.recall),
            seal_to: self
                .texts(section, &body.seal_to, |text| Ok(section.path(text)))
                .into_iter()
                .map(|(_, path)| path)
                .collect(),
            phone,
        })
    }

    /// The bearer token of a source or partner. Nobody else may have the same.
    fn token(
        &mut self,
        section: &Section<'_>,
        written: &Text,
        name: Option<&str>,
        names: &mut Names,
    ) -> Option<Secret> {
        let token = self.secret(section, written, "token", SHORTEST_TOKEN)?;
        let span = written.as_ref()?.span();
        // RFC 6750 2.1
        let may_stand = |c: char| c.is_ascii_alphanumeric() || "-._~+/=".contains(c);
        if !token.reveal().chars().all(may_stand) {
            let help =
                "Letters, digits and -._~+/= may stand in it: `openssl rand -hex 32` makes one.";
            let message = "this token cannot be sent as a bearer token";
            self.problem(section, span, Bad::new(message, "other characters", help));
            return None;
        }
        if let Some((_, other)) = names.tokens.iter().find(|(taken, _)| *taken == token) {
            let message = format!("{other} has the same token");
            let help =
                "Give each its own: the token says who it is. `openssl rand -hex 32` makes one.";
            self.problem(section, span, Bad::new(message, "twice", help));
            return None;
        }
        names.tokens.push((token.clone(), name.unwrap_or_default().to_owned()));
        Some(token)
    }

    fn compress(&mut self, section: &Section<'_>, compress: &Text) -> Compress {
        let words = [Compress::Auto, Compress::Never, Compress::Always]
            .map(|compress| (compress.word(), Some(compress)));
        let understand = |text: &str| words::one_of("compress of a partner", text, &words);
        self.text(section, compress, understand).unwrap_or_default()
    }

    fn means_of_proof(&mut self, section: &Section<'_>, proof: &Text) -> ProofMeans {
        let words = [
            ("auto", Some(ProofMeans::Auto)),
            ("storage-commitment", Some(ProofMeans::StorageCommitment)),
            ("query", Some(ProofMeans::Query)),
            ("none", Some(ProofMeans::None)),
        ];
        let understand = |text: &str| words::one_of("a means of proof", text, &words);
        self.text(section, proof, understand).unwrap_or_default()
    }

    fn means_of_recall(&mut self, section: &Section<'_>, recall: &Text) -> RecallMeans {
        let words = [("phone", Some(RecallMeans::Phone)), ("iocm", Some(RecallMeans::Iocm))];
        let understand = |text: &str| words::one_of("recall of a partner", text, &words);
        self.text(section, recall, understand).unwrap_or_default()
    }

    fn move_to(
        &mut self,
        section: &Section<'_>,
        written: &Texts,
        everybody: &BTreeSet<&str>,
    ) -> Vec<String> {
        let named = self.texts(section, written, |text| {
            if everybody.contains(text) {
                return Ok(text.to_owned());
            }
            let near = words::did_you_mean(text, everybody.iter().copied());
            let message = format!("there is no source or partner {}", words::quoted(text));
            let help = format!("{near}Write the name of a [[source]] or [[partner]].");
            Err(Bad::new(message, "unknown", help))
        });
        named.into_iter().map(|(_, name)| name).collect()
    }

    fn permissions(&mut self, section: &Section<'_>, may: &Texts) -> BTreeSet<Permission> {
        let words = [
            ("receive", Some(Permission::Receive)),
            ("query", Some(Permission::Query)),
            ("retrieve", Some(Permission::Retrieve)),
            ("send", Some(Permission::Send)),
        ];
        let granted = self.texts(section, may, |text| words::one_of("a permission", text, &words));
        granted.into_iter().map(|(_, permission)| permission).collect()
    }

    /// The name of a source or partner; they share one list of names, as an instance remembers its sender by name.
    fn party_name(
        &mut self,
        section: &Section<'_>,
        name: &Text,
        example: &str,
        names: &mut Names,
    ) -> Option<String> {
        let help = format!("Write what routes and logs call it, such as name = \"{example}\".");
        let written = self.required(section, "name", name.as_ref(), &help)?;
        let name = self.text(section, name, words::name)?;
        let place = section.place(written.span()).file_and_line();
        if let Some(other) = names.taken.insert(name.clone(), place) {
            let message = format!("the name \"{name}\" is given twice");
            let help = "Sources and partners share one list of names; rename one of them.";
            self.problem(
                section,
                written.span(),
                Bad::new(message, format!("also at {other}"), help),
            );
        }
        Some(name)
    }

    fn party_ae_title(
        &mut self,
        section: &Section<'_>,
        title: &Text,
        name: Option<&str>,
        names: &mut Names,
    ) -> Option<AeTitle> {
        let written = title.as_ref()?;
        let title = self.text(section, title, words::ae_title)?;
        let who = name.unwrap_or("another section").to_owned();
        if let Some(other) = names.ae_titles.insert(title.clone(), who) {
            let message = format!("AE title \"{title}\" is given twice");
            let label = format!("also that of {other}");
            let help = "Each source and partner needs its own: who calls is looked up by it.";
            self.problem(section, written.span(), Bad::new(message, label, help));
        }
        Some(title)
    }
}
