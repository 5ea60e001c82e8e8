//! The sections of the node itself: who it is, where it listens, how it bears load.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use serde_spanned::Spanned;

use super::super::{
    Acknowledge, Delivery, Dicomweb, Intake, Limits, Listener, ListenerTls, Log, LogFormat, Node,
    Tls, Web, WebTls, values,
};
use super::{Bad, Check, Section, Written, each, file, words};

impl Check {
    pub(super) fn node(&mut self, main: &Written) -> Option<Node> {
        let Some(body) = &main.file.node else {
            let root = Section { written: main, span: main.root.clone() };
            if !root.was_rejected("node") {
                let help = "Write who this node is: [node], then ae-title = \"…\" and organisation = \"…\".";
                self.lacks(main, "[node]", help);
            }
            return None;
        };
        let (section, body) = Section::of(main, body);
        let help =
            "Write the AE title that this node calls itself, such as ae-title = \"RXX_GATEWAY\".";
        self.required(&section, "ae-title", body.ae_title.as_ref(), help);
        let help =
            "Write the ODS code of the organisation it belongs to, such as organisation = \"RXX\".";
        self.required(&section, "organisation", body.organisation.as_ref(), help);
        let ae_title = self.text(&section, &body.ae_title, words::ae_title);
        let organisation = self.text(&section, &body.organisation, words::line);
        let written = body.data_dir.as_ref().map_or("data", |dir| dir.get_ref());
        let node = Node {
            ae_title: ae_title?,
            organisation: organisation?,
            data_dir: section.path(written),
        };
        // `sun_path` has 108 bytes, the last of which is NUL (unix(7)).
        let length = node.admin_socket().as_os_str().len();
        if length > 107 {
            let span = body.data_dir.as_ref().map_or(section.span.clone(), Spanned::span);
            let message = "the data directory's path is too long for the socket in it";
            let label = format!("with \"/admin.sock\" {length} bytes");
            self.problem(
                &section,
                span,
                Bad::new(message, label, "Choose a path of at most 96 bytes."),
            );
        }
        Some(node)
    }

    pub(super) fn listeners(&mut self, main: &Written, has_tls: bool) -> Vec<Listener> {
        let root = Section { written: main, span: main.root.clone() };
        if main.file.listener.is_empty() && !root.was_rejected("listener") {
            let help = "Write at least one: [[listener]], then address = \"0.0.0.0:2762\".";
            self.lacks(main, "[[listener]]", help);
        }
        let mut taken = BTreeMap::new();
        main.file
            .listener
            .iter()
            .filter_map(|body| self.listener(main, body, has_tls, &mut taken))
            .collect()
    }

    fn listener(
        &mut self,
        main: &Written,
        body: &Spanned<file::ListenerSection>,
        has_tls: bool,
        taken: &mut BTreeMap<SocketAddr, String>,
    ) -> Option<Listener> {
        let (section, body) = Section::of(main, body);
        let help =
            "Write an address of this machine and a port, such as address = \"0.0.0.0:2762\".";
        let written = self.required(&section, "address", body.address.as_ref(), help);
        let address = self.text(&section, &body.address, words::listen_address);
        let words = [
            ("mutual", Some(ListenerTls::Mutual)),
            ("off", Some(ListenerTls::Off)),
            ("server-only", None),
        ];
        let tls =
            self.text(&section, &body.tls, |text| words::one_of("tls of a listener", text, &words));
        let allow: Vec<_> = self
            .texts(&section, &body.allow, words::network)
            .into_iter()
            .map(|(_, net)| net)
            .collect();
        let max_associations = body.max_associations.as_ref().and_then(|number| {
            self.note(&section, number.span(), words::whole(*number.get_ref(), &(1..=4096)))
        });

        if body.tls.is_none() && !has_tls {
            let bad = Bad::new(
                "this listener needs [tls]",
                "TLS is mutual unless the section says otherwise",
                "Write [tls] with certificate, key and authorities; or, for a network you trust, tls = \"off\" with allow.",
            );
            self.problem(&section, section.span.clone(), bad);
        } else if let (Some(ListenerTls::Mutual), Some(written), false) = (tls, &body.tls, has_tls)
        {
            let help = "Write [tls] with certificate, key and authorities.";
            self.problem(
                &section,
                written.span(),
                Bad::new("this listener needs [tls]", "mutual TLS", help),
            );
        }
        if let (Some(ListenerTls::Off), Some(written)) = (tls, &body.tls) {
            let open = allow.iter().any(|network| network.prefix_len() == 0);
            if body.allow.as_ref().is_none_or(|allow| each(allow).is_empty())
                && !section.was_rejected("allow")
            {
                let help = "Name the networks that may connect in plain text, such as allow = [\"10.20.30.0/24\"].";
                let message = "a listener without TLS must say who may connect";
                self.problem(
                    &section,
                    written.span(),
                    Bad::new(message, "no allow beside it", help),
                );
            } else if open && let Some(allow) = &body.allow {
                let help = "Name only the networks of the devices that cannot do TLS.";
                let message = "everybody may connect in plain text";
                self.warning(
                    &section,
                    allow.span(),
                    Bad::new(message, "includes every address", help),
                );
            }
        }
        let (written, address) = (written?, address?);
        self.address_is_free(&section, written.span(), address, taken);
        Some(Listener {
            name: written.get_ref().clone(),
            address,
            tls: tls.unwrap_or_default(),
            allow,
            max_associations: max_associations.unwrap_or(Listener::MAX_ASSOCIATIONS),
        })
    }

    fn address_is_free(
        &mut self,
        section: &Section<'_>,
        span: Range<usize>,
        address: SocketAddr,
        taken: &mut BTreeMap<SocketAddr, String>,
    ) {
        let line = section.place(span.clone()).file_and_line();
        if address.port() == 0 {
            return;
        }
        if let Some(other) = taken.insert(address, line) {
            let message = format!("{address} is listened on twice");
            let label = format!("also at {other}");
            self.problem(section, span, Bad::new(message, label, "Give each its own port."));
        }
    }

    pub(super) fn web(
        &mut self,
        main: &Written,
        listeners: &[Listener],
        tls: Option<&Tls>,
    ) -> Option<Web> {
        let (section, body) = Section::of(main, main.file.web.as_ref()?);
        let help =
            "Write an address of this machine and a port, such as address = \"127.0.0.1:8080\".";
        let written = self.required(&section, "address", body.address.as_ref(), help);
        let address = self.text(&section, &body.address, words::listen_address);
        let words = [("server-only", Some(true)), ("off", Some(false)), ("mutual", None)];
        let encrypted =
            self.text(&section, &body.tls, |text| words::one_of("tls of the web", text, &words));
        let url = self.text(&section, &body.url, words::web_url);
        let identity = match (&body.certificate, &body.key) {
            (Some(certificate), Some(key)) => {
                self.identity(&section, certificate, key).map(|(identity, _)| identity)
            }
            (Some(one), None) | (None, Some(one)) => {
                let message = "a certificate and its key go together";
                let help = "Write both, or neither: the web then shows the certificate of [tls].";
                self.problem(&section, one.span(), Bad::new(message, "the other is missing", help));
                None
            }
            (None, None) => tls.map(|tls| tls.identity.clone()),
        };

        let (written, address) = (written?, address?);
        let mut taken: BTreeMap<_, _> = listeners
            .iter()
            .map(|listener| (listener.address, "a [[listener]]".to_owned()))
            .collect();
        self.address_is_free(&section, written.span(), address, &mut taken);
        let loopback = address.ip().is_loopback();
        let encrypted = encrypted.unwrap_or(!loopback || body.certificate.is_some());
        if !encrypted
            && !loopback
            && let Some(off) = &body.tls
        {
            let bad = Bad::new(
                "patients' names and passwords travel in plain text",
                "beyond this machine",
                "Leave tls out; or keep \"off\" if a proxy on a network of its own encrypts, and set url to its https address.",
            );
            self.warning(&section, off.span(), bad);
        }
        if encrypted && main.file.tls.is_none() && body.certificate.is_none() && body.key.is_none()
        {
            let help = "Write certificate and key here, or [tls]; or listen on 127.0.0.1.";
            let message = "the web needs a certificate beyond this machine";
            self.problem(&section, written.span(), Bad::new(message, "not loopback", help));
        }
        if let (false, Some(certificate)) = (encrypted, &body.certificate) {
            let help = "Remove certificate and key, or tls = \"off\".";
            let message = "this certificate is never shown";
            self.problem(&section, certificate.span(), Bad::new(message, "tls is off", help));
        }
        let (tls, scheme) = match (encrypted, identity) {
            (true, Some(identity)) => (WebTls::ServerOnly(identity), "https"),
            _ => (WebTls::Off, "http"),
        };
        let tells = address.port() != 0 && !address.ip().is_unspecified();
        let url = url.or_else(|| tells.then(|| format!("{scheme}://{address}")));
        Some(Web { address, tls, url })
    }

    pub(super) fn dicomweb(
        &mut self,
        main: &Written,
        listeners: &[Listener],
        web: Option<&Web>,
    ) -> Option<Dicomweb> {
        let (section, body) = Section::of(main, main.file.dicomweb.as_ref()?);
        let help =
            "Write an address of this machine and a port, such as address = \"0.0.0.0:8443\".";
        let written = self.required(&section, "address", body.address.as_ref(), help);
        let address = self.text(&section, &body.address, words::listen_address);
        let words = [("on", Some(true)), ("off", Some(false)), ("mutual", None)];
        let encrypted =
            self.text(&section, &body.tls, |text| words::one_of("tls of DICOMweb", text, &words));
        let url = self.text(&section, &body.url, words::web_url);
        let origins = self.texts(&section, &body.allow_origins, words::web_url);

        let (written, address) = (written?, address?);
        let mut taken: BTreeMap<_, _> =
            listeners.iter().map(|other| (other.address, "a [[listener]]".to_owned())).collect();
        taken.extend(web.map(|web| (web.address, "[web]".to_owned())));
        self.address_is_free(&section, written.span(), address, &mut taken);
        let loopback = address.ip().is_loopback();
        let encrypted = encrypted.unwrap_or(!loopback || main.file.tls.is_some());
        if encrypted && main.file.tls.is_none() {
            let help = "Write [tls] with certificate, key and authorities; or listen on 127.0.0.1.";
            let message = "DICOMweb needs [tls] beyond this machine";
            self.problem(&section, written.span(), Bad::new(message, "not loopback", help));
        }
        if let (false, false, Some(off)) = (encrypted, loopback, &body.tls) {
            let bad = Bad::new(
                "images and tokens travel in plain text",
                "beyond this machine",
                "Leave tls out; or keep \"off\" if a proxy on a network of its own encrypts, and set url to its https address.",
            );
            self.warning(&section, off.span(), bad);
        }
        let scheme = if encrypted { "https" } else { "http" };
        let tells = address.port() != 0 && !address.ip().is_unspecified();
        let url = url.or_else(|| tells.then(|| format!("{scheme}://{address}")));
        let origins = origins.into_iter().map(|(_, origin)| origin).collect();
        Some(Dicomweb { address, encrypted, url, origins })
    }

    pub(super) fn intake(&mut self, main: &Written) -> Intake {
        let (absent, default) = (file::IntakeSection::default(), Intake::default());
        let (section, body) = Section::or_default(main, main.file.intake.as_ref(), &absent);
        let words =
            [("durable", Some(Acknowledge::Durable)), ("received", Some(Acknowledge::Received))];
        let acknowledge = self
            .text(&section, &body.acknowledge, |text| words::one_of("acknowledge", text, &words));
        Intake {
            acknowledge: acknowledge.unwrap_or_default(),
            reserve: self.size(&section, &body.reserve, default.reserve, &(0..=1 << 50)),
            high_water: self
                .text(&section, &body.spool_high_water, words::high_water)
                .unwrap_or(default.high_water),
            emergency_reserve: self.size(
                &section,
                &body.emergency_reserve,
                default.emergency_reserve,
                &(0..=1 << 50),
            ),
            max_instance_size: self.size(
                &section,
                &body.max_instance_size,
                default.max_instance_size,
                &(1 << 20..=1 << 40),
            ),
        }
    }

    pub(super) fn limits(&mut self, main: &Written) -> Limits {
        let (absent, default) = (file::AssociationSection::default(), Limits::default());
        let (section, body) = Section::or_default(main, main.file.association.as_ref(), &absent);
        let sizes = Limits::MAX_PDU_FLOOR.into()..=Limits::MAX_PDU_CEILING.into();
        let max_pdu = self.size(&section, &body.max_pdu, default.max_pdu.into(), &sizes);
        let (second, hour) = (Duration::from_secs(1), Duration::from_hours(1));
        let range = second..=hour;
        Limits {
            max_pdu: u32::try_from(max_pdu).unwrap_or(default.max_pdu),
            idle_timeout: self.duration(&section, &body.idle_timeout, default.idle_timeout, &range),
            handshake_timeout: self.duration(
                &section,
                &body.handshake_timeout,
                default.handshake_timeout,
                &(second..=Duration::from_mins(5)),
            ),
            release_timeout: self.duration(
                &section,
                &body.release_timeout,
                default.release_timeout,
                &(second..=Duration::from_mins(5)),
            ),
        }
    }

    pub(super) fn delivery(&mut self, main: &Written) -> Delivery {
        let (absent, default) = (file::DeliverySection::default(), Delivery::default());
        let (section, body) = Section::or_default(main, main.file.delivery.as_ref(), &absent);
        let (second, day) = (Duration::from_secs(1), Duration::from_hours(24));
        let minutes = second..=Duration::from_mins(10);
        let delivery = Delivery {
            retry_floor: self.duration(
                &section,
                &body.retry_floor,
                default.retry_floor,
                &(second..=day),
            ),
            retry_ceiling: self.duration(
                &section,
                &body.retry_ceiling,
                default.retry_ceiling,
                &(second..=day),
            ),
            emergency_retry_ceiling: self.duration(
                &section,
                &body.emergency_retry_ceiling,
                default.emergency_retry_ceiling,
                &minutes,
            ),
            give_up_after: self
                .text(&section, &body.give_up_after, |text| match text {
                    "never" => Ok(None),
                    text => words::duration(text, &(second..=365 * day)).map(Some),
                })
                .unwrap_or(default.give_up_after),
            association_idle: self.duration(
                &section,
                &body.association_idle,
                default.association_idle,
                &minutes,
            ),
            connect_timeout: self.duration(
                &section,
                &body.connect_timeout,
                default.connect_timeout,
                &minutes,
            ),
            response_timeout: self.duration(
                &section,
                &body.response_timeout,
                default.response_timeout,
                &(second..=Duration::from_hours(1)),
            ),
            report_for: self.duration(
                &section,
                &body.report_for,
                default.report_for,
                &(second..=Duration::from_hours(24 * 14)),
            ),
        };
        let ceilings = [
            ("retry-ceiling", &body.retry_ceiling, delivery.retry_ceiling),
            (
                "emergency-retry-ceiling",
                &body.emergency_retry_ceiling,
                delivery.emergency_retry_ceiling,
            ),
        ];
        for (key, written, ceiling) in ceilings {
            let at = written.as_ref().or(body.retry_floor.as_ref());
            if let (Some(at), true) = (at, ceiling < delivery.retry_floor) {
                let (floor, ceiling) =
                    (values::duration_text(delivery.retry_floor), values::duration_text(ceiling));
                let message = "the longest wait is shorter than the first";
                let label = format!("retry-floor is {floor}, {key} {ceiling}");
                let help = format!("Raise {key}, or lower retry-floor.");
                self.problem(&section, at.span(), Bad::new(message, label, help));
            }
        }
        delivery
    }

    pub(super) fn log(&mut self, main: &Written) -> Log {
        let Some(body) = &main.file.log else { return Log::default() };
        let (section, body) = Section::of(main, body);
        let formats = [("text", Some(LogFormat::Text)), ("json", Some(LogFormat::Json))];
        let levels = [
            ("error", Some(tracing::Level::ERROR)),
            ("warn", Some(tracing::Level::WARN)),
            ("info", Some(tracing::Level::INFO)),
            ("debug", Some(tracing::Level::DEBUG)),
            ("trace", Some(tracing::Level::TRACE)),
        ];
        let format = self
            .text(&section, &body.format, |text| words::one_of("the log's format", text, &formats));
        let level = self
            .text(&section, &body.level, |text| words::one_of("the log's level", text, &levels));
        Log { format: format.unwrap_or_default(), level: level.unwrap_or(Log::default().level) }
    }
}
