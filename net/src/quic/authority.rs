//! Who may be a node of this mesh: certificates, who signs them, and what a node keeps of them.
//!
//! A mesh begins with one **root authority**: an Ed25519 key with a self-signed certificate, whose hashed public key *is* the
//! mesh's id. Every node has its own key and a certificate for it; every node with the role *authority* has, besides, an authority
//! key of its own with a CA certificate. So no key is ever on two disks, and losing any node, the founder too, loses nothing:
//!
//! ```text
//!   root ──signs──▶ A2 ──signs──▶ A3          authority certificates: no end, up to 6 below the root
//!    │               │             │
//!    ▼               ▼             ▼
//!   node 1         node 2 …      node 9       node certificates: VALIDITY_SECONDS, renewed by any authority
//! ```
//!
//! Authority certificates do not expire: with the root's key gone nobody could renew the first of them, and the mesh would end on
//! a date. They are withdrawn by revocation (see [`Revoked`](super::tls::Revoked)).
//! A node certificate names its mesh as a DNS name, so that the ordinary TLS check of a server's name is the check of its mesh.

use std::time::Duration;

use mangrove_crdt::id::{MeshId, NodeId};
use minicbor::{Decode, Encode, bytes::ByteVec};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose, SerialNumber,
    date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use super::{
    key::{AuthorityId, KeyError, PublicKey, SecretKey},
    ticket::Role,
    tls::{self, TrustError},
};

/// How long a node's certificate is valid. Renewal is due in its last third.
pub const VALIDITY_SECONDS: u64 = 365 * 24 * 3600;

/// How far before the issuer's own clock a certificate begins: clocks of nodes that meet for the first time differ.
const BACKDATED_SECONDS: u64 = 24 * 3600;

/// How many authorities may stand below the root in one chain: as many as webpki follows.
pub const CHAIN_DEPTH_MAX: usize = 6;

/// The largest encoding of a chain that is read: leaf, [`CHAIN_DEPTH_MAX`] authorities and the root are each well under 1 KiB.
const CHAIN_BYTES_MAX: usize = 16 * 1024;

/// The DNS name by which certificates of a mesh name it. Half of the id: a DNS label has at most 63 characters, and the name is
/// only for telling meshes apart; what proves membership is the chain to the root key.
pub fn mesh_name(mesh: MeshId) -> String {
    format!("{}.mesh.mangrove", &mesh.to_string()[..32])
}

/// Why certificates could not be made or put together. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A key is missing or malformed.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The chain would be longer than [`CHAIN_DEPTH_MAX`]; an authority nearer to the root can do it.
    #[error(
        "this authority is already {CHAIN_DEPTH_MAX} steps below the root and cannot make further authorities; ask one nearer to the root"
    )]
    TooDeep,
    /// The certificate library refused; the text is its own.
    #[error("cannot make the certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The certificates are not of this mesh, or not for these keys.
    #[error("the certificates do not fit: {0}")]
    Trust(#[from] TrustError),
    /// The certificates are for another key or another role than was asked for.
    #[error("the certificates do not fit: {0}")]
    Mismatch(&'static str),
    /// The stored bytes are damaged: their checksum does not fit.
    #[error("the stored identity is damaged")]
    Damaged,
    /// The stored bytes are whole, but of another version.
    #[error("the stored identity cannot be read: {0}")]
    Decode(#[from] minicbor::decode::Error),
}

/// A certificate and those of its issuers in order; the last is the root's.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Chain(#[n(0)] Vec<ByteVec>);

impl Chain {
    fn new(first: &[u8], rest: &Chain) -> Self {
        Chain(std::iter::once(ByteVec::from(first.to_vec())).chain(rest.0.iter().cloned()).collect())
    }

    /// All certificates, DER.
    pub fn certificates(&self) -> Vec<CertificateDer<'static>> {
        self.0.iter().map(|der| CertificateDer::from(der.to_vec())).collect()
    }

    /// The root authority's certificate, DER.
    pub fn root(&self) -> Option<CertificateDer<'_>> {
        self.0.last().map(|der| CertificateDer::from(&der[..]))
    }

    fn within_limits(&self) -> bool {
        (1..=CHAIN_DEPTH_MAX + 2).contains(&self.0.len()) && self.0.iter().map(|der| der.len()).sum::<usize>() <= CHAIN_BYTES_MAX
    }
}

/// What an authority answers to a node: its certificates, never a key.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Certificates {
    /// For the node's key.
    #[n(0)]
    pub node: Chain,
    /// For its authority key, if it is to be one.
    #[n(1)]
    pub authority: Option<Chain>,
}

/// The right to make nodes and further authorities of a mesh: a key and its CA certificate's chain.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Authority {
    #[n(0)]
    key: SecretKey,
    #[n(1)]
    chain: Chain,
}

impl Authority {
    /// Begins a mesh: a root authority that nobody else vouches for.
    pub fn found() -> Result<Self, IdentityError> {
        let key = SecretKey::generate()?;
        let params = authority_params(&key.public()?)?;
        let root = params.self_signed(&signer(&key)?)?;
        Ok(Authority { chain: Chain(vec![ByteVec::from(root.der().to_vec())]), key })
    }

    /// Which authority this is.
    pub fn id(&self) -> Result<AuthorityId, IdentityError> {
        Ok(self.key.public()?.authority())
    }

    /// Signs certificates for a node that has proved that it holds these keys: valid [`VALIDITY_SECONDS`] from `now` (seconds since
    /// 1970). With `authority`, the node becomes an authority too.
    pub fn certify(&self, now: u64, node: &PublicKey, authority: Option<&PublicKey>) -> Result<Certificates, IdentityError> {
        self.certify_for(now.saturating_sub(BACKDATED_SECONDS), now.saturating_add(VALIDITY_SECONDS), node, authority)
    }

    /// As [`Authority::certify`], with the node certificate's first and last second.
    pub fn certify_for(
        &self,
        not_before: u64,
        not_after: u64,
        node: &PublicKey,
        authority: Option<&PublicKey>,
    ) -> Result<Certificates, IdentityError> {
        let mesh = self.mesh()?;
        let issuer = Issuer::new(authority_params(&self.key.public()?)?, signer(&self.key)?);
        let certificate = node_params(mesh, node, not_before, not_after)?.signed_by(node, &issuer)?;
        let authority = match authority {
            Some(_) if self.chain.0.len() > CHAIN_DEPTH_MAX => return Err(IdentityError::TooDeep),
            Some(key) => Some(Chain::new(authority_params(key)?.signed_by(key, &issuer)?.der(), &self.chain)),
            None => None,
        };
        Ok(Certificates { node: Chain::new(certificate.der(), &self.chain), authority })
    }

    /// The mesh that this authority signs for.
    pub fn mesh(&self) -> Result<MeshId, IdentityError> {
        let root = self.chain.root().ok_or(IdentityError::Mismatch("there is no root certificate"))?;
        Ok(tls::key_of(&root)?.authority().as_mesh())
    }
}

/// A node on its way into a mesh: its keys, made before anybody is asked, so that they can be stored first and a join that was
/// interrupted can be repeated with the same ticket.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Applicant {
    #[n(0)]
    pub(super) key: SecretKey,
    #[n(1)]
    pub(super) authority: Option<SecretKey>,
}

impl Applicant {
    /// Draws the keys that the role needs.
    pub fn new(role: Role) -> Result<Self, KeyError> {
        let authority = match role {
            Role::Member => None,
            Role::Authority => Some(SecretKey::generate()?),
        };
        Ok(Applicant { key: SecretKey::generate()?, authority })
    }

    /// The node that this will be.
    pub fn node(&self) -> Result<NodeId, KeyError> {
        Ok(self.key.public()?.node())
    }

    /// The public half of the node key.
    pub fn node_key(&self) -> Result<PublicKey, KeyError> {
        self.key.public()
    }

    /// The public half of the authority key, if the role has one.
    pub fn authority_key(&self) -> Result<Option<PublicKey>, KeyError> {
        self.authority.as_ref().map(SecretKey::public).transpose()
    }

    /// Puts keys and certificates together, after checking every one of them against the mesh's root key.
    pub fn admitted(self, mesh: MeshId, certificates: Certificates) -> Result<Identity, IdentityError> {
        let authority = match (self.authority, certificates.authority) {
            (Some(key), Some(chain)) => Some(Authority { key, chain }),
            (None, None) => None,
            (Some(_), None) => return Err(IdentityError::Mismatch("no authority certificate among them")),
            (None, Some(_)) => return Err(IdentityError::Mismatch("an authority certificate that was not asked for")),
        };
        Identity { mesh, key: self.key, chain: certificates.node, authority }.checked()
    }
}

/// All that makes a node a member of its mesh: what the vault stores. Holds secret keys.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Identity {
    #[n(0)]
    mesh: MeshId,
    #[n(1)]
    key: SecretKey,
    #[n(2)]
    chain: Chain,
    #[n(3)]
    authority: Option<Authority>,
}

impl Identity {
    /// Begins a mesh: the root authority and its first node, certified at `now` (seconds since 1970).
    pub fn found(now: u64) -> Result<Self, IdentityError> {
        let authority = Authority::found()?;
        let key = SecretKey::generate()?;
        let certificates = authority.certify(now, &key.public()?, None)?;
        Identity { mesh: authority.mesh()?, key, chain: certificates.node, authority: Some(authority) }.checked()
    }

    /// Reads what [`Identity::to_bytes`] wrote, and checks it as if it came from elsewhere.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, IdentityError> {
        let (checksum, contents) = bytes.split_first_chunk::<16>().ok_or(IdentityError::Damaged)?;
        match checksum_of(contents) == *checksum {
            true => minicbor::decode::<Identity>(contents)?.checked(),
            false => Err(IdentityError::Damaged),
        }
    }

    /// For the vault, with a checksum. Contains the secret keys.
    pub fn to_bytes(&self) -> Vec<u8> {
        let contents = minicbor::to_vec(self).expect("writing to a vector does not fail");
        [&checksum_of(&contents)[..], &contents].concat()
    }

    /// The mesh.
    pub fn mesh(&self) -> MeshId {
        self.mesh
    }

    /// The node.
    pub fn node(&self) -> NodeId {
        self.public_key().node()
    }

    /// The node's public key.
    pub fn public_key(&self) -> PublicKey {
        self.key.public().expect("checked when the identity was made")
    }

    /// The node's right to make others, if it has the role.
    pub fn authority(&self) -> Option<&Authority> {
        self.authority.as_ref()
    }

    /// The node certificate and its issuers.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    pub(super) fn key(&self) -> &SecretKey {
        &self.key
    }

    pub(super) fn authority_key(&self) -> Option<&SecretKey> {
        self.authority.as_ref().map(|authority| &authority.key)
    }

    /// The node certificate's last second, since 1970.
    pub fn expires(&self) -> u64 {
        self.chain.0.first().and_then(|leaf| tls::not_after(leaf)).unwrap_or(0)
    }

    /// Whether an authority should be asked for a new certificate: in the last third of this one's life, and after it.
    pub fn renewal_due(&self, now: u64) -> bool {
        now.saturating_add(VALIDITY_SECONDS / 3) >= self.expires()
    }

    /// The same node with new certificates. Keeps its authority chain if the answer holds none.
    pub fn renewed(&self, certificates: Certificates) -> Result<Self, IdentityError> {
        let authority = match (&self.authority, certificates.authority) {
            (Some(held), Some(chain)) => Some(Authority { key: held.key.clone(), chain }),
            (Some(held), None) => Some(held.clone()),
            (None, None) => None,
            (None, Some(_)) => return Err(IdentityError::Mismatch("an authority certificate that was not asked for")),
        };
        Identity { mesh: self.mesh, key: self.key.clone(), chain: certificates.node, authority }.checked()
    }

    /// The node's certificate renewed by its own authority key, if it has one.
    pub fn renewed_by_itself(&self, now: u64) -> Result<Option<Self>, IdentityError> {
        match &self.authority {
            Some(authority) => self.renewed(authority.certify(now, &self.public_key(), None)?).map(Some),
            None => Ok(None),
        }
    }

    /// Every key parses, every chain leads to this mesh's root, every certificate is for the key beside it.
    fn checked(self) -> Result<Self, IdentityError> {
        check_chain(self.mesh, &self.chain, &self.key.public()?)?;
        if let Some(authority) = &self.authority {
            let key = authority.key.public()?;
            if authority.chain.0.len() == 1 {
                // The root: nobody vouches for it but its hash.
                if key.authority().as_mesh() != self.mesh || authority.mesh()? != self.mesh {
                    return Err(IdentityError::Mismatch("the root authority's key is not this mesh's"));
                }
            } else {
                check_authority_chain(self.mesh, authority, &key)?;
            }
        }
        Ok(self)
    }
}

fn checksum_of(contents: &[u8]) -> [u8; 16] {
    let hash = blake3::derive_key("mangrove identity checksum 1", contents);
    *hash.first_chunk().expect("32 bytes begin with 16")
}

fn check_chain(mesh: MeshId, chain: &Chain, key: &PublicKey) -> Result<(), IdentityError> {
    let certificates = chain.certificates();
    let (leaf, issuers) = match certificates.split_first() {
        Some(split) if chain.within_limits() => split,
        _ => return Err(IdentityError::Mismatch("the chain is empty or too long")),
    };
    if tls::key_of(leaf)? != *key {
        return Err(IdentityError::Mismatch("the certificate is for another key"));
    }
    // At its own last second: whether it has expired meanwhile is for the peers, with their grace, to judge.
    let at = tls::not_after(leaf).ok_or(IdentityError::Mismatch("the certificate has no end"))?;
    tls::Trust::of_mesh(mesh).check(leaf, issuers, at)?;
    Ok(())
}

/// A CA certificate cannot be checked as a leaf, so a throwaway node is certified with it and checked in its place.
fn check_authority_chain(mesh: MeshId, authority: &Authority, key: &PublicKey) -> Result<(), IdentityError> {
    let certificates = authority.chain.certificates();
    let first = certificates.first().ok_or(IdentityError::Mismatch("the authority's chain is empty"))?;
    if tls::key_of(first)? != *key {
        return Err(IdentityError::Mismatch("the authority's certificate is for another key"));
    }
    let probe = SecretKey::generate()?.public()?;
    check_chain(mesh, &authority.certify_for(0, VALIDITY_SECONDS, &probe, None)?.node, &probe)
}

fn authority_params(key: &PublicKey) -> Result<CertificateParams, IdentityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = name(&format!("mangrove authority {}", &key.authority().to_string()[..32]));
    params.serial_number = Some(serial()?);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    // RFC 5280 4.1.2.5: "no well-defined expiration date".
    params.not_before = date_time_ymd(1970, 1, 1);
    params.not_after = date_time_ymd(9999, 12, 31);
    Ok(params)
}

fn node_params(mesh: MeshId, key: &PublicKey, not_before: u64, not_after: u64) -> Result<CertificateParams, IdentityError> {
    let mut params = CertificateParams::new(vec![mesh_name(mesh)])?;
    params.distinguished_name = name(&format!("mangrove node {}", key.node().short()));
    params.serial_number = Some(serial()?);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let epoch = date_time_ymd(1970, 1, 1);
    // A clock that is thousands of years wrong must not panic the date arithmetic.
    const LAST_SECOND: u64 = 253_370_764_800;
    params.not_before = epoch + Duration::from_secs(not_before.min(LAST_SECOND));
    params.not_after = epoch + Duration::from_secs(not_after.min(LAST_SECOND));
    Ok(params)
}

fn name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}

/// Sixteen random bytes: positive, and unlike any other certificate's of the same key.
fn serial() -> Result<SerialNumber, KeyError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| KeyError::NoRandomness)?;
    bytes[0] = bytes[0] & 0x3f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn signer(key: &SecretKey) -> Result<rcgen::KeyPair, IdentityError> {
    Ok(rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(key.pkcs8()), &rcgen::PKCS_ED25519)?)
}
