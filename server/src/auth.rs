//! Who a client is: JSON Web Tokens signed with HS256 (RFC 7519), and nothing but HS256.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::Sha256;
use signature::{Signer, Verifier};

use crate::config::Secret;
use crate::text::{NAME, Unfit};

/// A user, as a valid token names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The claim `userId`, else `sub`: 1 to 128 characters, a number as its digits.
    pub user_id: String,
    /// The claim `username`, by the rules of a [`NAME`]; none if it is missing or has nothing to be seen in it, and the
    /// reason if it is too long. The token stays valid: a name matters only in a room.
    pub username: Result<Option<String>, Unfit>,
    /// The claim `email`, where it is a text of at most 254 characters.
    pub email: Option<String>,
}

/// Why a token is not valid. The text is fit for the client: it says which rule failed and nothing of the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidToken {
    /// Longer than [`MAX_TOKEN_BYTES`].
    TooLong,
    /// Not three parts of base64 with JSON in them.
    Malformed,
    /// Signed with another algorithm than HS256, or not at all.
    WrongAlgorithm,
    /// Not signed with our secret, or changed since.
    WrongSignature,
    /// Its `exp` has passed.
    Expired,
    /// Its `nbf` has not come yet.
    NotYetValid,
    /// It has no `exp`, and one is required.
    NeverExpires,
    /// A claim has a wrong type or size.
    WrongClaim(&'static str),
}

/// Verifies tokens, and makes them.
#[derive(Clone)]
pub struct Tokens {
    encoding: EncodingKey,
    decoding: DecodingKey,
    validation: Validation,
}

impl Tokens {
    /// Takes the shared secret, and whether a token must have an `exp`.
    pub fn new(secret: &Secret, require_exp: bool) -> Self {
        // Only the first call in a process can install it, and all would install the same.
        let _ = HS256_ONLY.install_default();
        let mut validation = Validation::new(Algorithm::HS256);
        validation.required_spec_claims.clear();
        if require_exp {
            validation.required_spec_claims.insert("exp".to_owned());
        }
        validation.leeway = 0;
        // Tokens made for several services are welcome: whoever shares the secret with us means us too.
        validation.validate_aud = false;
        Self {
            encoding: EncodingKey::from_secret(secret.expose().as_bytes()),
            decoding: DecodingKey::from_secret(secret.expose().as_bytes()),
            validation,
        }
    }

    /// Returns who the token speaks for.
    ///
    /// `exp` and `nbf` are checked where present: a token is good up to and including the second of its `exp`,
    /// and [`NBF_LEEWAY`] before its `nbf`.
    ///
    /// # Errors
    /// [`InvalidToken`] for whatever is not a valid token.
    pub fn verify(&self, token: &str) -> Result<Identity, InvalidToken> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(InvalidToken::TooLong);
        }
        // Looked at first, since the library calls an algorithm it does not know a syntax error.
        if algorithm(token).ok_or(InvalidToken::Malformed)? != "HS256" {
            return Err(InvalidToken::WrongAlgorithm);
        }
        let claims = jsonwebtoken::decode::<Claims>(token, &self.decoding, &self.validation)?.claims;
        match claims.nbf.as_ref().map(|nbf| nbf.as_f64().ok_or(InvalidToken::WrongClaim("nbf"))).transpose()? {
            Some(nbf) if nbf > (unix_now() + NBF_LEEWAY).as_secs_f64() => Err(InvalidToken::NotYetValid),
            _ => claims.identity(),
        }
    }

    /// Makes a token for a user that is good for `ttl` from now on.
    ///
    /// # Errors
    /// [`InvalidToken::WrongClaim`] where [`verify`](Self::verify) would not take the token or would change the name.
    pub fn issue(&self, user_id: &str, username: Option<&str>, ttl: Duration) -> Result<String, InvalidToken> {
        let user_id = checked_user_id(user_id.to_owned(), "userId")?;
        if username.is_some_and(|name| NAME.apply(name).as_deref() != Ok(name)) {
            return Err(InvalidToken::WrongClaim("username"));
        }
        let now = unix_now().as_secs();
        let claims = IssuedClaims { user_id: &user_id, username, iat: now, exp: now.saturating_add(ttl.as_secs()) };
        Ok(jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.encoding)?)
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

/// The claims we read; `exp` is the library's to check. Types are looked at one by one, to name the wrong one.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Claims {
    user_id: Option<Value>,
    sub: Option<Value>,
    username: Option<Value>,
    email: Option<Value>,
    nbf: Option<Value>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct IssuedClaims<'a> {
    user_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<&'a str>,
    iat: u64,
    exp: u64,
}

impl Claims {
    fn identity(self) -> Result<Identity, InvalidToken> {
        let (claim, user_id) = match (self.user_id, self.sub) {
            (Some(user_id), _) => ("userId", user_id),
            (None, Some(sub)) => ("sub", sub),
            (None, None) => return Err(InvalidToken::WrongClaim("userId")),
        };
        let user_id = match user_id {
            Value::String(text) => text,
            // Many applications number their users; a fraction is no number of anybody.
            Value::Number(number) if number.is_u64() || number.is_i64() => number.to_string(),
            Value::Number(_) | Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
                return Err(InvalidToken::WrongClaim(claim));
            }
        };
        let username = match self.username {
            None => Ok(None),
            Some(name) => match NAME.apply(name.as_str().ok_or(InvalidToken::WrongClaim("username"))?) {
                Err(Unfit::Invisible) => Ok(None),
                name => name.map(Some),
            },
        };
        let email = self.email.as_ref().and_then(Value::as_str).filter(|email| email.len() <= MAX_EMAIL_BYTES);
        Ok(Identity {
            user_id: checked_user_id(user_id, claim)?,
            username,
            email: email.filter(|email| !email.is_empty()).map(str::to_owned),
        })
    }
}

fn checked_user_id(user_id: String, claim: &'static str) -> Result<String, InvalidToken> {
    let fits = (1..=MAX_USER_ID_CHARS).contains(&user_id.chars().count()) && !user_id.contains(char::is_control);
    if fits { Ok(user_id) } else { Err(InvalidToken::WrongClaim(claim)) }
}

/// Returns what the token's header says it is signed with.
fn algorithm(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Algorithm {
        alg: String,
    }
    let header = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').next()?).ok()?;
    serde_json::from_slice::<Algorithm>(&header).ok().map(|header| header.alg)
}

fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

impl From<jsonwebtoken::errors::Error> for InvalidToken {
    fn from(error: jsonwebtoken::errors::Error) -> Self {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the enum is open, and the rest means the same to a client")]
        match error.kind() {
            ErrorKind::InvalidSignature => Self::WrongSignature,
            ErrorKind::ExpiredSignature => Self::Expired,
            ErrorKind::ImmatureSignature => Self::NotYetValid,
            ErrorKind::MissingRequiredClaim(_) => Self::NeverExpires, // no other claim is required
            ErrorKind::InvalidClaimFormat(_) => Self::WrongClaim("exp"), // no other claim is checked by the library
            ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName | ErrorKind::UnsupportedAlgorithm => {
                Self::WrongAlgorithm
            }
            _ => Self::Malformed,
        }
    }
}

impl fmt::Display for InvalidToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "the token is longer than {MAX_TOKEN_BYTES} bytes"),
            Self::Malformed => f.write_str("the token is not a JSON Web Token"),
            Self::WrongAlgorithm => f.write_str("the token is not signed with HS256"),
            Self::WrongSignature => f.write_str("the token's signature is wrong"),
            Self::Expired => f.write_str("the token has expired"),
            Self::NotYetValid => f.write_str("the token is not valid yet"),
            Self::NeverExpires => f.write_str("the token has no exp claim"),
            Self::WrongClaim(claim) => write!(f, "the token's {claim} claim is missing or not as expected"),
        }
    }
}

impl std::error::Error for InvalidToken {}

/// The whole cryptography we let the library have: whatever is not HS256 cannot be signed or verified.
static HS256_ONLY: CryptoProvider = CryptoProvider {
    signer_factory: |algorithm, key| {
        only_hs256(*algorithm)?;
        Ok(Box::new(Hs256::new(key.as_bytes())?))
    },
    verifier_factory: |algorithm, key| {
        only_hs256(*algorithm)?;
        Ok(Box::new(Hs256::new(key.try_get_as_bytes()?)?))
    },
    key_utils: KeyUtils::new_unimplemented(),
};

fn only_hs256(algorithm: Algorithm) -> jsonwebtoken::errors::Result<()> {
    if algorithm == Algorithm::HS256 { Ok(()) } else { Err(ErrorKind::UnsupportedAlgorithm.into()) }
}

/// HMAC with SHA-256 under one key (RFC 7518, section 3.2).
struct Hs256(Hmac<Sha256>);

impl Hs256 {
    fn new(key: &[u8]) -> jsonwebtoken::errors::Result<Self> {
        Hmac::new_from_slice(key).map(Self).map_err(|_| ErrorKind::InvalidKeyFormat.into())
    }
}

impl Signer<Vec<u8>> for Hs256 {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, signature::Error> {
        Ok(self.0.clone().chain_update(message).finalize().into_bytes().to_vec())
    }
}

impl Verifier<Vec<u8>> for Hs256 {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        // Takes the same time wherever the first wrong byte is, and wants all 32 bytes.
        self.0.clone().chain_update(message).verify_slice(signature).map_err(|_| signature::Error::new())
    }
}

impl JwtSigner for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

impl JwtVerifier for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

/// Longest token looked at, in bytes: no proxy lets a longer header through either.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// How far the clock of whoever made the token may be ahead of ours before a fresh token is refused.
pub const NBF_LEEWAY: Duration = Duration::from_secs(5);

/// Longest user id, in characters.
pub const MAX_USER_ID_CHARS: usize = 128;

/// Longest address mail can have (RFC 5321, section 4.5.3.1).
const MAX_EMAIL_BYTES: usize = 254;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SECRET: &str = "a secret of at least thirty-two bytes";

    fn tokens() -> Tokens {
        Tokens::new(&Secret::new(SECRET), false)
    }

    fn now() -> u64 {
        unix_now().as_secs()
    }

    /// Signs any header and any payload, so that tests do not depend on the library under test.
    fn token_of(header: &str, payload: &str, secret: &str) -> String {
        let message = format!("{}.{}", BASE64_URL_SAFE_NO_PAD.encode(header), BASE64_URL_SAFE_NO_PAD.encode(payload));
        let signature = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap().chain_update(&message).finalize();
        format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature.into_bytes()))
    }

    fn token(claims: &Value) -> String {
        token_of(r#"{"alg":"HS256","typ":"JWT"}"#, &claims.to_string(), SECRET)
    }

    fn verify(claims: &Value) -> Result<Identity, InvalidToken> {
        tokens().verify(&token(claims))
    }

    fn user_id(claims: &Value) -> Result<String, InvalidToken> {
        verify(claims).map(|identity| identity.user_id)
    }

    #[test]
    fn the_example_of_the_specification_has_a_good_signature() {
        // RFC 7515, appendix A.1: the key is raw bytes, so the provider is asked directly.
        let key = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
        let key = BASE64_URL_SAFE_NO_PAD.decode(key).unwrap();
        let message = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.\
                       eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let signature = BASE64_URL_SAFE_NO_PAD.decode("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk").unwrap();
        let hs256 = Hs256::new(&key).unwrap();
        assert!(hs256.verify(message.as_bytes(), &signature).is_ok());
        assert_eq!(hs256.try_sign(message.as_bytes()).unwrap(), signature);
        for wrong in [&signature[..31], &[], &[&signature[..], &[0]].concat()] {
            assert!(hs256.verify(message.as_bytes(), &wrong.to_vec()).is_err());
        }
    }

    #[test]
    fn a_full_token_names_the_user() {
        let claims = json!({
            "userId": "u1", "username": "Ada", "email": "ada@example.org", "iat": now(), "exp": now() + 60,
            "nbf": now(), "sub": "other", "aud": "elsewhere", "iss": "me", "more": [1]
        });
        let expected = Identity {
            user_id: "u1".to_owned(),
            username: Ok(Some("Ada".to_owned())),
            email: Some("ada@example.org".to_owned()),
        };
        assert_eq!(verify(&claims), Ok(expected));
    }

    #[test]
    fn an_issued_token_is_valid_and_ends() {
        let issued = tokens().issue("u1", Some("Ada"), Duration::from_secs(60)).unwrap();
        let strict = Tokens::new(&Secret::new(SECRET), true);
        let expected = Identity { user_id: "u1".to_owned(), username: Ok(Some("Ada".to_owned())), email: None };
        assert_eq!(strict.verify(&issued), Ok(expected));
        let payload = BASE64_URL_SAFE_NO_PAD.decode(issued.split('.').nth(1).unwrap()).unwrap();
        let claims: Value = serde_json::from_slice(&payload).unwrap();
        assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 60);
        assert_eq!(claims.as_object().unwrap().len(), 4);
    }

    #[test]
    fn what_would_not_be_taken_is_not_issued() {
        let issue = |user_id: &str, username: Option<&str>| tokens().issue(user_id, username, Duration::from_secs(1));
        for bad in ["", "a\nb", &"x".repeat(129)] {
            assert_eq!(issue(bad, None), Err(InvalidToken::WrongClaim("userId")));
        }
        for bad in ["", " ", " Ada", "Ada\u{200b}", &"x".repeat(51)] {
            assert_eq!(issue("u", Some(bad)), Err(InvalidToken::WrongClaim("username")));
        }
        assert!(issue(&"é".repeat(128), Some(&"é".repeat(50))).is_ok());
    }

    #[test]
    fn the_user_is_named_by_user_id_else_by_sub() {
        assert_eq!(user_id(&json!({ "userId": "a", "sub": "b" })), Ok("a".to_owned()));
        assert_eq!(user_id(&json!({ "sub": "b" })), Ok("b".to_owned()));
        assert_eq!(user_id(&json!({ "userId": null, "sub": "b" })), Ok("b".to_owned()));
        assert_eq!(user_id(&json!({ "userId": 42 })), Ok("42".to_owned()));
        assert_eq!(user_id(&json!({ "sub": -7 })), Ok("-7".to_owned()));
        assert_eq!(user_id(&json!({ "userId": u64::MAX })), Ok(u64::MAX.to_string()));
        assert_eq!(user_id(&json!({ "userId": "é".repeat(128) })), Ok("é".repeat(128)));
    }

    #[test]
    fn a_user_id_of_wrong_type_or_size_is_refused() {
        for bad in [json!(""), json!("x".repeat(129)), json!(1.5), json!(true), json!([1]), json!({}), json!("a\u{0}")]
        {
            assert_eq!(user_id(&json!({ "userId": bad })), Err(InvalidToken::WrongClaim("userId")), "{bad}");
            // The library itself stumbles over a `sub` that is a list or an object; refused it is all the same.
            let refused = user_id(&json!({ "sub": bad })).unwrap_err();
            assert!(matches!(refused, InvalidToken::WrongClaim("sub") | InvalidToken::Malformed), "{bad}");
        }
        assert_eq!(user_id(&json!({ "username": "Ada" })), Err(InvalidToken::WrongClaim("userId")));
    }

    #[test]
    fn names_are_cleaned_and_never_cut() {
        let name = |name: Value| verify(&json!({ "userId": "u", "username": name })).map(|identity| identity.username);
        assert_eq!(name(json!("  Ada \u{7}L\u{200b} ")), Ok(Ok(Some("Ada L".to_owned()))));
        assert_eq!(name(json!("é".repeat(50))), Ok(Ok(Some("é".repeat(50)))));
        assert_eq!(name(json!("é".repeat(51))), Ok(Err(Unfit::TooManyCharacters(50))));
        assert_eq!(name(json!(" \n\u{3164} ")), Ok(Ok(None)));
        assert_eq!(name(json!(null)), Ok(Ok(None)));
        assert_eq!(name(json!(5)), Err(InvalidToken::WrongClaim("username")));
    }

    #[test]
    fn an_odd_email_is_ignored() {
        for odd in [json!(5), json!(""), json!("x".repeat(255)), json!(null)] {
            assert_eq!(verify(&json!({ "userId": "u", "email": odd })).map(|identity| identity.email), Ok(None));
        }
    }

    #[test]
    fn exp_is_checked_where_present() {
        let exp = |exp: Value| user_id(&json!({ "userId": "u", "exp": exp })).err();
        assert_eq!(exp(json!(now() + 60)), None);
        assert_eq!(exp(json!(now() as f64 + 60.5)), None);
        assert_eq!(exp(json!(now() - 2)), Some(InvalidToken::Expired));
        assert_eq!(exp(json!(0)), Some(InvalidToken::Expired));
        for bad in [json!("never"), json!(-1), json!({}), json!(1e300)] {
            assert_eq!(exp(bad), Some(InvalidToken::WrongClaim("exp")));
        }
    }

    #[test]
    fn nbf_is_checked_where_present_with_a_little_leeway() {
        let nbf = |nbf: Value| user_id(&json!({ "userId": "u", "nbf": nbf })).err();
        assert_eq!(nbf(json!(now() - 60)), None);
        assert_eq!(nbf(json!(now() + 3)), None);
        assert_eq!(nbf(json!(now() + 30)), Some(InvalidToken::NotYetValid));
        assert_eq!(nbf(json!("soon")), Some(InvalidToken::WrongClaim("nbf")));
    }

    #[test]
    fn exp_can_be_required() {
        let strict = Tokens::new(&Secret::new(SECRET), true);
        assert_eq!(strict.verify(&token(&json!({ "userId": "u" }))), Err(InvalidToken::NeverExpires));
        assert!(strict.verify(&token(&json!({ "userId": "u", "exp": now() + 60 }))).is_ok());
    }

    #[test]
    fn another_secret_or_a_changed_byte_breaks_the_signature() {
        let good = token(&json!({ "userId": "u" }));
        let other = Tokens::new(&Secret::new("another secret"), false);
        assert_eq!(other.verify(&good), Err(InvalidToken::WrongSignature));
        let forged = format!("{}.{}", good.rsplit_once('.').unwrap().0, BASE64_URL_SAFE_NO_PAD.encode([0; 32]));
        assert_eq!(tokens().verify(&forged), Err(InvalidToken::WrongSignature));
        assert_eq!(
            tokens().verify(&format!("{}.", good.rsplit_once('.').unwrap().0)),
            Err(InvalidToken::WrongSignature)
        );
    }

    #[test]
    fn every_other_algorithm_is_refused() {
        for algorithm in
            ["none", "None", "NONE", "", "hs256", "HS384", "HS512", "RS256", "ES256", "PS256", "EdDSA", "x"]
        {
            let header = json!({ "alg": algorithm, "typ": "JWT" }).to_string();
            let payload = json!({ "userId": "u" }).to_string();
            let signed = token_of(&header, &payload, SECRET);
            assert_eq!(tokens().verify(&signed), Err(InvalidToken::WrongAlgorithm), "{algorithm}");
            let unsigned = format!("{}.", signed.rsplit_once('.').unwrap().0);
            assert_eq!(tokens().verify(&unsigned), Err(InvalidToken::WrongAlgorithm), "{algorithm}");
        }
        for algorithm in [Algorithm::HS384, Algorithm::RS256, Algorithm::EdDSA] {
            assert!((HS256_ONLY.verifier_factory)(&algorithm, &DecodingKey::from_secret(b"x")).is_err());
            assert!((HS256_ONLY.signer_factory)(&algorithm, &EncodingKey::from_secret(b"x")).is_err());
        }
    }

    #[test]
    fn garbage_is_malformed() {
        let good = token(&json!({ "userId": "u" }));
        let header = r#"{"alg":"HS256"}"#;
        let cases = [
            String::new(),
            ".".to_owned(),
            "..".to_owned(),
            "a.b.c".to_owned(),
            "null".to_owned(),
            "ä.ö.ü".to_owned(),
            format!("Bearer {good}"),
            format!(" {good}"),
            format!("{good}="),
            format!("{good}.x"),
            good.rsplit_once('.').unwrap().0.to_owned(),
            token_of("{}", "{}", SECRET),
            token_of(r#"{"alg":1}"#, "{}", SECRET),
            token_of(header, "", SECRET),
            token_of(header, "[]", SECRET),
            token_of(header, "null", SECRET),
            token_of(header, r#"{"userId":"a","userId":"b"}"#, SECRET),
            token_of(header, &format!("{}1{}", "[".repeat(2000), "]".repeat(2000)), SECRET),
        ];
        for case in cases {
            assert_eq!(tokens().verify(&case), Err(InvalidToken::Malformed), "{case}");
        }
    }

    #[test]
    fn an_oversize_token_is_not_looked_at() {
        let long = token(&json!({ "userId": "u", "padding": "x".repeat(MAX_TOKEN_BYTES) }));
        assert_eq!(tokens().verify(&long), Err(InvalidToken::TooLong));
        assert_eq!(tokens().verify(&"x".repeat(MAX_TOKEN_BYTES)), Err(InvalidToken::Malformed));
    }

    #[test]
    fn debug_does_not_show_the_secret() {
        assert_eq!(format!("{:?}", tokens()), "Tokens { .. }");
    }
}
