//! Recipes of SPIFFE: which of the host's own identities is used. Not for whether a tenant may use it: the
//! operator's table says that, when it is used.

use serde::Deserialize;
use serde::Serialize;

use crate::RecipeRefused;
use crate::SpiffeId;

/// An X.509-SVID, which a connection proves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpiffeX509 {
    /// Whose.
    pub spiffe_id: SpiffeId,
}

/// A JWT-SVID, fetched when it is needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpiffeJwt {
    /// Whose.
    pub spiffe_id: SpiffeId,
    /// The one audience that it is for: a token for two can be replayed by either to the other (JWT-SVID §3.2).
    pub audience: String,
}

impl SpiffeJwt {
    pub(crate) fn check(&self) -> Result<(), RecipeRefused> {
        check_audience(&self.audience)
    }
}

/// Of an audience: what fits a line of a report.
const AUDIENCE_BYTES_MAX: usize = 200;

pub(super) fn check_audience(audience: &str) -> Result<(), RecipeRefused> {
    if audience.is_empty()
        || audience.len() > AUDIENCE_BYTES_MAX
        || !audience.bytes().all(|byte| byte.is_ascii_graphic())
    {
        return Err(RecipeRefused("`audience` is 1 to 200 printable characters without a space"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::CredentialKind;

    fn kind(value: serde_json::Value) -> Result<(), String> {
        let kind: CredentialKind = serde_json::from_value(value).map_err(|error| error.to_string())?;
        kind.check().map_err(|refused| refused.to_string())
    }

    // If it failed, a recipe would name an identity in a spelling that another part of the host reads otherwise.
    #[test]
    fn t03_a_recipe_of_spiffe_names_one_id_and_one_audience() {
        let id = "spiffe://acme.example/keybearer";
        assert_eq!(kind(json!({"kind": "spiffe_x509", "spiffe_id": id})), Ok(()));
        assert_eq!(kind(json!({"kind": "spiffe_jwt", "spiffe_id": id, "audience": "https://api.example.com"})), Ok(()));
        for bad in [
            json!({"kind": "spiffe_x509"}),
            json!({"kind": "spiffe_x509", "spiffe_id": "spiffe://acme.example"}),
            json!({"kind": "spiffe_x509", "spiffe_id": "spiffe://acme.example/a/../b"}),
            json!({"kind": "spiffe_x509", "spiffe_id": id, "audience": "a"}),
            json!({"kind": "spiffe_jwt", "spiffe_id": id}),
            json!({"kind": "spiffe_jwt", "spiffe_id": id, "audience": ""}),
            json!({"kind": "spiffe_jwt", "spiffe_id": id, "audience": "a b"}),
            json!({"kind": "spiffe_jwt", "spiffe_id": id, "audience": "a".repeat(201)}),
        ] {
            assert!(kind(bad.clone()).is_err(), "{bad}");
        }
    }
}
