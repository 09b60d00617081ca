//! A SOQL query on a tenant's own Salesforce instance. Which instance it is differs by tenant, so the
//! grant fixes it and the tool asks for it by the slot's name: no argument can choose a host.

mod wire;

use keybearer_guest::prelude::*;

/// The version of Salesforce's REST API, as it stands in the path and in the manifest.
const API_VERSION: &str = "v62.0";

/// The arguments of `query`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Args {
    /// A SOQL query, such as `SELECT Id, Name FROM Account LIMIT 5`.
    #[schemars(length(min = 1))]
    pub soql: String,
}

/// The result of `query`.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
pub struct Out {
    /// How many records match in all.
    pub total: u64,
    /// Whether `records` holds all of them; Salesforce gives 2000 at once at the most.
    pub complete: bool,
    /// The records: field names and values.
    pub records: Vec<keybearer_guest::serde_json::Map<String, Value>>,
}

/// Runs a SOQL query on the tenant's Salesforce instance and gives back the first page of records.
#[tool(read_only)]
pub fn query(args: Args) -> Result<Out, ToolError> {
    let base = call::require_base_url("api")?;
    let answer = http::get(base).path(["services", "data", API_VERSION, "query"]).query("q", args.soql).send()?;
    let status = answer.status();
    if !answer.is_success() {
        let failures: Vec<wire::Failure> = answer.json().unwrap_or_default();
        return Err(ToolError::Upstream(match failures.first() {
            Some(failure) => format!("Salesforce answered {status} ({}): {}", failure.error_code, failure.message),
            None => format!("Salesforce answered {status}"),
        }));
    }
    let mut page: wire::Page = answer.json()?;
    for record in &mut page.records {
        // The type's name and the record's URL: nothing that was asked for.
        record.remove("attributes");
    }
    Ok(Out { total: page.total_size, complete: page.done, records: page.records })
}

keybearer_guest::export!(query);

#[cfg(test)]
mod tests;
