//! JSON Schemas of one package's tools, compiled once. Arguments are held against them before a guest
//! runs, results after. No schema reaches out: remote references are refused, patterns run in linear
//! time, sizes are bounded (threats H08).

use std::collections::HashMap;

use jsonschema::PatternOptions;
use jsonschema::Validator;
use keybearer_contract::Code;
use keybearer_contract::Problem;
use keybearer_contract::ToolDescription;
use keybearer_contract::ToolName;
use keybearer_contract::strict_json;

/// The largest schema, as JSON text: what a model could still read.
const SCHEMA_BYTES_MAX: usize = 128 << 10;

/// Memory for one compiled pattern (the regex crate's unit is bytes).
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// The deepest nesting of a result: what common parsers still read (threats G18).
const RESULT_DEPTH_MAX: usize = 127;

/// The compiled schemas of a package.
pub(crate) struct Schemas(HashMap<ToolName, Compiled>);

struct Compiled {
    input: Validator,
    output: Option<Validator>,
}

impl Schemas {
    /// Compiles what the tools described.
    ///
    /// # Errors
    /// [`Code::PackageInvalid`], naming the tool and what is wrong with its schema.
    pub(crate) fn compile(tools: &[ToolDescription]) -> Result<Self, Problem> {
        let mut compiled = HashMap::with_capacity(tools.len());
        for tool in tools {
            let input = compile(&tool.name, &tool.input_schema)?;
            let output = tool.output_schema.as_ref().map(|schema| compile(&tool.name, schema)).transpose()?;
            compiled.insert(tool.name.clone(), Compiled { input, output });
        }
        Ok(Self(compiled))
    }

    /// Holds arguments against the tool's schema.
    ///
    /// # Errors
    /// [`Code::InvalidArguments`] with the JSON pointer of the first thing that does not fit;
    /// [`Code::MalformedBody`] if it is no JSON.
    pub(crate) fn check_arguments(&self, tool: &ToolName, text: &str) -> Result<(), Problem> {
        let compiled = self.0.get(tool).ok_or_else(Problem::not_found)?;
        let value: serde_json::Value = serde_json::from_str(text)
            .map_err(|error| Problem::new(Code::MalformedBody, format!("the arguments are not JSON: {error}")))?;
        match compiled.input.iter_errors(&value).next() {
            None => Ok(()),
            Some(error) => {
                // The message repeats the value; the caller sent it, and may have sent what it should not.
                let detail = format!("look at the tool's schema: {}", error.masked());
                Err(Problem::new(Code::InvalidArguments, detail).at_pointer(error.instance_path().to_string()))
            }
        }
    }

    /// Holds a result against the tool's own schema.
    ///
    /// # Errors
    /// [`Code::ResultInvalid`].
    pub(crate) fn check_result(&self, tool: &ToolName, text: &str) -> Result<(), Problem> {
        let compiled = self.0.get(tool).ok_or_else(Problem::not_found)?;
        let invalid = |what: String| Problem::new(Code::ResultInvalid, format!("tell the tool's author: {what}"));
        // Without a schema it must still be JSON that every parser reads alike: it is put into an answer as it stands.
        let no_json = |error| invalid(format!("the result is not JSON: {error}"));
        let Some(schema) = &compiled.output else {
            return strict_json::check(text.as_bytes(), RESULT_DEPTH_MAX).map_err(no_json);
        };
        let value = strict_json::parse(text.as_bytes(), RESULT_DEPTH_MAX).map_err(no_json)?;
        match schema.iter_errors(&value).next() {
            None => Ok(()),
            Some(error) => Err(invalid(format!("{} at `{}`", error.masked(), error.instance_path()))),
        }
    }
}

fn compile(tool: &ToolName, schema: &serde_json::Value) -> Result<Validator, Problem> {
    let refuse = |why: String| Problem::new(Code::PackageInvalid, format!("the schema of tool `{tool}`: {why}"));
    if schema.to_string().len() > SCHEMA_BYTES_MAX {
        return Err(refuse("it is larger than 128 KiB".to_owned()));
    }
    if let Some(reference) = remote_reference(schema) {
        return Err(refuse(format!("`{reference}` refers outside the schema")));
    }
    let patterns = PatternOptions::regex().size_limit(PATTERN_BYTES_MAX).dfa_size_limit(PATTERN_BYTES_MAX);
    jsonschema::draft202012::options()
        .offline()
        .with_pattern_options(patterns)
        .build(schema)
        .map_err(|error| refuse(error.to_string()))
}

fn remote_reference(schema: &serde_json::Value) -> Option<&str> {
    match schema {
        serde_json::Value::Object(members) => members.iter().find_map(|(key, value)| {
            if matches!(key.as_str(), "$ref" | "$dynamicRef" | "$recursiveRef") {
                return value.as_str().filter(|text| !text.starts_with('#'));
            }
            remote_reference(value)
        }),
        serde_json::Value::Array(items) => items.iter().find_map(remote_reference),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schemas(schema: serde_json::Value) -> Result<Schemas, Problem> {
        Schemas::compile(&[ToolDescription {
            name: "a".parse().expect("name"),
            description: "d".to_owned(),
            input_schema: schema,
            output_schema: Some(json!({"type": "object", "required": ["ok"]})),
            read_only: true,
            idempotent: true,
        }])
    }

    #[test]
    fn arguments_that_do_not_fit_are_refused_with_their_pointer() {
        let tool = "a".parse().expect("name");
        let schemas =
            schemas(json!({"type": "object", "properties": {"n": {"type": "array", "items": {"type": "integer"}}}}));
        let schemas = schemas.unwrap_or_else(|problem| panic!("{problem}"));
        assert!(schemas.check_arguments(&tool, r#"{"n": [1]}"#).is_ok());
        let problem = schemas.check_arguments(&tool, r#"{"n": [1, "sk-value"]}"#).expect_err("refused");
        assert_eq!(problem.pointer.as_deref(), Some("/n/1"));
        assert!(!problem.detail.contains("sk-value"), "{problem}");
        assert!(schemas.check_result(&tool, "{\"ok\": 1}").is_ok());
        assert!(schemas.check_result(&tool, "{}").is_err());
    }

    #[test]
    fn h08_schemas_that_reach_out_or_blow_up_are_refused() {
        for bad in [
            json!({"$ref": "https://evil.test/schema"}),
            json!({"properties": {"a": {"$ref": "file:///etc/passwd"}}}),
            json!({"properties": {"a": {"type": "string", "pattern": "(a{1000}){1000}"}}}),
            json!({"properties": {"a": {"type": "string", "pattern": "(?=a)b"}}}),
            json!({"enum": vec!["x".repeat(100); 2000]}),
        ] {
            assert!(schemas(bad.clone()).is_err(), "{}", &bad.to_string()[..60.min(bad.to_string().len())]);
        }
        let tool = "a".parse().expect("name");
        let slow = schemas(json!({"type": "object", "properties": {"a": {"pattern": "^(a+)+$"}}}));
        let text = format!("{{\"a\": \"{}!\"}}", "a".repeat(50_000));
        assert!(slow.unwrap_or_else(|problem| panic!("{problem}")).check_arguments(&tool, &text).is_err());
    }
}
