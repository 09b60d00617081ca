//! `/v1/calls`: submitting a call, and explaining one.

use std::sync::Arc;

use http::StatusCode;
use keybearer_contract::CallId;
use keybearer_contract::Code;
use keybearer_contract::Digest;
use keybearer_contract::Problem;
use keybearer_contract::RunId;
use keybearer_contract::ToolRef;
use keybearer_executor::Answer;
use keybearer_executor::CallRequest;
use keybearer_executor::LogView;
use keybearer_gate::TenantContext;
use serde::Deserialize;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::api::App;
use crate::api::body;
use crate::api::input::Form;
use crate::api::input::Input;
use crate::api::reply::Reply;

/// A call, as submitted.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CallRequest)]
pub(crate) struct CallBody<'body> {
    /// What to call: `package.tool`.
    #[schema(value_type = String)]
    tool: ToolRef,
    /// Its arguments, an object that fits the tool's schema.
    #[serde(borrow)]
    #[schema(value_type = Object)]
    arguments: &'body RawValue,
    /// Exactly this version of the package; the newest that the grants cover, where none is named.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    package: Option<Digest>,
    /// The caller's count of its tries, from 1.
    #[serde(default)]
    attempt: Option<u32>,
    /// Milliseconds after which the caller no longer waits.
    #[serde(default)]
    timeout_ms: Option<u64>,
}

/// A result.
#[derive(Serialize, ToSchema)]
#[schema(as = CallAnswer)]
pub(crate) struct AnswerBody<'answer> {
    /// The call's id, as it stands in the ledger.
    #[schema(value_type = String)]
    call: &'answer CallId,
    /// The run that it belonged to.
    #[schema(value_type = String)]
    run: &'answer RunId,
    /// What was called.
    #[schema(value_type = String)]
    tool: &'answer ToolRef,
    /// The package that ran.
    #[schema(value_type = String)]
    package: Digest,
    /// The tool's result.
    #[schema(value_type = Value)]
    result: &'answer RawValue,
    /// What the tool logged.
    logs: &'answer [LogView],
    /// Whether it is the kept answer of an earlier call with the same idempotency key.
    replayed: bool,
}

/// POST /v1/calls
pub(crate) async fn submit(app: Arc<App>, context: TenantContext, input: Input) -> Result<Reply, Problem> {
    let idempotency_key = idempotency_key(&input)?;
    let accepts = input.accepts();
    let bytes = input.json_text(&app.limits).await?;
    let request = request(&bytes, idempotency_key, app.limits.json_depth)?;
    drop(bytes);
    let answer = if request.idempotency_key.is_some() {
        // A caller who hangs up must find the answer under its key: the call goes on without him.
        let app = Arc::clone(&app);
        let running = tokio::spawn(async move { app.executor.call(context, request).await });
        running.await.map_err(|_| Problem::new(Code::Internal, "the task of a call ended early"))??
    } else {
        app.executor.call(context, request).await?
    };
    reply(&answer, accepts)
}

/// GET /v1/calls/{id}/explain
pub(crate) async fn explain(app: Arc<App>, context: TenantContext, input: Input) -> Result<Reply, Problem> {
    let call: CallId = input.parameter(0)?;
    Reply::ok(&app.executor.explain(&context, &call).await?)
}

/// The call of a JSON body. The arguments are checked here and parsed by the executor: nothing in
/// between looks into them.
fn request(bytes: &[u8], idempotency_key: Option<String>, depth_max: usize) -> Result<CallRequest, Problem> {
    body::require_object(bytes)?;
    // Where it is wrong is asked only then: every call goes through here.
    let body: CallBody<'_> =
        serde_json::from_slice(bytes).map_err(|_| body::refusal::<CallBody<'_>>(bytes, depth_max))?;
    // Its own fields are known, unique and flat; what is left to check are the arguments, one level down.
    body::check(body.arguments.get().as_bytes(), depth_max - 1)?;
    let attempt = body.attempt.unwrap_or(1);
    if attempt == 0 || body.timeout_ms == Some(0) {
        return Err(Problem::new(Code::MalformedBody, "attempt and timeout_ms begin at 1"));
    }
    Ok(CallRequest {
        tool: body.tool,
        arguments: body.arguments.get().to_owned(),
        package: body.package,
        attempt,
        timeout_ms: body.timeout_ms,
        idempotency_key,
    })
}

/// The longest key: a UUID, a digest, a few words.
const KEY_BYTES_MAX: usize = 255;

/// The idempotency key of a request: one header, visible ASCII (threats H17).
fn idempotency_key(input: &Input) -> Result<Option<String>, Problem> {
    let refused = || {
        let detail = format!("send one Idempotency-Key of 1 to {KEY_BYTES_MAX} visible ASCII characters");
        Problem::new(Code::MalformedRequest, detail)
    };
    let mut values = input.headers().get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    let bytes = value.as_bytes();
    let fits = (1..=KEY_BYTES_MAX).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic);
    match (fits, values.next()) {
        (true, None) => Ok(Some(value.to_str().map_err(|_| refused())?.to_owned())),
        _ => Err(refused()),
    }
}

fn reply(answer: &Answer, accepts: Form) -> Result<Reply, Problem> {
    let result = serde_json::from_str::<&RawValue>(answer.result())
        .map_err(|_| Problem::new(Code::Internal, "a result that was checked is no JSON"))?;
    let body = AnswerBody {
        call: answer.call(),
        run: answer.run(),
        tool: answer.tool(),
        package: answer.package(),
        result,
        logs: answer.logs(),
        replayed: answer.replayed(),
    };
    Reply::in_form(accepts, StatusCode::OK, &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<CallRequest, Problem> {
        request(text.as_bytes(), None, 64)
    }

    #[test]
    fn arguments_stay_the_text_that_came() {
        let call = parse(r#"{"tool":"stripe.create_refund","arguments":{"amount": 1.50 , "a":[1]},"attempt":2}"#)
            .expect("a call");
        assert_eq!(call.arguments, r#"{"amount": 1.50 , "a":[1]}"#);
        assert_eq!((call.attempt, call.tool.to_string().as_str()), (2, "stripe.create_refund"));
    }

    #[test]
    fn h02_arguments_that_two_parsers_read_differently_are_refused() {
        let deep = format!(r#"{{"tool":"a.b","arguments":{}1{}}}"#, "[".repeat(64), "]".repeat(64));
        let numeric = r#"{"tool":"a.b","arguments":{"x":1e400}}"#;
        for bad in [
            r#"{"tool":"a.b","arguments":{"a":1,"a":2}}"#,
            r#"{"tool":"a.b","tool":"c.d","arguments":{}}"#,
            r#"{"tool":"a.b","arguments":{"a":"\ud800"}}"#,
            r#"{"tool":"a.b","arguments":{}} {}"#,
            "\u{feff}{\"tool\":\"a.b\",\"arguments\":{}}",
            r#"{"tool":"a.b","arguments":{},"more":1}"#,
            r#"{"tool":"a.b"}"#,
            r#"{"tool":"../b","arguments":{}}"#,
            r#"["a.b",{},null,null,null,null]"#,
            numeric,
            &deep,
        ] {
            assert_eq!(parse(bad).expect_err("refused").code, Code::MalformedBody, "{bad}");
        }
    }

    #[test]
    fn t01_a_tenant_in_the_body_has_its_own_code() {
        let problem = parse(r#"{"tool":"a.b","arguments":{},"tenant":"x"}"#).expect_err("refused");
        assert_eq!(problem.code, Code::TenantMismatch);
    }
}
