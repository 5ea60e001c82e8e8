//! Associations that a command makes itself, as the node would make them: with a source or a partner, by its name in the
//! configuration.

use gantry_gateway::config::Config;
use gantry_gateway::partner::connect::{self, Association, Callee};
use gantry_store::dicom::{SopClassUid, TransferSyntax};
use gantry_store::index::Failure as Obstacle;

use crate::exit::{Exit, Failure};

/// Whom a name means.
pub(super) fn callee<'a>(config: &'a Config, name: &str) -> Result<Callee<'a>, Failure> {
    if let Some(partner) = config.partner(name) {
        return Ok(Callee::partner(config, partner));
    }
    let Some(source) = config.source(name) else {
        let names = config.sources.iter().map(|source| source.name.as_str());
        let names: Vec<_> =
            names.chain(config.partners.iter().map(|partner| partner.name.as_str())).collect();
        let message = format!("no source or partner is called {name}");
        return Err(Failure::new(Exit::NotFound, message)
            .hint(format_args!("there is {}", names.join(", "))));
    };
    Callee::source(config, source).ok_or_else(|| {
        let message = format!("it is not known where {name} can be asked");
        Failure::new(Exit::Usage, message)
            .hint(format_args!("write address = \"host:port\" into the section of {name}"))
    })
}

/// An association with it, for this service.
pub(super) async fn associate(
    config: &Config,
    name: &str,
    service: &SopClassUid,
) -> Result<(Association, u8), Failure> {
    let syntaxes = vec![
        TransferSyntax::explicit_vr_little_endian(),
        TransferSyntax::implicit_vr_little_endian(),
    ];
    let contexts = vec![(service.clone(), syntaxes)];
    let patience = config.delivery.connect_timeout;
    let association = connect::call(config, callee(config, name)?, contexts, None, patience)
        .await
        .map_err(|why| failed(name, &why))?;
    if let Some(context) = association.context_of(service.as_str()) {
        return Ok((association, context));
    }
    association.release(patience).await;
    let message = format!("{name} does not offer this service to this node");
    Err(Failure::new(Exit::Refused, message).hint(format_args!(
        "ask whoever runs {name} to allow queries and moves by {}",
        config.node.ae_title
    )))
}

/// What stood in the way at the other end.
pub(super) fn failed(name: &str, why: &Obstacle) -> Failure {
    Failure::new(why.kind.into(), format_args!("{name}: {}", why.text))
        .hint(format_args!("`gantry partner test {name}` goes the way to a partner step by step"))
}
