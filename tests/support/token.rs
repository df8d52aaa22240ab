//! JSON Web Tokens, made by hand so that wrong ones can be made too.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

/// The secret that every server of the suite is started with.
pub const SECRET: &str = "a secret of the test suite, long enough for HS256";

/// Signs `claims` with HS256 under `secret`.
pub fn mint(claims: &Value, secret: &str) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&json!({ "alg": "HS256", "typ": "JWT" })), part(claims));
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key of any length will do");
    mac.update(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

/// The token of a user whose id and name are `name`.
pub fn user_token(name: &str) -> String {
    mint(&json!({ "userId": name, "username": name }), SECRET)
}
