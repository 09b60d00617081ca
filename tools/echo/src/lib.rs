//! The smallest tool: it gives a text back. It has no slot and no way out, so it is also what the
//! price of a bare call is measured with.

use keybearer_guest::prelude::*;

/// The arguments of `echo`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Args {
    /// The text to give back.
    pub text: String,
}

/// The result of `echo`.
#[derive(Serialize, JsonSchema)]
pub struct Out {
    /// The text, as it came.
    pub text: String,
}

/// Gives a text back as it came. Reaches nothing and changes nothing.
#[tool(read_only, idempotent)]
pub fn echo(args: Args) -> Result<Out, ToolError> {
    Ok(Out { text: args.text })
}

keybearer_guest::export!(echo);

#[cfg(test)]
mod tests {
    use keybearer_guest::mock::Host;

    use super::*;

    #[test]
    fn the_manifest_and_the_descriptions_pass_the_check() {
        let manifest = keybearer_tool_check::manifest(include_str!("../manifest.toml"), &PACKAGE);
        assert!(manifest.slots.is_empty() && manifest.allow.is_empty(), "echo has no way out");
    }

    #[test]
    fn a_text_comes_back_byte_for_byte_and_nothing_is_sent() {
        let host = Host::new();
        let text = "a \"quoted\"\nü \u{0} text";
        let arguments = json!({ "text": text }).to_string();
        let result = host.run(|| PACKAGE.invoke("echo", &arguments)).expect("a result");
        assert_eq!(result, arguments);
        assert_eq!(host.requests(), vec![]);
    }

    #[test]
    fn arguments_of_another_shape_are_refused_with_the_reason() {
        for bad in ["{}", r#"{"text":1}"#, r#"{"text":"a","more":1}"#, "[]", ""] {
            let answer = PACKAGE.invoke("echo", bad);
            assert!(matches!(&answer, Err(ToolError::InvalidArguments(why)) if !why.is_empty()), "{bad}: {answer:?}");
        }
        assert_eq!(PACKAGE.invoke("other", "{}"), Err(ToolError::UnknownTool));
    }
}
