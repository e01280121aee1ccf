//! TLS 1.3 between workers, without a certificate authority. Every listener has a certificate that it made for itself
//! when it began, and whoever connects accepts any: that alone keeps out those who only listen. Who the other side is
//! follows from the handshake in the connection ([`super::handshake`]), whose proofs cover a value that only the two ends of
//! this very connection know. Somebody in the middle has two connections with two such values, and can neither
//! make a proof nor pass one on.

use super::handshake::Binding;
use crate::error::{Error, Result};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, Connection, DigitallySignedStruct, ServerConfig, ServerConnection, SignatureScheme};
use std::io::{self, ErrorKind, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The name that is asked for and that nobody checks.
const NAME: &str = "dqrm";
/// What the value that ties proofs to a connection is exported for.
const EXPORT: &[u8] = b"EXPORTER-dqrm-job";

/// How this worker accepts and makes connections.
#[derive(Debug, Clone)]
pub(super) struct Configs {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

/// Which end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Acceptor,
    Connector,
}

impl Configs {
    /// A new key and certificate.
    pub(super) fn new() -> Result<Configs> {
        let fail = |e: String| Error::Rendezvous(format!("cannot prepare TLS: {e}"));
        let provider = Arc::new(ring::default_provider());
        let key = KeyPair::generate().map_err(|e| fail(e.to_string()))?;
        let mut params = CertificateParams::new([NAME.to_owned()]).map_err(|e| fail(e.to_string()))?;
        params.distinguished_name = DistinguishedName::new();
        let certificate = params.self_signed(&key).map_err(|e| fail(e.to_string()))?;
        let key = PrivateKeyDer::from(key);
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(|e| fail(e.to_string()))?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .map_err(|e| fail(e.to_string()))?;
        // No connection follows from another one.
        server.send_tls13_tickets = 0;
        let mut client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(|e| fail(e.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
            .with_no_client_auth();
        client.resumption = rustls::client::Resumption::disabled();
        client.enable_sni = false;
        Ok(Configs { server: Arc::new(server), client: Arc::new(client) })
    }

    /// A connection that has not begun.
    pub(super) fn begin(&self, end: End) -> io::Result<Session> {
        let connection = match end {
            End::Acceptor => ServerConnection::new(self.server.clone()).map(Connection::from),
            End::Connector => {
                let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
                ClientConnection::new(self.client.clone(), name).map(Connection::from)
            }
        };
        let mut connection = connection.map_err(io::Error::other)?;
        // What is written is taken out at once.
        connection.set_buffer_limit(None);
        Ok(Session(Arc::new(Mutex::new(connection))))
    }
}

/// Accepts every certificate, see above. The signature is checked, so that the other side has the certificate's key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// The state of one connection. It touches no socket: bytes go in, bytes come out. Both threads of a link share it and
/// hold it only while they do that; only the one that writes takes bytes for the peer out, so that these keep their order.
#[derive(Debug, Clone)]
pub(super) struct Session(Arc<Mutex<Connection>>);

impl Session {
    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True until both sides have agreed on keys.
    pub(super) fn is_handshaking(&self) -> bool {
        self.lock().is_handshaking()
    }

    /// Takes bytes of the peer and appends what they say to `out`.
    pub(super) fn take(&self, mut came: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        let mut connection = self.lock();
        while !came.is_empty() {
            if connection.read_tls(&mut came)? == 0 {
                // The peer has said goodbye; what follows is nobody's.
                return Ok(());
            }
            let state = connection.process_new_packets().map_err(|e| io::Error::new(ErrorKind::InvalidData, format!("TLS: {e}")))?;
            let begin = out.len();
            out.resize(begin + state.plaintext_bytes_to_read(), 0);
            connection.reader().read_exact(&mut out[begin..])?;
        }
        Ok(())
    }

    /// What has to be sent so that the peer gets `plain`, and whatever else is due.
    pub(super) fn give(&self, plain: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        let mut connection = self.lock();
        connection.writer().write_all(plain)?;
        while connection.wants_write() {
            connection.write_tls(out)?;
        }
        Ok(())
    }

    /// Says goodbye; the bytes come with the next [`Session::give`].
    pub(super) fn end(&self) {
        self.lock().send_close_notify();
    }

    /// A value that only the two ends of this connection know.
    pub(super) fn binding(&self) -> Result<Binding, rustls::Error> {
        self.lock().export_keying_material(Binding::default(), EXPORT, None)
    }
}
