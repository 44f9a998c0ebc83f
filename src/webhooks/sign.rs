//! Webhook signatures of <https://www.standardwebhooks.com>: HMAC-SHA256 over `id.timestamp.body`.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::model::{Secret, Timestamp};

/// The minimum length of a secret, in bytes.
const MIN_SECRET: usize = 16;

/// Signs webhooks for one receiver.
pub(super) struct Signer(Hmac<Sha256>);

impl Signer {
    /// A signer with this secret: `whsec_` followed by base64, or any other text.
    ///
    /// # Errors
    /// The secret is unusable. The message does not contain the secret.
    pub fn new(secret: &Secret) -> Result<Self, &'static str> {
        let text = secret.expose();
        let key = match text.strip_prefix("whsec_") {
            Some(encoded) => STANDARD
                .decode(encoded)
                .map_err(|_| "the secret has no valid base64 after whsec_")?,
            None => text.as_bytes().to_vec(),
        };
        let key = zeroize::Zeroizing::new(key);
        if key.len() < MIN_SECRET {
            return Err(
                "the secret has fewer than 16 bytes. Create a secret with: openssl rand -base64 32",
            );
        }
        Hmac::new_from_slice(&key).map(Self).map_err(|_| "the secret cannot be used")
    }

    /// The value of the header field `webhook-signature`.
    pub fn sign(&self, id: &str, time: Timestamp, body: &[u8]) -> String {
        let mut mac = self.0.clone();
        mac.update(format!("{id}.{}.", time.0).as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example is from the libraries of the specification.
    #[test]
    fn signature_equals_the_specifications_example() {
        let signer = Signer::new(&Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")).unwrap();
        let signed = signer.sign(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            Timestamp(1_614_265_330),
            b"{\"test\": 2432232314}",
        );
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn unusable_secret_is_refused() {
        for bad in ["", "whsec_", "whsec_!", "short", "whsec_c2hvcnQ="] {
            assert!(Signer::new(&Secret::new(bad)).is_err(), "{bad}");
        }
        assert!(Signer::new(&Secret::new("sixteen bytes it")).is_ok());
    }
}
