//! Tokens: JSON Web Tokens (RFC 7519) by which others vouch for a principal, signed by a key that the node's configuration names.
//!
//! What counts of one: `sub` is the principal, `exp` is until when it is good, `nbf` from when, `aud` must name the configured audience if there is one, and
//! `roles`, a list, are its roles; without it they are those that the store of principals has for it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;

use crate::protocol::Verdict;

/// How short a shared secret is at least, in bytes.
const SECRET_BYTES_MIN: usize = 32;

/// The keys that a node takes tokens of.
#[derive(Default)]
pub(super) struct TokenKeys {
    keys: Vec<(DecodingKey, &'static [Algorithm])>,
    audience: String,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: u64,
    roles: Option<Vec<String>>,
}

impl TokenKeys {
    /// Reads the keys: public ones as PEM, or secrets, of at least 32 bytes, for HS256.
    ///
    /// # Errors
    /// Which file, and what is wrong with it.
    pub(super) fn read(files: &[PathBuf], audience: &str) -> Result<TokenKeys, String> {
        let keys = files.iter().map(|file| read_key(file).map_err(|error| format!("{}: {error}", file.display())));
        Ok(TokenKeys { keys: keys.collect::<Result<_, _>>()?, audience: audience.to_owned() })
    }

    /// What a token proves.
    pub(super) fn judge(&self, token: &[u8]) -> Verdict {
        let Ok(token) = std::str::from_utf8(token) else { return Verdict::Deny };
        for (key, algorithms) in &self.keys {
            for algorithm in *algorithms {
                let mut validation = Validation::new(*algorithm);
                validation.validate_nbf = true;
                validation.set_required_spec_claims(&["exp", "sub"]);
                match self.audience.as_str() {
                    "" => validation.validate_aud = false,
                    audience => {
                        validation.set_audience(&[audience]);
                        validation.set_required_spec_claims(&["exp", "sub", "aud"]);
                    }
                }
                if let Ok(token) = jsonwebtoken::decode::<Claims>(token, key, &validation) {
                    let Claims { sub, exp, roles } = token.claims;
                    let expires_ms = Some(exp.saturating_mul(1_000));
                    return Verdict::Allow { principal: Some(sub), roles, properties: BTreeMap::new(), expires_ms };
                }
            }
        }
        Verdict::Deny
    }
}

fn read_key(file: &PathBuf) -> Result<(DecodingKey, &'static [Algorithm]), String> {
    let bytes = std::fs::read(file).map_err(|error| error.to_string())?;
    if bytes.starts_with(b"-----BEGIN") {
        if let Ok(key) = DecodingKey::from_ed_pem(&bytes) {
            return Ok((key, &[Algorithm::EdDSA]));
        }
        if let Ok(key) = DecodingKey::from_ec_pem(&bytes) {
            return Ok((key, &[Algorithm::ES256, Algorithm::ES384]));
        }
        if let Ok(key) = DecodingKey::from_rsa_pem(&bytes) {
            return Ok((key, &[Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256]));
        }
        return Err("it is no public key for EdDSA, ES256, ES384 or RSA in the PEM format".into());
    }
    let secret = bytes.trim_ascii();
    match secret.len() >= SECRET_BYTES_MIN {
        true => Ok((DecodingKey::from_secret(secret), &[Algorithm::HS256])),
        false => Err(format!(
            "it is no public key in the PEM format, and for a shared secret it is too short: at least {SECRET_BYTES_MIN} bytes"
        )),
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header};
    use serde_json::json;

    use super::*;

    const SECRET: &[u8] = b"a secret of thirty-two bytes or more";

    fn keys(audience: &str) -> TokenKeys {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        std::fs::write(&file, SECRET).unwrap();
        TokenKeys::read(&[file], audience).unwrap()
    }

    fn token(secret: &[u8], claims: &serde_json::Value) -> Vec<u8> {
        jsonwebtoken::encode(&Header::default(), claims, &EncodingKey::from_secret(secret)).unwrap().into_bytes()
    }

    fn in_an_hour() -> u64 {
        jsonwebtoken::get_current_timestamp() + 3_600
    }

    #[test]
    fn a_token_of_a_known_key_says_who_comes_and_for_how_long() {
        let exp = in_an_hour();
        let verdict = keys("").judge(&token(SECRET, &json!({ "sub": "ann", "exp": exp, "roles": ["clerk"] })));
        let expected = Verdict::Allow {
            principal: Some("ann".into()),
            roles: Some(vec!["clerk".into()]),
            properties: BTreeMap::new(),
            expires_ms: Some(exp * 1_000),
        };
        assert_eq!(verdict, expected);
        let verdict = keys("").judge(&token(SECRET, &json!({ "sub": "ann", "exp": exp })));
        assert!(matches!(verdict, Verdict::Allow { roles: None, .. }));
        let verdict = keys("mesh").judge(&token(SECRET, &json!({ "sub": "ann", "exp": exp, "aud": "mesh" })));
        assert!(matches!(verdict, Verdict::Allow { .. }));
    }

    #[test]
    fn any_other_token_is_refused() {
        let exp = in_an_hour();
        let good = json!({ "sub": "ann", "exp": exp });
        for (what, keys, token) in [
            ("another's key", keys(""), token(b"another secret of thirty-two bytes...", &good)),
            ("expired", keys(""), token(SECRET, &json!({ "sub": "ann", "exp": exp - 7_200 }))),
            ("not yet", keys(""), token(SECRET, &json!({ "sub": "ann", "exp": exp, "nbf": exp - 60 }))),
            ("for ever", keys(""), token(SECRET, &json!({ "sub": "ann" }))),
            ("of nobody", keys(""), token(SECRET, &json!({ "exp": exp }))),
            ("for others", keys("mesh"), token(SECRET, &json!({ "sub": "ann", "exp": exp, "aud": "other" }))),
            ("for nobody", keys("mesh"), token(SECRET, &good)),
            ("no keys", TokenKeys::default(), token(SECRET, &good)),
            ("no token", keys(""), b"\xff.x".to_vec()),
        ] {
            assert_eq!(keys.judge(&token), Verdict::Deny, "{what}");
        }
        // Signed by nobody, as the header says.
        let unsigned = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4iLCJleHAiOjk5OTk5OTk5OTl9.";
        assert_eq!(keys("").judge(unsigned.as_bytes()), Verdict::Deny);
    }

    #[test]
    fn a_file_that_is_no_key_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        for (text, refusal) in [("short", "too short"), ("-----BEGIN PUBLIC KEY-----\nodd\n-----END PUBLIC KEY-----", "no public key")] {
            let file = dir.path().join("odd.pem");
            std::fs::write(&file, text).unwrap();
            let error = TokenKeys::read(&[file], "").err().unwrap();
            assert!(error.contains("odd.pem") && error.contains(refusal), "{error}");
        }
        assert!(TokenKeys::read(&[dir.path().join("none")], "").is_err());
    }
}
