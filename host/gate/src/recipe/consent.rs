//! Consent of an account: where it is asked for, and where the answer comes back (RFC 6749 §4.1.1, RFC 7636). Both
//! are written by whoever onboards the credential. Not part of what is stored: afterwards the recipe alone is needed.

use keybearer_contract::Scheme;
use serde::Deserialize;
use serde::Serialize;
use url::form_urlencoded;

use crate::OauthClient;
use crate::RecipeRefused;
use crate::Target;
use crate::recipe::oauth::is_plain;

/// The path of the callback on the public listener.
pub const CALLBACK_PATH: &str = "/v1/oauth/callback";

/// Where an account is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OauthConsent {
    /// The authorization endpoint. Its query stays and is added to: `prompt=consent`, `access_type=offline`.
    pub authorize_url: Target,
    /// Where the browser is sent back to: this host's callback as the world reaches it, as registered with the client.
    pub redirect_uri: String,
}

/// What this host adds to an authorization request, and makes anew each time.
#[derive(Clone, Copy)]
pub struct ConsentProof<'request> {
    /// `state`
    pub state: &'request str,
    /// `code_challenge`, by S256.
    pub challenge: &'request str,
}

/// What an authorization request says, and nobody else does.
const OURS: [&str; 9] = [
    "response_type",
    "client_id",
    "redirect_uri",
    "state",
    "code_challenge",
    "code_challenge_method",
    "scope",
    "resource",
    "audience",
];

impl OauthConsent {
    /// Whether an account can be asked so.
    ///
    /// # Errors
    /// [`RecipeRefused`].
    pub fn check(&self) -> Result<(), RecipeRefused> {
        if self.authorize_url.destination().scheme() != Scheme::Https {
            return Err(RecipeRefused("`authorize_url` begins with `https://`"));
        }
        let query = self.authorize_url.query().unwrap_or_default();
        if form_urlencoded::parse(query.as_bytes()).any(|(name, _)| OURS.contains(&&*name)) {
            return Err(RecipeRefused("the query of `authorize_url` says nothing that the recipe says"));
        }
        let uri: Option<Target> = self.redirect_uri.parse().ok();
        let is_ours = uri.is_some_and(|uri| {
            uri.destination().scheme() == Scheme::Https && uri.path().ends_with(CALLBACK_PATH) && uri.query().is_none()
        });
        if !is_ours || !is_plain(&self.redirect_uri) {
            return Err(RecipeRefused(
                "`redirect_uri` is the callback of this host: it begins with `https://` and ends with `/v1/oauth/callback`",
            ));
        }
        Ok(())
    }

    /// The URL that an account's browser is sent to.
    #[must_use]
    pub fn authorization_url(&self, client: &OauthClient, proof: ConsentProof<'_>) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query
            .append_pair("response_type", "code")
            .append_pair("client_id", &client.client_id)
            .append_pair("redirect_uri", &self.redirect_uri)
            .append_pair("state", proof.state)
            .append_pair("code_challenge", proof.challenge)
            .append_pair("code_challenge_method", "S256");
        for (name, value) in [("scope", &client.scope), ("resource", &client.resource), ("audience", &client.audience)]
        {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        let joint = if self.authorize_url.query().is_some() { '&' } else { '?' };
        format!("{}{joint}{}", self.authorize_url, query.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn consent(authorize: &str, redirect: &str) -> OauthConsent {
        OauthConsent { authorize_url: authorize.parse().expect("a URL"), redirect_uri: redirect.to_owned() }
    }

    const AUTHORIZE: &str = "https://login.example.com/auth";
    const REDIRECT: &str = "https://keys.example.com/v1/oauth/callback";

    #[test]
    fn the_url_says_what_the_recipe_says_and_keeps_its_own_query() {
        let token_url = "https://login.example.com/token".parse().expect("a URL");
        let client = OauthClient { scope: Some("a b".to_owned()), ..OauthClient::new(token_url, "acme&co") };
        let proof = ConsentProof { state: "s", challenge: "c" };
        let tail = "response_type=code&client_id=acme%26co&redirect_uri=https%3A%2F%2Fkeys.example.com%2Fv1%2Foauth%2Fcallback&\
                    state=s&code_challenge=c&code_challenge_method=S256&scope=a+b";
        assert_eq!(consent(AUTHORIZE, REDIRECT).authorization_url(&client, proof), format!("{AUTHORIZE}?{tail}"));
        let asking = format!("{AUTHORIZE}?prompt=consent");
        assert_eq!(consent(&asking, REDIRECT).authorization_url(&client, proof), format!("{asking}&{tail}"));
    }

    #[test]
    fn an_account_is_not_sent_elsewhere_nor_back_to_anybody_else() {
        assert_eq!(consent(AUTHORIZE, REDIRECT).check(), Ok(()));
        for (authorize, redirect) in [
            ("http://login.example.com/auth", REDIRECT),
            ("https://login.example.com/auth?state=x", REDIRECT),
            ("https://login.example.com/auth?redirect_uri=x", REDIRECT),
            (AUTHORIZE, "http://keys.example.com/v1/oauth/callback"),
            (AUTHORIZE, "https://keys.example.com/elsewhere"),
            (AUTHORIZE, "https://keys.example.com/v1/oauth/callback?x=1"),
            (AUTHORIZE, "not a URL"),
        ] {
            assert!(consent(authorize, redirect).check().is_err(), "{authorize} {redirect}");
        }
    }
}
