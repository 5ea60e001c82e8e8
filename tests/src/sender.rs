//! A sender of our own: knows byte by byte what it sent, and remembers what was acknowledged.
//!
//! It uses the product's requesting role, which the product also uses towards partners; where the bytes on the wire are
//! the point, there is `RawDicom`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gantry_gateway::association::dimse::CStoreRq;
use gantry_gateway::association::requestor::{Proposal, RequestError, Requestor, Storing};
use gantry_gateway::association::status::Status;
use gantry_gateway::association::wire::{Stream, Tcp};
use gantry_store::dicom::{SopClassUid, TransferSyntax};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use sample_studies::Instance;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::digest;

/// One association to the node.
pub struct Sender {
    association: Requestor<Box<dyn Stream>>,
    /// The digest of each instance that was answered 0000H, by SOP Instance UID.
    pub acknowledged: BTreeMap<String, String>,
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender")
            .field("acknowledged", &self.acknowledged.len())
            .finish_non_exhaustive()
    }
}

impl Sender {
    /// Asks for an association as PACS with GANTRY, for these instances.
    pub async fn connect(to: SocketAddr, instances: &[Instance]) -> Result<Self, RequestError> {
        Self::connect_as("PACS", "GANTRY", to, instances).await
    }

    /// The same, under other names.
    pub async fn connect_as(
        calling: &str,
        called: &str,
        to: SocketAddr,
        instances: &[Instance],
    ) -> Result<Self, RequestError> {
        Self::associate(calling, called, Box::new(tcp(to).await?), instances).await
    }

    /// The same, over TLS.
    pub async fn connect_tls(
        calling: &str,
        called: &str,
        to: SocketAddr,
        client: Arc<ClientConfig>,
        instances: &[Instance],
    ) -> Result<Self, RequestError> {
        let name = ServerName::try_from("localhost").expect("localhost is a name");
        let stream =
            TlsConnector::from(client).connect(name, tcp(to).await?).await.map_err(lost)?;
        Self::associate(calling, called, Box::new(stream), instances).await
    }

    async fn associate(
        calling: &str,
        called: &str,
        stream: Box<dyn Stream>,
        instances: &[Instance],
    ) -> Result<Self, RequestError> {
        let mut contexts: Vec<(SopClassUid, Vec<TransferSyntax>)> = vec![(
            "1.2.840.10008.1.1".parse().expect("verification is a UID"),
            vec![TransferSyntax::implicit_vr_little_endian()],
        )];
        for instance in instances {
            let context = (kind(instance), vec![syntax(instance)]);
            if !contexts.contains(&context) {
                contexts.push(context);
            }
        }
        let proposal = Proposal {
            calling: calling.parse().expect("an AE title"),
            called: called.parse().expect("an AE title"),
            contexts,
            provides: None,
            max_pdu: 128 * 1024,
            patience: Duration::from_secs(30),
        };
        Ok(Self {
            association: Requestor::associate(stream, &proposal).await?,
            acknowledged: BTreeMap::new(),
        })
    }

    /// C-STORE of a whole instance.
    pub async fn store(&mut self, instance: &Instance) -> Result<Status, RequestError> {
        let status = self.begin(instance).await?.end(&instance.data_set).await?;
        if status == Status::SUCCESS {
            self.acknowledged.insert(instance.sop_instance_uid.clone(), digest(&instance.data_set));
        }
        Ok(status)
    }

    /// C-STORE of every instance, of which each must be answered 0000H.
    pub async fn store_all(&mut self, instances: &[Instance]) {
        for instance in instances {
            let status = self.store(instance).await.expect("the association holds");
            assert_eq!(status, Status::SUCCESS, "instance {}", instance.sop_instance_uid);
        }
    }

    /// Sends the command of a C-STORE; its data set follows as the test likes.
    pub async fn begin(
        &mut self,
        instance: &Instance,
    ) -> Result<Storing<'_, Box<dyn Stream>>, RequestError> {
        let context = self.association.context_for(&kind(instance), &syntax(instance));
        let context =
            context.unwrap_or_else(|| panic!("no context for {}", instance.transfer_syntax_uid));
        let request = CStoreRq {
            message_id: 0,
            sop_class: kind(instance),
            sop_instance: instance.sop_instance_uid.parse().expect("a UID"),
            priority: 0,
        };
        self.association.store_begin(context, request).await
    }

    /// Whether instances of this kind and encoding were accepted.
    pub fn may_send(&self, instance: &Instance) -> bool {
        self.association.context_for(&kind(instance), &syntax(instance)).is_some()
    }

    /// C-ECHO.
    pub async fn echo(&mut self) -> Result<Status, RequestError> {
        self.association.echo().await
    }

    /// How long the peer may take for anything from here on.
    pub fn set_patience(&mut self, patience: Duration) {
        self.association.set_patience(patience);
    }

    /// Ends the association in order.
    pub async fn release(self) -> BTreeMap<String, String> {
        self.association.release(Duration::from_secs(10)).await;
        self.acknowledged
    }
}

async fn tcp(to: SocketAddr) -> Result<Tcp, RequestError> {
    let stream = TcpStream::connect(to).await.map_err(lost)?;
    Tcp::new(stream).map_err(lost)
}

fn lost(error: std::io::Error) -> RequestError {
    RequestError::Wire(error.into())
}

fn kind(instance: &Instance) -> SopClassUid {
    instance.sop_class_uid.parse().expect("a UID")
}

fn syntax(instance: &Instance) -> TransferSyntax {
    instance.transfer_syntax_uid.parse().expect("a UID")
}
