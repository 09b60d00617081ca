//! What each operation of the matrix is sent. Not for what comes back.

use keybearer_tests::canary;
use serde_json::Value;
use serde_json::json;

use super::PACKAGE;
use super::Row;
use super::Stage;
use super::Subject;
use super::TOOL;

impl Stage {
    /// None where the operation takes none.
    pub(super) fn body(&self, row: &Row) -> Value {
        match row.name {
            "submit_call" => json!({"tool": TOOL, "arguments": {"path": "/anything"}}),
            "store_credential" => json!({
                "name": "another", "kind": {"kind": "bearer"}, "owner": "the matrix", "justification": "a row",
                "value": canary("another-"),
            }),
            "authorize_credential" => json!({
                "name": "an account", "owner": "the matrix", "justification": "a row", "value": canary("client-"),
                "kind": {"kind": "oauth_refresh_token", "token_url": "https://id.example/token", "client_id": "matrix"},
                "authorize_url": "https://id.example/auth", "redirect_uri": "https://keys.example/v1/oauth/callback",
            }),
            // Its upstream wants a token of its own.
            "register_credential" => json!({
                "name": "a client", "owner": "the matrix", "justification": "a row",
                "kind": {"kind": "oauth_client_credentials", "token_url": "https://httpbin.org/token"},
                "registration_url": "https://httpbin.org/reg",
            }),
            "rotate_credential" => json!({"value": canary("next-"), "overlap_s": 60}),
            "revoke_principal" | "restore_principal" => json!({"principal": "jwt:https://id.example#nobody"}),
            "revoke_agent" | "restore_agent" => json!({"agent": "nobody"}),
            "change_terms" | "rollback_credential" => json!({}),
            "give_grant" => json!({"package": PACKAGE, "slot": "site", "credential": self.ids[&Subject::Credential]}),
            "approve_grant" => json!({"digest": self.ids[&Subject::Package]}),
            "issue_token" | "issue_tenant_token" => json!({"label": "x", "scopes": ["call"], "life_s": 60}),
            "open_run" => json!({"agent": "matrix"}),
            "resume_run" => self.checkpoint.clone(),
            "set_notices" => json!({"url": "https://notices.test/"}),
            "make_hook" => json!({"label": "another", "heartbeat_s": 60}),
            "receive_event" => json!({"type": "ping"}),
            "open_incident" => json!({"credential": self.ids[&Subject::Credential], "note": "a row"}),
            "open_own_incident" => json!({"credential": self.ids[&Subject::Credential], "note": "a row"}),
            "close_incident" | "close_own_incident" => json!({"root_cause": "somebody wrote the token into a ticket"}),
            "set_notify" => json!({"url": "https://soc.example.com/keybearer"}),
            "create_tenant" => json!({"name": "newcomer"}),
            _ => Value::Null,
        }
    }
}
