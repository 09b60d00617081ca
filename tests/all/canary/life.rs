//! What happens to the credentials: calls that go well, calls that do not, mistakes of callers, and
//! administration.

use keybearer_tests::canary;
use keybearer_tests::forms;
use serde_json::json;

use super::sinks::Sinks;
use super::stage::BROKEN;
use super::stage::HOSTS;
use super::stage::Stage;
use super::stage::secret_half;

impl Stage {
    /// Every kind, in every form in which it can come back; results, logs and kept answers too.
    pub(super) async fn succeed(&mut self, sinks: &mut Sinks) -> anyhow::Result<()> {
        for (_, host) in HOSTS {
            for index in 0..forms("any value of some length").len() {
                let heard = self.tenant.hear_get("probe", &format!("https://{host}/form/{index}")).await?;
                anyhow::ensure!(heard.outcome == "200", "{host}: {}", heard.outcome);
                sinks.add_heard(host, &heard);
            }
            let url = format!("https://{host}/anything?q=1");
            let heard = self.tenant.hear("probe", json!({"method": "POST", "url": url, "body": "a body"})).await?;
            sinks.add_heard(host, &heard);
            // All of the guest's memory, after it has heard the answer.
            let answer = self.tenant.call("probe.gather", json!({"url": url})).await?;
            let masked = answer.json()["result"]["masked"].as_str().unwrap_or_default().to_owned();
            anyhow::ensure!(masked.len() > 10_000, "{}", answer.text());
            let memory = hex::decode(masked)?.into_iter().map(|byte| byte ^ 0x5a).collect::<Vec<u8>>();
            sinks.add(format!("memory of the guest at {host}"), memory);
            // Kept for a key: what is kept is the scrubbed answer.
            let body =
                json!({"tool": "probe.failed_text", "arguments": {"text": "said", "times": 1, "ask": {"url": url}}});
            let headers = [("content-type", "application/json"), ("idempotency-key", *host)];
            for _ in 0..2 {
                let answer =
                    self.tenant.client.send("POST", "/v1/calls", &headers, body.to_string().into_bytes()).await?;
                sinks.add_answer("a call with a key", &answer);
            }
        }
        let heard = self.other.hear_get("probe", "https://bearer.test/form/0").await?;
        sinks.add_heard("another tenant's call", &heard);
        Ok(())
    }

    /// No connection, no trust, no answer, no HTTP; refusals; guests that end badly with what they heard.
    pub(super) async fn fail(&mut self, sinks: &mut Sinks) -> anyhow::Result<()> {
        for host in BROKEN {
            let heard = self.tenant.hear_get("probe", &format!("https://{host}/a?b=c")).await?;
            anyhow::ensure!(heard.outcome.starts_with("upstream: "), "{host}: {}", heard.outcome);
            sinks.add_heard(host, &heard);
            sinks.add(format!("explanation of {host}"), self.tenant.explain(&heard.call).await?);
        }
        let ask = json!({"url": "https://bearer.test/anything"});
        for (tool, arguments) in [
            ("probe.trap_text", json!({"text": "trap", "times": 3, "ask": ask})),
            ("probe.failed_text", json!({"text": "failed", "times": 3, "ask": ask})),
            ("probe.trap_text", json!({"text": "long", "times": 3000, "ask": {"url": "https://basic.test/form/0"}})),
            ("probe.log_forge", json!({"lines": ["a line", "{\"level\":\"error\"}\n2026 ERROR", "\u{1b}[31m"]})),
            ("probe.spin", json!({})),
            ("probe.echo_back", json!({"url": "https://evil.test/?token=none"})),
            ("probe.echo_back", json!({"url": "https://bearer.test/../x"})),
            ("probe.echo_back", json!({"url": "https://bearer.test/", "headers": [["authorization", "Bearer x"]]})),
        ] {
            sinks.add_answer(tool, &self.tenant.call(tool, arguments).await?);
        }
        let slow = json!({"tool": "probe.echo_back", "arguments": {"url": "https://slow.test/"}, "timeout_ms": 100});
        sinks.add_answer("a call that is given up", &self.tenant.client.post("/v1/calls", &slow).await?);
        Ok(())
    }

    /// Values in the wrong shape, tokens in the wrong place.
    pub(super) async fn mistake(&mut self, sinks: &mut Sinks) -> anyhow::Result<()> {
        let value = canary("bad_");
        self.known.push(("a value rotated in vain".to_owned(), value.clone()));
        let path = format!("/v1/credentials/{}/versions", self.bearer);
        let json_type = [("content-type", "application/json")];
        for (place, body) in [
            (path.as_str(), format!("{{\"value\": \"{value}\"")),
            (&path, format!("{{\"value\": \"{value}\"}} trailing")),
            (&path, format!("{{\"value\": [\"{value}\"]}}")),
            (&path, format!("{{\"value\": {{\"inner\": \"{value}\"}}}}")),
            (&path, format!("{{\"value\": \"{value}\", \"value\": \"{value}\"}}")),
            (&path, format!("{{\"value\": \"{value}\", \"more\": \"{value}\"}}")),
            (&path, format!("{{\"value\": \"{value}\\ud800\"}}")),
            (&path, format!("{{\"value\": \"{value} with a space\"}}")),
            (&path, format!("{{\"value\": \"{value}\\u0000\"}}")),
            (&path, format!("\"{value}\"")),
            (&path, value.clone()),
            ("/v1/credentials", format!("{{\"name\": \"n\", \"value\": \"{value}\"}}")),
            ("/v1/credentials", format!("{{\"kind\": {{\"kind\": \"bearer\", \"value\": \"{value}\"}}}}")),
            ("/v1/credentials", format!("{{\"kind\": \"{value}\"}}")),
        ] {
            let answer = self.tenant.client.send("POST", place, &json_type, body.into_bytes()).await?;
            anyhow::ensure!((400..500).contains(&answer.status), "{place}: {} {}", answer.status, answer.text());
            sinks.add_answer("a value in the wrong shape", &answer);
        }
        // A value that is all digits and not in quotes: the reader sees a number.
        let digits = "42424242424242424242421234567";
        self.known.push(("a number rotated in vain".to_owned(), digits.to_owned()));
        for number in [digits, "-42424242424242424242421234567", "4242424242424242424242.1234567"] {
            let body = format!("{{\"value\": {number}}}").into_bytes();
            sinks.add_answer("a number", &self.tenant.client.send("POST", &path, &json_type, body).await?);
        }
        // This server's own tokens, where tokens do not belong.
        let token = self.tenant.token.clone();
        for place in [format!("/v1/tools?access_token={token}"), format!("/v1/{token}"), format!("/v1/tools/{token}")] {
            sinks.add_answer("a token in a path", &self.server.public().get(&place).await?);
            sinks.add_answer("a token in a path", &self.server.admin().get(&place).await?);
        }
        for (name, field) in [("authorization", format!("Basic {token}")), ("x-api-key", token.clone())] {
            let answer = self.server.public().send("GET", "/v1/tools", &[(name, &field)], Vec::new()).await?;
            sinks.add_answer("a token in another field", &answer);
        }
        let operator = self.server.operator_token().to_owned();
        sinks.add_answer("the operator's token", &self.server.public().bearing(&operator).get("/v1/tools").await?);
        sinks.add_answer("a tenant's token", &self.server.admin().bearing(&token).get("/v1/tenants").await?);
        Ok(())
    }

    /// Rotation, revocation, destruction, a new master key, new tokens, the command line.
    pub(super) async fn administer(&mut self, sinks: &mut Sinks) -> anyhow::Result<()> {
        for (index, (slot, host)) in HOSTS.iter().enumerate() {
            let value = if *slot == "basic" { format!("svc:{}", canary("bs2_")) } else { canary("two_") };
            let path = format!("/v1/credentials/{}", self.credentials[index]);
            let rotated = self.tenant.client.post(&format!("{path}/versions"), &json!({"value": value})).await?;
            anyhow::ensure!(rotated.status == 201, "{}", rotated.text());
            sinks.add_answer("a rotation", &rotated);
            self.known.push((format!("{slot}, second"), value));
            let heard = self.tenant.hear_get("probe", &format!("https://{host}/form/0")).await?;
            anyhow::ensure!(heard.outcome == "200", "{host}: {}", heard.outcome);
            sinks.add_heard(host, &heard);
        }
        let destroyed = format!("/v1/credentials/{}/versions/1", self.bearer);
        sinks.add_answer("a destruction", &self.tenant.client.send("DELETE", &destroyed, &[], Vec::new()).await?);
        let new = json!({"label": "for the search", "scopes": ["call"], "life_s": 60});
        let issued = self.tenant.client.post("/v1/tokens", &new).await?;
        let text = issued.json()["text"].as_str().unwrap_or_default().to_owned();
        anyhow::ensure!(!text.is_empty(), "{}", issued.text());
        self.known.push(("an issued token".to_owned(), secret_half(&text)));
        sinks.add_answer("a new master key", &self.server.operator().post("/v1/master-key/rotate", &json!({})).await?);
        let heard = self.tenant.hear_get("probe", "https://bearer.test/form/0").await?;
        anyhow::ensure!(heard.outcome == "200", "{}", heard.outcome);

        // The command line, with the value from stdin and the token from a file elsewhere.
        let folder = tempfile::tempdir()?;
        let token_file = folder.path().join("token");
        std::fs::write(&token_file, &self.tenant.token)?;
        std::fs::set_permissions(&token_file, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        let token_file = token_file.display().to_string();
        let value = canary("cli_");
        let arguments = [
            "--token-file",
            &token_file,
            "credential",
            "store",
            "by-hand",
            "--owner",
            "me",
            "--justification",
            "for the search",
            "--value-file",
            "-",
        ];
        let (stored, said, error) = self.server.cli(&arguments, value.as_bytes())?;
        anyhow::ensure!(stored, "{said} {error}");
        sinks.add("the command line", format!("{said}{error}"));
        self.known.push(("a token and value of the command line, kept back".to_owned(), value));
        for arguments in
            [["--token-file", &token_file, "credential", "list"], ["--token-file", &token_file, "grant", "list"]]
        {
            let (_, said, error) = self.server.cli(&arguments, b"")?;
            sinks.add("the command line", format!("{said}{error}"));
        }
        let revoked = format!("/v1/credentials/{}/revoke", self.bearer);
        sinks.add_answer("a revocation", &self.tenant.client.post(&revoked, &json!({})).await?);
        let refused = self.tenant.call("probe.echo_back", json!({"url": "https://bearer.test/"})).await?;
        anyhow::ensure!(refused.code() == "credential_unusable", "{}", refused.text());
        sinks.add_answer("a call with a revoked credential", &refused);
        Ok(())
    }

    /// Everything that the two listeners show.
    pub(super) async fn ask_everything(&mut self, sinks: &mut Sinks) -> anyhow::Result<()> {
        let tenants = ["/v1/tools", "/v1/tools/probe.echo_back", "/v1/credentials", "/v1/grants", "/v1/tokens"];
        for path in tenants {
            sinks.add_answer(path, &self.tenant.client.get(path).await?);
        }
        for credential in &self.credentials {
            let path = format!("/v1/credentials/{credential}");
            sinks.add_answer(&path, &self.tenant.client.get(&path).await?);
        }
        for path in [
            "/v1/tenants",
            "/v1/packages",
            "/v1/shared-values",
            "/healthz",
            "/readyz",
            "/metrics",
            "/openapi.json",
            "/debug",
            "/config",
            "/v1/config",
        ] {
            sinks.add_answer(path, &self.server.operator().get(path).await?);
        }
        for arguments in [["ledger", "export"], ["ledger", "verify"], ["ledger", "tail"]] {
            let (_, said, error) = self.server.cli(&arguments, b"")?;
            anyhow::ensure!(!said.is_empty(), "{arguments:?}: {error}");
            for line in said.lines() {
                let call =
                    serde_json::from_str::<serde_json::Value>(line).ok().filter(|line| line["kind"] == "call_begun");
                if let Some(call) = call.filter(|line| line["tenant"] == self.tenant.id.as_str()) {
                    let path = format!("/v1/calls/{}/explain", call["call"].as_str().unwrap_or_default());
                    // One in ten is enough of the same kind.
                    if call["seq"].as_u64().is_some_and(|seq| seq % 10 == 0) {
                        sinks.add_answer("explain", &self.tenant.client.get(&path).await?);
                    }
                }
            }
            sinks.add("the ledger's command", format!("{said}{error}"));
        }
        Ok(())
    }
}
