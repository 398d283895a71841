//! Credentials: what lets a program use a node. The operator's, which a node writes for itself, or who somebody is, which `mangrove login` writes.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use mangrove_crdt::id::MeshId;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::protocol::{Login, Secret};

/// A client's secret, 32 random bytes. Shown as 64 hexadecimal digits, but not by `Debug`, and wiped from memory when it goes.
#[derive(Clone, PartialEq, Eq)]
pub struct Token([u8; 32]);

impl Token {
    /// The secret with these bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Token(bytes)
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// A text that is not the 64 hexadecimal digits of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a token is 64 hexadecimal digits")]
pub struct BadToken;

impl FromStr for Token {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Self, BadToken> {
        let digits = text.as_bytes();
        if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(BadToken);
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| BadToken)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| BadToken)?;
        }
        Ok(Token(bytes))
    }
}

impl From<&Token> for String {
    fn from(token: &Token) -> String {
        token.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// What a client shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// The operator's secret, which one node knows: it may do anything.
    Operator(Token),
    /// Who it is, on any node of the mesh.
    Login(Login),
}

impl From<Token> for Proof {
    fn from(token: Token) -> Self {
        Proof::Operator(token)
    }
}

impl From<Login> for Proof {
    fn from(login: Login) -> Self {
        Proof::Login(login)
    }
}

/// Where a node is, what it must prove, and what the client shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// `HOST:PORT`.
    pub node: String,
    /// The mesh that the node must prove to be of.
    pub mesh: MeshId,
    /// What the client shows.
    pub proof: Proof,
}

/// Why there is no credential. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// There is no such file.
    #[error("there is no credential at {0}")]
    Missing(PathBuf),
    /// Others than its owner may read it.
    #[error("{path} can be read by others (mode {mode:03o})")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is not a credential.
    #[error("{path} is not a credential: {cause}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// The system refused.
    #[error("{path}: {cause}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
}

impl CredentialError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            CredentialError::Missing(_) => {
                "`mangrove up` or `mangrove init` writes one into the data directory, `mangrove login` another; name it with --data DIR or --credential FILE".into()
            }
            CredentialError::Exposed { path, .. } => format!("chmod 600 {}", path.display()),
            CredentialError::Malformed { .. } => "take a copy of the operator.toml in the node's data directory".into(),
            CredentialError::Io { .. } => "run as the user who started the node, or copy its operator.toml to one of your own".into(),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CredentialFile {
    node: String,
    mesh: String,
    /// The operator's secret.
    token: Option<String>,
    principal: Option<String>,
    password: Option<Zeroizing<String>>,
    /// A signed token (JWT).
    jwt: Option<Zeroizing<String>>,
}

impl Credential {
    /// The credential in a file, if nobody but its owner may read it.
    pub fn read(path: &Path) -> Result<Credential, CredentialError> {
        let io = |cause: io::Error| match cause.kind() {
            io::ErrorKind::NotFound => CredentialError::Missing(path.into()),
            _ => CredentialError::Io { path: path.into(), cause },
        };
        let file = fs::File::open(path).map_err(io)?;
        refuse_exposed(path, &file.metadata().map_err(io)?)?;
        let text = io::read_to_string(file).map_err(io)?;
        let malformed = |cause: String| CredentialError::Malformed { path: path.into(), cause };
        let file: CredentialFile = toml::from_str(&text).map_err(|error| malformed(error.message().into()))?;
        let mesh = file.mesh.parse().map_err(|error| malformed(format!("mesh: {error}")))?;
        let proof = match (file.token, file.principal, file.password, file.jwt) {
            (Some(token), None, None, None) => Proof::Operator(token.parse().map_err(|error| malformed(format!("token: {error}")))?),
            (None, Some(principal), Some(password), None) => {
                Proof::Login(Login::Password { principal, password: Secret::new(password.as_bytes()) })
            }
            (None, None, None, Some(jwt)) => Proof::Login(Login::Token(Secret::new(jwt.as_bytes()))),
            (None, None, None, None) => Proof::Login(Login::Anonymous),
            _ => return Err(malformed("it has either a token, or a principal and a password, or a jwt, or none of them".into())),
        };
        Ok(Credential { node: file.node, mesh, proof })
    }

    /// Writes a file that only its owner may read, in place of one that may be there.
    pub fn write(&self, path: &Path) -> Result<(), CredentialError> {
        let io = |cause: io::Error| CredentialError::Io { path: path.into(), cause };
        let mut file = CredentialFile {
            node: self.node.clone(),
            mesh: self.mesh.to_string(),
            token: None,
            principal: None,
            password: None,
            jwt: None,
        };
        let text = |secret: &Secret| Some(Zeroizing::new(String::from_utf8_lossy(secret.bytes()).into_owned()));
        let whoever = match &self.proof {
            Proof::Operator(token) => {
                file.token = Some(String::from(token));
                "may do anything with the node"
            }
            Proof::Login(Login::Password { principal, password }) => {
                (file.principal, file.password) = (Some(principal.clone()), text(password));
                "is this principal"
            }
            Proof::Login(Login::Token(token)) => {
                file.jwt = text(token);
                "is who the token says, for as long as it is good"
            }
            Proof::Login(Login::Anonymous) => "is nobody in particular",
        };
        let text = Zeroizing::new(toml::to_string(&file).map_err(|error| io(io::Error::other(error)))?);
        let text = Zeroizing::new(format!("# Whoever has this file {whoever}. Keep it secret.\n{}", *text));
        // A new file takes the place of the old one at once: nobody reads half a credential, and its mode is right from the start.
        let fresh = path.with_extension("toml.new");
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
            _ => {}
        }
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&fresh).map_err(io)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(io)?;
        fs::rename(&fresh, path).map_err(io)
    }
}

#[cfg(unix)]
fn refuse_exposed(path: &Path, metadata: &fs::Metadata) -> Result<(), CredentialError> {
    let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(CredentialError::Exposed { path: path.into(), mode }) }
}

#[cfg(not(unix))]
fn refuse_exposed(_: &Path, _: &fs::Metadata) -> Result<(), CredentialError> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential() -> Credential {
        Credential { node: "[::1]:4747".into(), mesh: MeshId([7; 32]), proof: Token::new([0xa5; 32]).into() }
    }

    #[test]
    fn a_credential_survives_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("operator.toml");
        credential().write(&path).unwrap();
        assert_eq!(Credential::read(&path).unwrap(), credential());
        let moved = Credential { node: "localhost:1".into(), ..credential() };
        moved.write(&path).unwrap();
        assert_eq!(Credential::read(&path).unwrap(), moved);
        let password = Login::Password { principal: "ann".into(), password: Secret::new("a \"b\\ c") };
        for login in [password, Login::Token(Secret::new("a.b.c")), Login::Anonymous] {
            let named = Credential { proof: login.into(), ..credential() };
            named.write(&path).unwrap();
            assert_eq!(Credential::read(&path).unwrap(), named);
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_credential_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("operator.toml");
        credential().write(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Credential::read(&path), Err(CredentialError::Exposed { mode: 0o640, .. })));
    }

    #[test]
    fn what_is_no_credential_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("operator.toml");
        assert!(matches!(Credential::read(&path), Err(CredentialError::Missing(_))));
        let token = "a5".repeat(32);
        let mesh = "07".repeat(32);
        let both = format!("node='x'\nmesh='{mesh}'\ntoken='{token}'\nprincipal='ann'\npassword='p'");
        let half = format!("node='x'\nmesh='{mesh}'\nprincipal='ann'");
        for text in [
            "",
            "node = 3",
            &both,
            &half,
            &format!("node='x'\nmesh='{mesh}'\ntoken='a5'"),
            &format!("node='x'\nmesh='no'\ntoken='{token}'"),
        ] {
            credential().write(&path).unwrap();
            fs::write(&path, text).unwrap();
            assert!(matches!(Credential::read(&path), Err(CredentialError::Malformed { .. })), "{text}");
        }
    }

    #[test]
    fn a_token_is_never_shown_by_accident() {
        assert!(!format!("{:?}", credential()).contains("a5a5"));
        assert_eq!(String::from(&Token::new([0xa5; 32])).parse(), Ok(Token::new([0xa5; 32])));
        assert_eq!("+5".repeat(32).parse::<Token>(), Err(BadToken));
    }
}
