//! Event notifications of HashiCorp Vault (Enterprise, from 1.16 on; OpenBao has none): CloudEvents in JSON, one a
//! message, on a WebSocket at `sys/events/subscribe/TYPE`.

use keybearer_contract::Method;
use keybearer_gate::Auth;
use keybearer_gate::Exchange;
use keybearer_gate::Ingredient;
use keybearer_gate::NotCanonical;
use keybearer_gate::VaultKv;
use keybearer_strongbox::AnswerRefused;
use serde_json::Value;

use super::TOKEN;
use super::TOKEN_HEADER;
use super::log_in;
use crate::MintFault;
use crate::tidings::Listen;
use crate::tidings::Messages;
use crate::tidings::Tidings;
use crate::way::Way;

/// Everything that a KV engine with versions tells: writes, patches, deletions, destructions.
const EVENTS: &str = "sys/events/subscribe/kv-v2/*?json=true";

/// What comes in on a subscription, for one key.
pub(crate) struct VaultEvents<M> {
    recipe: VaultKv,
    messages: M,
}

impl<M: Messages> VaultEvents<M> {
    pub(crate) fn new(recipe: VaultKv, messages: M) -> Self {
        Self { recipe, messages }
    }
}

impl<M: Messages> Tidings for VaultEvents<M> {
    async fn changed(&mut self) -> Result<Option<u64>, MintFault> {
        loop {
            let message = self.messages.next().await?;
            // What is not understood may have been about this key: then nobody may rely on being told.
            match about(&self.recipe, &message).ok_or(AnswerRefused::Malformed)? {
                About::Another => {}
                About::This { version } => return Ok(version),
            }
        }
    }
}

/// Subscribes, with a login's token as every request: with one of an earlier fetch, if there is one, and with a new one
/// where that one was forgotten.
pub(crate) async fn listen<T: Listen>(recipe: &VaultKv, way: &mut Way<'_, T>) -> Result<T::Messages, MintFault> {
    if way.vessel().has(TOKEN) {
        match way.listen(subscription(recipe)?).await {
            Err(MintFault::Refused(AnswerRefused::Status { status: 403, .. })) => way.vessel().forget(TOKEN),
            listening => return listening,
        }
    }
    log_in(&recipe.server, way).await?;
    way.listen(subscription(recipe)?).await
}

fn subscription(recipe: &VaultKv) -> Result<Exchange, NotCanonical> {
    let exchange = recipe.server.request(Method::Get, EVENTS)?;
    Ok(exchange.auth(Auth::Header(TOKEN_HEADER, Ingredient::Held(TOKEN))))
}

/// What an event is about.
#[derive(Debug, PartialEq, Eq)]
enum About {
    Another,
    /// The recipe's key, which was written as this version, or something else was done to it.
    This {
        version: Option<u64>,
    },
}

/// None if it is no event.
fn about(recipe: &VaultKv, message: &[u8]) -> Option<About> {
    let event: Value = serde_json::from_slice(message).ok()?;
    let metadata = event.pointer("/data/event/metadata")?.as_object()?;
    let text = |name: &str| metadata.get(name).and_then(Value::as_str);
    let operation = text("operation")?;
    // Of a key's metadata alone (`metadata-write`), an event says that no data was modified.
    if text("modified") == Some("false") {
        return Some(About::Another);
    }
    let path = text("data_path").or_else(|| text("path"))?;
    // Before 1.17 a path was relative to its mount, which stands beside.
    let mount = event.pointer("/data/plugin_info/mount_path").and_then(Value::as_str).unwrap_or_default();
    if !recipe.is_told_of(path) && !recipe.is_told_of(&format!("{mount}{path}")) {
        return Some(About::Another);
    }
    // A read gives this one from now on; what else is done to a key gives none a number, and another mount's say nothing
    // of this one's.
    let is_written =
        matches!(operation, "data-write" | "data-patch") && mount.trim_end_matches('/') == recipe.mount.as_str();
    Some(About::This { version: text("current_version").filter(|_| is_written).and_then(|text| text.parse().ok()) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(event: &Value) -> Option<About> {
        let recipe = json!({
            "server": {"url": "https://vault.example.com:8200/", "login": {"method": "approle"}},
            "mount": "secret", "path": "acme/stripe", "field": "value", "events": true,
        });
        let recipe: VaultKv = serde_json::from_value(recipe).expect("a recipe");
        about(&recipe, event.to_string().as_bytes())
    }

    fn event(metadata: &Value) -> Value {
        json!({
            "data": {
                "event": {"id": "a3be9fb1-b514-519f-5b25-b6f144a8c1ce", "metadata": metadata},
                "event_type": "kv-v2/data-write",
                "plugin_info": {"mount_class": "secret", "mount_accessor": "kv_5dc4d18e", "mount_path": "secret/",
                    "plugin": "kv", "version": "2"},
            },
            "datacontentype": "application/cloudevents", "id": "a3be9fb1-b514-519f-5b25-b6f144a8c1ce",
            "source": "vault://mycluster", "specversion": "1.0", "time": "2026-11-22T10:00:00Z", "type": "*",
        })
    }

    #[test]
    fn r03_an_event_is_about_the_key_that_it_names_whatever_was_done_to_it() {
        // If it failed, a key that was rotated or destroyed in Vault would be used on, or every write would be a fetch.
        let of = |operation: &str, path: &str| {
            told(&event(&json!({"operation": operation, "path": path, "current_version": "2", "oldest_version": "0"})))
        };
        for (operation, path, version) in [
            ("data-write", "secret/data/acme/stripe", Some(2)),
            ("data-write", "data/acme/stripe", Some(2)),
            ("data-patch", "secret/data/acme/stripe", Some(2)),
            ("data-delete", "secret/data/acme/stripe", None),
            ("destroy", "secret/destroy/acme/stripe", None),
            ("metadata-delete", "secret/metadata/acme/stripe", None),
        ] {
            assert_eq!(of(operation, path), Some(About::This { version }), "{path}");
        }
        for path in ["secret/data/acme/stripe2", "secret/data/stripe", "other/data/acme/stripe", "secret/data/acme", ""]
        {
            assert_eq!(of("data-write", path), Some(About::Another), "{path}");
        }
        let with_data_path =
            json!({"operation": "undelete", "path": "secret/undelete/x", "data_path": "secret/data/acme/stripe"});
        assert_eq!(told(&event(&with_data_path)), Some(About::This { version: None }));
        let untouched =
            json!({"operation": "metadata-write", "path": "secret/metadata/acme/stripe", "modified": "false"});
        assert_eq!(told(&event(&untouched)), Some(About::Another));
        let mut elsewhere =
            event(&json!({"operation": "data-write", "path": "secret/data/acme/stripe", "current_version": "9"}));
        elsewhere["data"]["plugin_info"]["mount_path"] = json!("other/");
        assert_eq!(told(&elsewhere), Some(About::This { version: None }), "its number is not this key's");
        for bad in [json!({}), json!([]), json!("x"), event(&json!({"operation": 1})), event(&json!({"path": "x"}))] {
            assert_eq!(told(&bad), None, "{bad}");
        }
    }
}
