//! Ed25519 keys. A secret key is made on the node that uses it and never leaves it.

use std::fmt;

use mangrove_crdt::id::{MeshId, NodeId};
use minicbor::{Decode, Encode};
use ring::{
    rand::SystemRandom,
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};

/// The DER bytes in front of the 32 raw bytes of an Ed25519 SubjectPublicKeyInfo (RFC 8410): constant, since the key has one length.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// What went wrong with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The system gave no random bytes; nothing was made.
    #[error("the system gave no random bytes")]
    NoRandomness,
    /// The bytes are no PKCS#8 Ed25519 key, or the two halves of it do not belong together.
    #[error("not an Ed25519 key in PKCS#8")]
    Malformed,
}

/// An Ed25519 secret key, as PKCS#8. Shows itself nowhere: `Debug` prints the public half.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct SecretKey(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>);

impl SecretKey {
    /// Draws a new key from the system's randomness.
    pub fn generate() -> Result<Self, KeyError> {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| KeyError::NoRandomness)?;
        Ok(SecretKey(document.as_ref().to_vec()))
    }

    /// The public half.
    pub fn public(&self) -> Result<PublicKey, KeyError> {
        self.pair()?.public_key().as_ref().try_into().map(PublicKey).map_err(|_| KeyError::Malformed)
    }

    /// Signs a message.
    pub fn sign(&self, message: &[u8]) -> Result<[u8; 64], KeyError> {
        self.pair()?.sign(message).as_ref().try_into().map_err(|_| KeyError::Malformed)
    }

    /// The PKCS#8 document, for the libraries that need it.
    pub(super) fn pkcs8(&self) -> &[u8] {
        &self.0
    }

    fn pair(&self) -> Result<Ed25519KeyPair, KeyError> {
        Ed25519KeyPair::from_pkcs8(&self.0).map_err(|_| KeyError::Malformed)
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.public() {
            Ok(public) => write!(f, "SecretKey(of {public:?})"),
            Err(_) => f.write_str("SecretKey(malformed)"),
        }
    }
}

/// An Ed25519 public key: the raw 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct PublicKey(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 32]);

impl PublicKey {
    /// The node whose key this is.
    pub fn node(&self) -> NodeId {
        NodeId::of_key(&self.0)
    }

    /// The authority whose key this is.
    pub fn authority(&self) -> AuthorityId {
        AuthorityId(*blake3::hash(&self.0).as_bytes())
    }

    /// Whether `signature` is this key's over `message`.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, signature).is_ok()
    }

    /// The key inside a DER SubjectPublicKeyInfo; `None` unless that is Ed25519.
    pub(super) fn from_spki(spki: &[u8]) -> Option<Self> {
        spki.strip_prefix(&SPKI_PREFIX)?.try_into().ok().map(PublicKey)
    }
}

impl rcgen::PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ED25519
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.node().short())
    }
}

/// An authority: the BLAKE3 hash of its Ed25519 public key. That of the root authority is the mesh's id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct AuthorityId(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 32]);

impl AuthorityId {
    /// The mesh that this authority is the root of, if it is one.
    pub fn as_mesh(self) -> MeshId {
        MeshId(self.0)
    }

    /// The root authority of a mesh.
    pub fn root_of(mesh: MeshId) -> Self {
        AuthorityId(mesh.0)
    }

    /// The first eight hexadecimal digits, for people and logs.
    pub fn short(&self) -> String {
        self.as_mesh().short()
    }
}

impl fmt::Debug for AuthorityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuthorityId({})", self.short())
    }
}

impl fmt::Display for AuthorityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_mesh().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_signs_and_survives_storage() {
        let key = SecretKey::generate().unwrap();
        let public = key.public().unwrap();
        let signature = key.sign(b"tide").unwrap();
        assert!(public.verifies(b"tide", &signature));
        assert!(!public.verifies(b"time", &signature));
        let bytes = minicbor::to_vec(&key).unwrap();
        let back: SecretKey = minicbor::decode(&bytes).unwrap();
        assert_eq!(back.public(), Ok(public));
        assert_eq!(format!("{key:?}"), format!("SecretKey(of PublicKey({}))", public.node().short()));
    }

    #[test]
    fn other_bytes_are_no_key() {
        let mut bytes = SecretKey::generate().unwrap().0;
        bytes.truncate(40);
        assert_eq!(SecretKey(bytes).public(), Err(KeyError::Malformed));
        assert_eq!(PublicKey::from_spki(&[0x30, 0x2a]), None);
    }
}
