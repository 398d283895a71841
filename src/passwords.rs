//! Passwords: how they are kept, and how they are compared.
//!
//! What is kept is an argon2id hash with the parameters that OWASP recommends: 19 MiB, two passes, one lane; some 30 ms of one core. Both are done off the loop,
//! and only so many at once ([`crate::runtime`]).

use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use zeroize::Zeroizing;

/// How long a password is at most, in bytes.
pub const PASSWORD_BYTES_MAX: usize = 1_024;
/// How short one is at least, in characters.
pub const PASSWORD_CHARS_MIN: usize = 8;

/// Compared with where there is nothing to compare with, so that it takes as long: nobody's password.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5J3Mgc2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

fn argon2() -> Argon2<'static> {
    let params = Params::new(19_456, 2, 1, None).unwrap_or(Params::DEFAULT);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

/// A hash that a password can be compared with, in the PHC format. Takes some 30 ms.
///
/// # Errors
/// In words, if the password is too short or too long, or the system has no randomness.
pub fn hash(password: &[u8]) -> Result<String, String> {
    if password.len() > PASSWORD_BYTES_MAX {
        return Err(format!("a password has at most {PASSWORD_BYTES_MAX} bytes"));
    }
    if String::from_utf8_lossy(password).chars().count() < PASSWORD_CHARS_MIN {
        return Err(format!("a password has at least {PASSWORD_CHARS_MIN} characters"));
    }
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(|error| error.to_string())?;
    let salt = SaltString::encode_b64(&salt).map_err(|error| error.to_string())?;
    argon2().hash_password(password, &salt).map(|hash| hash.to_string()).map_err(|error| error.to_string())
}

/// Whether a password is the one of a hash; of nobody's, if there is none, which takes as long.
pub fn is_of(hash: Option<&str>, password: &[u8]) -> bool {
    let Ok(parsed) = PasswordHash::new(hash.unwrap_or(NOBODY)) else { return false };
    let same = password.len() <= PASSWORD_BYTES_MAX && argon2().verify_password(password, &parsed).is_ok();
    same && hash.is_some()
}

/// A password that nobody could guess: 24 letters and digits, 120 random bits.
///
/// # Errors
/// If the system has no randomness.
pub fn draw() -> Result<Zeroizing<String>, String> {
    // Without those that are easily taken for each other.
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = Zeroizing::new([0; 24]);
    getrandom::fill(&mut *bytes).map_err(|error| error.to_string())?;
    Ok(Zeroizing::new(bytes.iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_known_by_its_hash_and_no_other_is() {
        let kept = hash(b"correct horse").unwrap();
        assert!(is_of(Some(&kept), b"correct horse"));
        assert!(!is_of(Some(&kept), b"correct hors") && !is_of(None, b"correct horse") && !is_of(Some("odd"), b"correct horse"));
        assert_ne!(hash(b"correct horse").unwrap(), kept, "each has a salt of its own");
        assert!(hash(b"short").unwrap_err().contains("at least 8") && hash(&[b'a'; 1_025]).unwrap_err().contains("at most 1024"));
        let said = format!("principal ann password {kept}");
        assert!(mangrove_crdt::access::script::parse(&said).is_ok(), "it is one that the rules take: {kept}");
        assert!(PasswordHash::new(NOBODY).is_ok_and(|nobody| nobody.hash.is_some()), "it is one that can be compared with");
    }

    #[test]
    fn what_is_drawn_is_long_and_never_the_same() {
        let (one, other) = (draw().unwrap(), draw().unwrap());
        assert!(one.len() == 24 && one != other);
    }
}
