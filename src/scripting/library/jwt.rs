//! JSON Web Tokens (RFC 7519). The `jsonwebtoken` crate checks signatures; claims are checked here,
//! strictly and with Keyward's clock.

use jsonwebtoken::{Algorithm, DecodingKey, Validation, errors::ErrorKind};
use rhai::{Dynamic, EvalAltResult, Map, Module, NativeCallContext, exported_module};
use serde_json::Value;

use super::{Checked, digests, responses::refusal};
use crate::scripting::runtime::context::{CallContext, runtime_error};

pub(super) fn module() -> Module {
    exported_module!(functions)
}

/// The maximum length of a token, in bytes.
const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// The default leeway, in seconds.
const LEEWAY: i64 = 60;
/// The maximum leeway, in seconds.
const MAX_LEEWAY: i64 = 600;

#[allow(clippy::unwrap_used, unused_qualifications, reason = "what the macro writes")]
#[rhai::export_module]
mod functions {
    use super::*;

    /// Checks a token and returns its claims, as a map.
    ///
    /// The options are:
    ///
    /// - `alg`: `"HS256"`, `"RS256"`, `"ES256"` or `"EdDSA"`
    /// - `secret`: the secret for HS256, as a secret, a text or a blob
    /// - `key`: the public key in PEM for the other algorithms, as a text or a secret
    /// - `aud` and `iss`: the accepted audience and issuer, each as a text or an array of texts
    /// - `leeway`: the allowed difference of the clocks in seconds, 0 to 600, by default 60
    ///
    /// The token must have `exp`. Keyward checks `exp` and `nbf`. If the token has `aud`, or the
    /// option `aud` is given, claim and option must match. `iss` is checked only if the option
    /// `iss` is given.
    ///
    /// Denies the request with 401 `INVALID_TOKEN` if the token is invalid. Error: the options are
    /// invalid.
    ///
    /// Example: `let claims = jwt_verify(presented, #{ alg: "RS256", key: ISSUER_KEY, aud: "api",
    /// iss: "https://id.example.com" });`
    #[rhai_fn(volatile, return_raw)]
    pub fn jwt_verify(context: NativeCallContext, token: &str, options: Map) -> Checked<Dynamic> {
        let call = CallContext::current(&context)?;
        verified(&call, token, &options)
    }
}

/// The requirements that the script's options set for a token.
struct Requirements {
    algorithm: Algorithm,
    key: DecodingKey,
    audience: Option<Vec<String>>,
    issuer: Option<Vec<String>>,
    leeway: i64,
}

fn verified(call: &CallContext, token: &str, options: &Map) -> Checked<Dynamic> {
    let required = Requirements::read(options)?;
    if token.len() > MAX_TOKEN_BYTES {
        return Err(invalid("The token is too long."));
    }
    let claims = signed(token, &required).map_err(invalid)?;
    let now = call.host.clock.now().0;
    check(&claims, &required, now).map_err(invalid)?;
    rhai::serde::to_dynamic(Value::Object(claims))
}

fn invalid(description: &'static str) -> Box<EvalAltResult> {
    refusal(401, "INVALID_TOKEN", description)
}

type Claims = serde_json::Map<String, Value>;

/// The claims of a token whose signature is valid for the script's algorithm.
fn signed(token: &str, required: &Requirements) -> Result<Claims, &'static str> {
    let header = jsonwebtoken::decode_header(token)
        .map_err(|_| "The token cannot be read, or names an unsupported algorithm.")?;
    if header.alg != required.algorithm {
        return Err("The token is signed with another algorithm.");
    }
    // RFC 7515, section 4.1.11: a token with unknown critical header parameters must be rejected.
    if header.crit.is_some() {
        return Err("The token asks for an extension that is not supported.");
    }
    // The function `check` checks the claims, with Keyward's clock.
    let mut validation = Validation::new(required.algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    jsonwebtoken::decode::<Claims>(token, &required.key, &validation)
        .map(|token| token.claims)
        .map_err(|error| match error.kind() {
            ErrorKind::InvalidSignature => "The token's signature is wrong.",
            _ => "The token, or a claim in it, cannot be read.",
        })
}

fn check(claims: &Claims, required: &Requirements, now: i64) -> Result<(), &'static str> {
    let expires = date(claims, "exp")?.ok_or("The token has no expiry (exp).")?;
    if now as f64 >= expires + required.leeway as f64 {
        return Err("The token has expired.");
    }
    if let Some(begins) = date(claims, "nbf")?
        && (now as f64) < begins - required.leeway as f64
    {
        return Err("The token is not valid yet.");
    }
    match (claims.get("aud"), &required.audience) {
        (None, None) => {}
        (Some(given), Some(accepted))
            if names(given).iter().any(|name| accepted.contains(name)) => {}
        _ => return Err("The token is for another audience."),
    }
    match (claims.get("iss"), &required.issuer) {
        (_, None) => Ok(()),
        (Some(Value::String(given)), Some(accepted)) if accepted.contains(given) => Ok(()),
        _ => Err("The token is from another issuer."),
    }
}

/// Reads a NumericDate (RFC 7519, section 2). A text is not accepted, even if it contains a number.
fn date(claims: &Claims, name: &str) -> Result<Option<f64>, &'static str> {
    match claims.get(name) {
        None => Ok(None),
        Some(value) => match value.as_f64() {
            Some(seconds) if seconds.is_finite() => Ok(Some(seconds)),
            _ => Err("A date in the token is not a number."),
        },
    }
}

fn names(value: &Value) -> Vec<String> {
    match value {
        Value::String(one) => vec![one.clone()],
        Value::Array(many) => many.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

impl Requirements {
    fn read(options: &Map) -> Checked<Self> {
        const KNOWN: [&str; 6] = ["alg", "key", "secret", "aud", "iss", "leeway"];
        if let Some(unknown) = options.keys().find(|key| !KNOWN.contains(&key.as_str())) {
            return Err(runtime_error(format!("jwt_verify has no option {unknown:?}")));
        }
        let option = |name: &str| options.get(name).filter(|value| !value.is_unit());
        let name = option("alg").and_then(|name| name.clone().into_string().ok());
        let (algorithm, field) = match name.as_deref() {
            Some("HS256") => (Algorithm::HS256, "secret"),
            Some("RS256") => (Algorithm::RS256, "key"),
            Some("ES256") => (Algorithm::ES256, "key"),
            Some("EdDSA") => (Algorithm::EdDSA, "key"),
            _ => return Err(runtime_error("jwt_verify needs alg: HS256, RS256, ES256 or EdDSA")),
        };
        let other = if field == "key" { "secret" } else { "key" };
        let given = option(field).filter(|_| option(other).is_none()).ok_or_else(|| {
            runtime_error(format!("jwt_verify needs {field} for this algorithm, and not {other}"))
        })?;
        let leeway = match option("leeway") {
            None => LEEWAY,
            Some(value) => match value.as_int() {
                Ok(seconds @ 0..=MAX_LEEWAY) => seconds,
                _ => {
                    return Err(runtime_error(format!(
                        "jwt_verify: leeway must be 0 to {MAX_LEEWAY} seconds"
                    )));
                }
            },
        };
        Ok(Self {
            algorithm,
            key: decoding_key(algorithm, &digests::key(given)?)?,
            audience: option("aud").map(|value| texts("aud", value)).transpose()?,
            issuer: option("iss").map(|value| texts("iss", value)).transpose()?,
            leeway,
        })
    }
}

fn decoding_key(algorithm: Algorithm, bytes: &[u8]) -> Checked<DecodingKey> {
    let key = match algorithm {
        Algorithm::HS256 => {
            // If a public key were the secret, everybody who knows the public key could sign
            // tokens.
            if bytes.trim_ascii_start().starts_with(b"-----BEGIN") {
                return Err(runtime_error(
                    "jwt_verify: a public key in PEM cannot be the secret for HS256",
                ));
            }
            if bytes.len() < 32 {
                return Err(runtime_error(
                    "jwt_verify: a secret for HS256 must have at least 32 bytes",
                ));
            }
            return Ok(DecodingKey::from_secret(bytes));
        }
        Algorithm::RS256 => DecodingKey::from_rsa_pem(bytes),
        Algorithm::ES256 => DecodingKey::from_ec_pem(bytes),
        _ => DecodingKey::from_ed_pem(bytes),
    };
    key.map_err(|_| {
        runtime_error("jwt_verify: the key is not a public key in PEM for this algorithm")
    })
}

fn texts(name: &str, value: &Dynamic) -> Checked<Vec<String>> {
    let wrong =
        || runtime_error(format!("jwt_verify: {name} must be a text, or an array of texts"));
    if let Ok(one) = value.clone().into_string() {
        return Ok(vec![one]);
    }
    let many = value.as_array_ref().map_err(|_| wrong())?;
    many.iter().map(|one| one.clone().into_string().map_err(|_| wrong())).collect()
}
