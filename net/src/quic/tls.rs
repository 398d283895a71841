//! TLS 1.3 bound to the mesh: whom a handshake lets in.
//!
//! A peer is let in if its certificate leads to *this* mesh's root key, names this mesh, and its node is not revoked. Three things
//! differ from the web's rules, each because a mesh has to outlive partitions:
//!
//! - **Expiry warns before it refuses.** A certificate is taken for [`GRACE_SECONDS`] after its end, with a warning in the log:
//!   a node that could reach no authority for a while must not lose its mesh for that. It is revocation that removes a node.
//! - **A certificate from the future is taken**, with a warning: only a wrong clock sees one, and edge devices wake up in 1970.
//! - **A revoked authority loses its future, not its past** (see [`Revoked`]).
//!
//! Sessions are not resumed: a resumed handshake shows no certificate, so a revoked node would still get in by it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use mangrove_crdt::id::{MeshId, NodeId};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use webpki::{EndEntityCert, KeyUsage};

use super::{
    authority::{Identity, mesh_name},
    key::{AuthorityId, PublicKey},
};

/// How long after its end a certificate is still taken, with a warning.
pub const GRACE_SECONDS: u64 = 365 * 24 * 3600;

/// Mesh links. Both ends show their certificates.
pub const ALPN_MESH: &[u8] = b"mangrove-mesh/1";
/// Clients: the node shows its certificate; the client says who it is inside.
pub const ALPN_CLIENT: &[u8] = b"mangrove-client/1";
/// Tickets and renewals.
pub const ALPN_JOIN: &[u8] = b"mangrove-join/1";

/// Why a peer's certificate was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// It is a Mangrove certificate, but of another mesh.
    #[error("wrong mesh: the certificate is of another mesh than {}", .expected.short())]
    WrongMesh {
        /// The mesh that was expected.
        expected: MeshId,
    },
    /// Its node is revoked.
    #[error("node {} is revoked", .0.short())]
    Revoked(NodeId),
    /// It was issued by an authority that is revoked, and its holder was not known before.
    #[error("the authority {} that issued the certificate of {} is revoked", .authority.short(), .node.short())]
    IssuerRevoked {
        /// The revoked authority.
        authority: AuthorityId,
        /// Who showed the certificate.
        node: NodeId,
    },
    /// It ended longer ago than [`GRACE_SECONDS`].
    #[error("the certificate of {} expired {days} days ago, beyond the grace of {} days; it needs a new ticket", .node.short(), GRACE_SECONDS / 86_400)]
    Expired {
        /// Whose it is.
        node: NodeId,
        /// Days since its end.
        days: u64,
    },
    /// Another node answered than the one that was dialled.
    #[error("expected node {} there, found {}", .expected.short(), .found.short())]
    WrongNode {
        /// The node that was dialled.
        expected: NodeId,
        /// The node that answered.
        found: NodeId,
    },
    /// It is no certificate that a mesh would issue.
    #[error("not a Mangrove certificate: {0}")]
    NotMangrove(String),
}

/// Who is out, and who was known to be in: what a node has learned from the mesh's records.
///
/// Revoking an *authority* bars what it signs from then on. It can still sign (its key may be in a thief's hands), and it can put
/// any date on it, so dates say nothing. What tells past from future is the mesh's own memory: whoever was *known* before
/// stays. A certificate signed by a revoked authority is accepted only for a node in `known_nodes`, and likewise a revoked
/// authority's sub-authorities only if in `known_authorities`. With empty sets, revoking an authority bars all that it ever
/// invited, until another authority renews them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revoked {
    /// Nodes that are let in no more, each with what it is told: by whom it was revoked, and why.
    pub nodes: BTreeMap<NodeId, String>,
    /// Authorities whose new certificates are not accepted.
    pub authorities: BTreeSet<AuthorityId>,
    /// Nodes known to be members, whoever certified them.
    pub known_nodes: BTreeSet<NodeId>,
    /// Authorities known to be such.
    pub known_authorities: BTreeSet<AuthorityId>,
}

/// The shared handle on [`Revoked`]: the node updates it, every later handshake looks at it. Connections that already stand are
/// for the node to close.
#[derive(Debug, Clone, Default)]
pub struct Revocations(Arc<RwLock<Revoked>>);

impl Revocations {
    /// A handle with these contents.
    pub fn new(revoked: Revoked) -> Self {
        Revocations(Arc::new(RwLock::new(revoked)))
    }

    /// Changes the contents.
    pub fn update(&self, change: impl FnOnce(&mut Revoked)) {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Whether a node is revoked.
    pub fn is_revoked(&self, node: NodeId) -> bool {
        self.read(|revoked| revoked.nodes.contains_key(&node))
    }

    /// What a revoked node is told.
    pub(super) fn said_to(&self, node: NodeId) -> Option<String> {
        self.read(|revoked| revoked.nodes.get(&node).cloned())
    }

    fn read<T>(&self, look: impl FnOnce(&Revoked) -> T) -> T {
        look(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The public key in a certificate; an error unless it is Ed25519.
pub(super) fn key_of(certificate: &CertificateDer<'_>) -> Result<PublicKey, TrustError> {
    let parsed = EndEntityCert::try_from(certificate).map_err(|error| TrustError::NotMangrove(error.to_string()))?;
    PublicKey::from_spki(&parsed.subject_public_key_info()).ok_or_else(|| TrustError::NotMangrove("its key is not Ed25519".into()))
}

/// A certificate's last second. The parser keeps validity to itself but names it when asked about the end of time.
pub(super) fn not_after(certificate: &[u8]) -> Option<u64> {
    let der = CertificateDer::from(certificate);
    let parsed = EndEntityCert::try_from(&der).ok()?;
    let end_of_time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(u64::MAX));
    match parsed.verify_for_usage(&[], &[], &[], end_of_time, KeyUsage::server_auth(), None, None) {
        Err(webpki::Error::CertExpired { not_after, .. }) => Some(not_after.as_secs()),
        _ => None,
    }
}

/// What a certificate is held against.
#[derive(Debug, Clone)]
pub struct Trust {
    mesh: MeshId,
    revocations: Revocations,
    /// Whether a revoked node passes here, since it is turned away after the handshake.
    told_later: bool,
}

impl Trust {
    /// Any node of the mesh, whatever has been revoked: for one who is not in it yet.
    pub fn of_mesh(mesh: MeshId) -> Self {
        Trust { mesh, revocations: Revocations::default(), told_later: false }
    }

    /// Any node of the mesh that is not revoked.
    pub fn new(mesh: MeshId, revocations: Revocations) -> Self {
        Trust { mesh, revocations, told_later: false }
    }

    /// The same for the accepting side, which lets a revoked node finish its handshake, only to be told so and turned away: what TLS can say of a
    /// refusal, nobody could believe.
    fn at_the_door(mesh: MeshId, revocations: Revocations) -> Self {
        Trust { told_later: true, ..Trust::new(mesh, revocations) }
    }

    pub(super) fn mesh(&self) -> MeshId {
        self.mesh
    }

    /// Who shows this certificate, at `now` (seconds since 1970); `issuers` in any order, the root's among them.
    pub fn check(&self, leaf: &CertificateDer<'_>, issuers: &[CertificateDer<'_>], now: u64) -> Result<NodeId, TrustError> {
        let node = key_of(leaf)?.node();
        let parsed = EndEntityCert::try_from(leaf).map_err(|error| TrustError::NotMangrove(error.to_string()))?;
        let name = mesh_name(self.mesh);
        if !parsed.valid_dns_names().any(|presented| presented == name) {
            return Err(match parsed.valid_dns_names().any(|presented| presented.ends_with(".mesh.mangrove")) {
                true => TrustError::WrongMesh { expected: self.mesh },
                false => TrustError::NotMangrove("it names no mesh".into()),
            });
        }
        // The root is whichever certificate holds the key whose hash is the mesh's id; only that key is trusted, so it matters
        // not who sent it.
        let root = issuers
            .iter()
            .find(|issuer| key_of(issuer).is_ok_and(|key| key.authority().as_mesh() == self.mesh))
            .ok_or(TrustError::WrongMesh { expected: self.mesh })?;
        let path = self.verify(&parsed, node, root, issuers, now)?;
        self.check_issuers(node, &path)?;
        match !self.told_later && self.revocations.is_revoked(node) {
            true => Err(TrustError::Revoked(node)),
            false => Ok(node),
        }
    }

    /// The authorities between the root and the leaf, nearest to the leaf first, once the signatures hold.
    fn verify(
        &self,
        leaf: &EndEntityCert<'_>,
        node: NodeId,
        root: &CertificateDer<'_>,
        issuers: &[CertificateDer<'_>],
        now: u64,
    ) -> Result<Vec<AuthorityId>, TrustError> {
        let anchors = [webpki::anchor_from_trusted_cert(root).map_err(|error| TrustError::NotMangrove(error.to_string()))?];
        let mut at = now;
        // Twice: once at the present, and once within the certificate's life if it is out of it but may still be taken.
        loop {
            let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(at));
            let usage = KeyUsage::server_auth();
            match leaf.verify_for_usage(&[webpki::ring::ED25519], &anchors, issuers, time, usage, None, None) {
                Ok(path) => {
                    let spki = |issuer: &webpki::Cert<'_>| PublicKey::from_spki(&issuer.subject_public_key_info());
                    return Ok(path.intermediate_certificates().filter_map(spki).map(|key| key.authority()).collect());
                }
                Err(webpki::Error::CertExpired { not_after, .. }) if at == now => {
                    let late = now.saturating_sub(not_after.as_secs());
                    if late > GRACE_SECONDS {
                        return Err(TrustError::Expired { node, days: late / 86_400 });
                    }
                    tracing::warn!(node = %node.short(), days = late / 86_400, "certificate expired; accepted within its grace");
                    at = not_after.as_secs();
                }
                Err(webpki::Error::CertNotValidYet { not_before, .. }) if at == now => {
                    tracing::warn!(node = %node.short(), "certificate from the future; accepted: a clock here or there is wrong");
                    at = not_before.as_secs();
                }
                Err(error) => return Err(TrustError::NotMangrove(error.to_string())),
            }
        }
    }

    fn check_issuers(&self, node: NodeId, path: &[AuthorityId]) -> Result<(), TrustError> {
        self.revocations.read(|revoked| {
            let mut subject_known = revoked.known_nodes.contains(&node);
            for authority in path.iter().copied().chain([AuthorityId::root_of(self.mesh)]) {
                if revoked.authorities.contains(&authority) && !subject_known {
                    return Err(TrustError::IssuerRevoked { authority, node });
                }
                subject_known = revoked.known_authorities.contains(&authority);
            }
            Ok(())
        })
    }
}

/// Where a client-side handshake leaves the reason for which it refused the server: quinn passes on only its text.
#[derive(Debug, Clone, Default)]
pub(super) struct Refusal(Arc<Mutex<Option<TrustError>>>);

impl Refusal {
    pub(super) fn take(&self) -> Option<TrustError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

struct Verifier {
    trust: Trust,
    expected: Option<NodeId>,
    refusal: Refusal,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    fn new(trust: Trust, expected: Option<NodeId>, refusal: Refusal) -> Arc<Self> {
        Arc::new(Verifier { trust, expected, refusal, algorithms: provider().signature_verification_algorithms })
    }

    fn verify(&self, leaf: &CertificateDer<'_>, issuers: &[CertificateDer<'_>], now: UnixTime) -> Result<(), rustls::Error> {
        let verdict = self.trust.check(leaf, issuers, now.as_secs()).and_then(|found| match self.expected {
            Some(expected) if expected != found => Err(TrustError::WrongNode { expected, found }),
            _ => Ok(()),
        });
        verdict.map_err(|error| {
            *self.refusal.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
            // Its text goes to the peer as the reason; a certificate error of rustls would show the enum's insides.
            rustls::Error::General(error.to_string())
        })
    }

    fn signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verifier({})", self.trust.mesh.short())
    }
}

/// TLS 1.2 is never offered.
fn too_old() -> rustls::Error {
    rustls::Error::General("TLS 1.3 only".into())
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        issuers: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify(leaf, issuers, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

impl ClientCertVerifier for Verifier {
    /// Clients and joiners have no certificate yet. The mesh protocol insists on one after the handshake.
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        issuers: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.verify(leaf, issuers, now).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

/// The serving side: this node's certificate, any of the three protocols.
pub(super) fn server_config(identity: &Identity, revocations: &Revocations) -> Result<ServerConfig, rustls::Error> {
    let verifier = Verifier::new(Trust::at_the_door(identity.mesh(), revocations.clone()), None, Refusal::default());
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain().certificates(), private_key(identity))?;
    config.alpn_protocols = vec![ALPN_MESH.to_vec(), ALPN_CLIENT.to_vec(), ALPN_JOIN.to_vec()];
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// The dialling side: with an identity it shows that certificate, without one it stays anonymous.
pub(super) fn client_config(
    alpn: &[u8],
    identity: Option<&Identity>,
    trust: Trust,
    expected: Option<NodeId>,
) -> Result<(ClientConfig, Refusal), rustls::Error> {
    let refusal = Refusal::default();
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Verifier::new(trust, expected, refusal.clone()));
    let mut config = match identity {
        Some(identity) => builder.with_client_auth_cert(identity.chain().certificates(), private_key(identity))?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok((config, refusal))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn private_key(identity: &Identity) -> PrivateKeyDer<'static> {
    PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(identity.key().pkcs8().to_vec()))
}
