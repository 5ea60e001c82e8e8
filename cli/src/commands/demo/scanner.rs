//! The scanner of the demonstration: an ordinary storage SCU on an ordinary association (PS3.4 Annex B).

use std::net::SocketAddr;
use std::time::Duration;

use gantry_gateway::association::dimse::CStoreRq;
use gantry_gateway::association::requestor::{Proposal, RequestError, Requestor};
use gantry_gateway::association::status::{Meaning, Status};
use gantry_gateway::association::wire::Tcp;
use gantry_gateway::telemetry::chain;
use gantry_store::dicom::{SopClassUid, TransferSyntax};
use sample_studies::Instance;
use tokio::net::TcpStream;

use super::trusts::SCANNER;
use crate::exit::{Exit, Failure};

/// How long a node on the same machine may take for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sends every instance to this AE title on one association; `acknowledged` hears of each answer.
pub(super) async fn send(
    to: SocketAddr,
    called: &str,
    instances: &[Instance],
    mut acknowledged: impl FnMut(),
) -> Result<(), Failure> {
    let stream = TcpStream::connect(to).await.and_then(Tcp::new).map_err(|error| failed(&error))?;
    let mut contexts: Vec<(SopClassUid, Vec<TransferSyntax>)> = Vec::new();
    for instance in instances {
        let context =
            (checked(&instance.sop_class_uid)?, vec![checked(&instance.transfer_syntax_uid)?]);
        if !contexts.contains(&context) {
            contexts.push(context);
        }
    }
    let proposal = Proposal {
        calling: checked(SCANNER)?,
        called: checked(called)?,
        contexts,
        provides: None,
        max_pdu: 128 << 10,
        patience: PATIENCE,
    };
    let mut association =
        Requestor::associate(stream, &proposal).await.map_err(|error| refused(&error))?;
    for instance in instances {
        let request = CStoreRq {
            message_id: 0,
            sop_class: checked(&instance.sop_class_uid)?,
            sop_instance: checked(&instance.sop_instance_uid)?,
            priority: 0,
        };
        let context = association
            .context_for(&request.sop_class, &checked(&instance.transfer_syntax_uid)?)
            .ok_or_else(|| {
                Failure::new(Exit::Failed, "the scanner's presentation context was not accepted")
            })?;
        let storing =
            association.store_begin(context, request).await.map_err(|error| refused(&error))?;
        let status: Status =
            storing.end(&instance.data_set).await.map_err(|error| refused(&error))?;
        if !matches!(status.meaning(), Meaning::Success | Meaning::Warning) {
            return Err(Failure::new(
                Exit::Failed,
                format_args!("the scanner was answered {status}"),
            ));
        }
        acknowledged();
    }
    association.release(PATIENCE).await;
    Ok(())
}

/// Reads what the sample studies say of themselves.
fn checked<T: std::str::FromStr>(text: &str) -> Result<T, Failure>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error| Failure::new(Exit::Failed, error))
}

fn refused(error: &RequestError) -> Failure {
    failed(error)
}

fn failed(error: &dyn std::error::Error) -> Failure {
    Failure::new(Exit::Failed, format_args!("the scanner could not send: {}", chain(error)))
}
