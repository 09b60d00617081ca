//! Tools as an author writes them, seen as the host sees them: JSON in, JSON out. If these fail, what
//! a model reads about a tool and what the tool then accepts are two different things.

use std::collections::BTreeMap;

use keybearer_guest::http::Delivery;
use keybearer_guest::http::Error;
use keybearer_guest::http::GuestFault;
use keybearer_guest::http::Method;
use keybearer_guest::http::Response;
use keybearer_guest::mock::Host;
use keybearer_guest::prelude::*;

#[derive(Deserialize, JsonSchema)]
struct Nested {
    /// How many.
    #[schemars(range(min = 1, max = 9))]
    count: u32,
    kind: Option<Kind>,
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Small,
    Large,
}

#[derive(Deserialize, JsonSchema)]
struct Args {
    /// What is inside.
    inner: Nested,
    #[serde(default)]
    notes: BTreeMap<String, String>,
}

#[derive(Serialize, JsonSchema)]
struct Out {
    total: u32,
    kinds: Vec<Kind>,
}

/// Counts things,
/// one by one.
///
/// A second paragraph.
#[tool(idempotent, name = "count_things")]
fn count(args: Args) -> Result<Out, ToolError> {
    if args.inner.count == 9 {
        return Err(ToolError::failed("nine is too many"));
    }
    log::info!("{} notes", args.notes.len());
    Ok(Out { total: args.inner.count, kinds: args.inner.kind.into_iter().collect() })
}

/// Says when the call began.
#[tool(read_only)]
fn now() -> Result<Value, http::Error> {
    http::get("https://api.example.com/now").send()?.error_for_status()?.json()
}

#[derive(Deserialize, JsonSchema)]
#[serde(tag = "by", rename_all = "snake_case")]
enum Search {
    Id { id: u64 },
    Name { name: String },
}

/// Searches.
#[tool]
fn search(by: Search) -> Result<String, ToolError> {
    Ok(match by {
        Search::Id { id } => id.to_string(),
        Search::Name { name } => name,
    })
}

keybearer_guest::export!(count, now, search);

fn schema_of(index: usize) -> Value {
    keybearer_guest::serde_json::from_str(&PACKAGE.describe()[index].input_schema).expect("a schema is JSON")
}

#[test]
fn a_description_holds_the_name_the_comment_and_the_promises() {
    let tools = PACKAGE.describe();
    let names: Vec<_> = tools.iter().map(|tool| tool.name.as_str()).collect();
    assert_eq!(names, ["count_things", "now", "search"]);
    assert_eq!(tools[0].description, "Counts things, one by one.\n\nA second paragraph.");
    assert_eq!((tools[0].read_only, tools[0].idempotent), (false, true));
    assert_eq!((tools[1].read_only, tools[1].idempotent), (true, true), "what changes nothing is idempotent");
    assert_eq!((tools[2].read_only, tools[2].idempotent), (false, false));
}

#[test]
fn a_schema_is_an_object_whole_in_itself_and_without_the_names_of_rust() {
    assert_eq!(
        schema_of(0),
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "required": ["inner"],
            "properties": {
                "inner": {
                    "description": "What is inside.",
                    "type": "object",
                    "required": ["count"],
                    "properties": {
                        "count": { "description": "How many.", "type": "integer", "minimum": 1, "maximum": 9 },
                        "kind": { "type": ["string", "null"], "enum": ["small", "large", null] }
                    }
                },
                "notes": { "type": "object", "additionalProperties": { "type": "string" }, "default": {} }
            }
        })
    );
    assert_eq!(schema_of(2)["type"], "object", "a choice of objects is an object");
    assert_eq!(schema_of(2)["oneOf"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_result_of_any_shape_has_no_schema_and_one_of_a_type_has_its_own() {
    let tools = PACKAGE.describe();
    assert_eq!(tools[1].output_schema, None);
    assert!(tools[0].output_schema.as_deref().is_some_and(|schema| schema.contains("\"total\"")));
    assert!(tools[2].output_schema.as_deref().is_some_and(|schema| schema.contains("\"string\"")));
}

#[test]
fn a_tool_without_arguments_takes_an_empty_object_and_nothing_else() {
    let host = Host::new().on(Method::Get, "https://api.example.com/now", |_| Response::new(200).with_body("7"));
    assert_eq!(host.run(|| PACKAGE.invoke("now", "{}")).as_deref(), Ok("7"));
    assert!(matches!(PACKAGE.invoke("now", r#"{"a":1}"#), Err(ToolError::InvalidArguments(_))));
    assert_eq!(schema_of(1)["additionalProperties"], false);
}

#[test]
fn a_result_a_failure_and_a_line_come_out_as_they_are() {
    let host = Host::new();
    let arguments = r#"{"inner":{"count":3,"kind":"large"},"notes":{"a":"b"}}"#;
    let result = host.run(|| PACKAGE.invoke("count_things", arguments));
    assert_eq!(result.as_deref(), Ok(r#"{"total":3,"kinds":["large"]}"#));
    assert_eq!(host.lines(), [(log::Level::Info, "1 notes".to_owned())]);
    let failure = host.run(|| PACKAGE.invoke("count_things", r#"{"inner":{"count":9}}"#));
    assert_eq!(failure, Err(ToolError::failed("nine is too many")));
}

#[test]
fn g18_arguments_that_nest_without_end_are_refused() {
    let deep = format!(r#"{{"inner":{}"#, "[".repeat(100_000));
    assert!(matches!(PACKAGE.invoke("count_things", &deep), Err(ToolError::InvalidArguments(_))));
}

#[test]
fn every_failure_of_a_request_becomes_the_error_of_its_party() {
    let error = |error: http::Error| ToolError::from(error);
    assert_eq!(error(Error::Denied), ToolError::Denied);
    assert!(matches!(error(Error::Guest(GuestFault::TooManyRequests)), ToolError::Failed(_)));
    assert!(
        matches!(error(Error::Host(Delivery::NotSent)), ToolError::Failed(why) if why.ends_with("nothing was sent"))
    );
    assert!(matches!(error(Error::Segment("..".to_owned())), ToolError::InvalidArguments(_)));
    let host = Host::new().on(Method::Get, "https://api.example.com/now", |_| Response::new(307));
    assert_eq!(host.run(|| PACKAGE.invoke("now", "{}")), Err(ToolError::upstream("the upstream answered 307")));
}
