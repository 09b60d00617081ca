//! The tool against a mock of the endpoint: the wire's shapes, the manifest's binding, its errors.

use keybearer_guest::http::Method;
use keybearer_guest::http::Response;
use keybearer_guest::mock::Host;

use super::*;

const ENDPOINT: &str = "https://api.openai.com/v1/chat/completions";

fn question() -> Args {
    Args {
        model: "gpt-4o-mini".to_owned(),
        messages: vec![Message { role: Role::User, content: "What is 6 times 7?".to_owned() }],
        max_tokens: Some(10),
        temperature: None,
    }
}

#[test]
fn a_conversation_goes_out_as_the_endpoint_wants_it_within_the_binding() {
    let manifest = keybearer_tool_check::manifest(include_str!("../manifest.toml"), &PACKAGE);
    let host = Host::new().on(Method::Post, ENDPOINT, |_| {
        Response::new(200).with_json(&json!({
            "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini-2024-07-18",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "42", "refusal": null}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 14, "completion_tokens": 1, "total_tokens": 15}
        }))
    });
    let out = host.run(|| chat(question())).expect("a result");
    assert_eq!((out.content.as_str(), out.finish_reason.as_deref(), out.prompt_tokens), ("42", Some("stop"), 14));
    let [request] = &host.requests()[..] else { panic!("one request") };
    assert_eq!(
        request.json::<Value>(),
        json!({
            "model": "gpt-4o-mini", "max_completion_tokens": 10,
            "messages": [{"role": "user", "content": "What is 6 times 7?"}]
        })
    );
    assert!(keybearer_tool_check::admits(&manifest, "api", request));
}

#[test]
fn an_endpoint_without_usage_and_a_refusing_model_are_answers_too() {
    let host = Host::new().on(Method::Post, ENDPOINT, |_| {
        Response::new(200).with_json(&json!({
            "model": "local", "choices": [{"message": {"role": "assistant", "content": null, "refusal": "No."}}]
        }))
    });
    let out = host.run(|| chat(question())).expect("a result");
    assert_eq!((out.content.as_str(), out.finish_reason, out.completion_tokens), ("No.", None, 0));
}

#[test]
fn the_endpoints_own_word_reaches_the_caller_and_a_refusal_of_the_host_stays_denied() {
    let answering = |answer: Response| {
        let host = Host::new().on(Method::Post, ENDPOINT, move |_| answer.clone());
        host.run(|| chat(question())).err()
    };
    assert_eq!(
        answering(
            Response::new(404)
                .with_json(&json!({"error": {"message": "The model does not exist", "type": "invalid_request_error"}}))
        ),
        Some(ToolError::upstream("the model's endpoint answered 404: The model does not exist"))
    );
    assert_eq!(
        answering(Response::new(200).with_json(&json!({ "model": "x", "choices": [] }))),
        Some(ToolError::upstream("the model's endpoint answered without a choice"))
    );
    assert!(matches!(answering(Response::new(200).with_body("{")), Some(ToolError::Upstream(_))));
    assert_eq!(Host::new().run(|| chat(question())), Err(ToolError::Denied));
}

#[test]
fn an_empty_conversation_is_refused_and_nothing_is_sent() {
    let host = Host::new();
    let answer = host.run(|| chat(Args { messages: vec![], ..question() }));
    assert!(matches!(answer, Err(ToolError::InvalidArguments(_))));
    assert_eq!(host.requests(), vec![]);
}
