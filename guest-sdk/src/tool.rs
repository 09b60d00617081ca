//! From a typed function to `describe` and `invoke`: schemas from the types, JSON in and out. Not
//! for the component's ABI, which is `component`'s.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::transform::Transform;
use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::ToolError;

/// A tool, as `#[tool]` makes one of a function.
pub trait Tool {
    /// The name within the package.
    const NAME: &'static str;

    /// What the tool says of itself.
    fn describe() -> Description;

    /// Runs it: JSON text in, JSON text out.
    ///
    /// # Errors
    /// [`ToolError::InvalidArguments`] where the arguments are not of the type; else what the
    /// function says.
    fn invoke(arguments: &str) -> Result<String, ToolError>;
}

/// What a tool says of itself; frozen under the package's digest at publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The name within the package.
    pub name: String,
    /// The function's doc comment.
    pub description: String,
    /// JSON Schema (2020-12) of the arguments, as JSON text; an object at the top.
    pub input_schema: String,
    /// JSON Schema of the result, as JSON text; none where everything fits.
    pub output_schema: Option<String>,
    /// It changes nothing anywhere.
    pub read_only: bool,
    /// To run it twice with the same arguments does no more than to run it once.
    pub idempotent: bool,
}

/// One tool of a [`Package`].
pub struct Entry {
    name: &'static str,
    describe: fn() -> Description,
    invoke: fn(&str) -> Result<String, ToolError>,
}

impl Entry {
    /// The entry of a tool.
    #[must_use]
    pub const fn of<T: Tool>() -> Self {
        Self { name: T::NAME, describe: T::describe, invoke: T::invoke }
    }
}

/// The tools that a crate exports; `export!` defines one as `PACKAGE`.
pub struct Package {
    tools: &'static [Entry],
}

impl Package {
    /// A package of these tools.
    #[must_use]
    pub const fn new(tools: &'static [Entry]) -> Self {
        Self { tools }
    }

    /// What the tools say of themselves.
    #[must_use]
    pub fn describe(&self) -> Vec<Description> {
        self.tools.iter().map(|tool| (tool.describe)()).collect()
    }

    /// Runs one tool, JSON text in and JSON text out, as the host does.
    ///
    /// # Errors
    /// [`ToolError::UnknownTool`] where there is none of that name; else what the tool says.
    pub fn invoke(&self, tool: &str, arguments: &str) -> Result<String, ToolError> {
        let entry = self.tools.iter().find(|entry| entry.name == tool).ok_or(ToolError::UnknownTool)?;
        (entry.invoke)(arguments)
    }
}

/// The arguments of a tool that takes none.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoArguments {}

/// The description of a function; the function is there for its types.
pub fn describe<A: JsonSchema, O: JsonSchema, E>(
    _run: fn(A) -> Result<O, E>,
    name: &str,
    description: &str,
    read_only: bool,
    idempotent: bool,
) -> Description {
    Description {
        name: name.to_owned(),
        description: description.to_owned(),
        input_schema: input_schema::<A>().to_string(),
        output_schema: output_schema::<O>().map(|schema| schema.to_string()),
        read_only,
        idempotent,
    }
}

/// Runs a function on JSON text.
///
/// # Errors
/// [`ToolError::InvalidArguments`] where the text is not of the argument's type; else what the
/// function says.
pub fn invoke<A: DeserializeOwned, O: Serialize, E: Into<ToolError>>(
    run: fn(A) -> Result<O, E>,
    arguments: &str,
) -> Result<String, ToolError> {
    let arguments = serde_json::from_str(arguments).map_err(|error| ToolError::InvalidArguments(error.to_string()))?;
    let result = run(arguments).map_err(Into::into)?;
    serde_json::to_string(&result).map_err(|error| ToolError::Failed(error.to_string()))
}

fn input_schema<A: JsonSchema>() -> Value {
    let schema = settings().for_deserialize().into_generator().into_root_schema_for::<A>();
    let mut value = tidy(schema);
    match &mut value {
        // An enum of objects has its `oneOf` at the top; whoever calls still sends an object.
        Value::Object(members) => {
            members.entry("type").or_insert_with(|| "object".into());
        }
        _ => value = serde_json::json!({ "type": "object" }),
    }
    value
}

fn output_schema<O: JsonSchema>() -> Option<Value> {
    let value = tidy(settings().for_serialize().into_generator().into_root_schema_for::<O>());
    // `$schema` alone is what remains of "everything fits".
    value.as_object().is_some_and(|members| members.keys().any(|key| key != "$schema")).then_some(value)
}

/// Inline, because models and many clients do not follow `$ref`; a type that holds itself keeps one.
fn settings() -> SchemaSettings {
    SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true)
}

/// Takes out what helps nobody: the Rust type's own name and comment, and formats of numbers, which
/// some clients refuse.
fn tidy(mut schema: schemars::Schema) -> Value {
    RecursiveTransform(|schema: &mut schemars::Schema| {
        if matches!(schema.get("type"), Some(kind) if kind != "string" && kind != "object") {
            schema.remove("format");
        }
    })
    .transform(&mut schema);
    schema.remove("title");
    schema.remove("description");
    schema.to_value()
}
