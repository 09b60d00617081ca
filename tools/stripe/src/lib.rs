//! Two operations of Stripe's API: a POST with a form and an idempotency key, and a GET with a query.
//! The restricted key that both need is nowhere in here.

mod wire;

use std::collections::BTreeMap;

use keybearer_guest::http::Request;
use keybearer_guest::prelude::*;
use serde::de::DeserializeOwned;

/// The version of Stripe's API whose shapes `wire` knows.
const API_VERSION: &str = "2024-06-20";

/// Why money goes back.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The same thing was paid twice.
    Duplicate,
    /// The payer did not make the payment; Stripe puts his card on the block list.
    Fraudulent,
    /// The customer asked for it.
    RequestedByCustomer,
}

/// The arguments of `create_refund`.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateRefund {
    /// The charge to refund, `ch_…`. Name this or `payment_intent`, not both.
    pub charge: Option<String>,
    /// The payment intent to refund, `pi_…`.
    pub payment_intent: Option<String>,
    /// How much, in the currency's smallest unit (cents); everything that is left, if not given.
    #[schemars(range(min = 1))]
    pub amount: Option<u64>,
    /// Why.
    pub reason: Option<Reason>,
    /// Notes that Stripe keeps with the refund.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// Within 24 hours the same key makes one refund, however often it is sent. The call's own id, if
    /// not given.
    #[schemars(length(min = 1, max = 255))]
    pub idempotency_key: Option<String>,
}

/// The result of `create_refund`.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Refund {
    /// The refund's id, `re_…`.
    pub id: String,
    /// How much, in the currency's smallest unit.
    pub amount: u64,
    /// The currency, three lower-case letters.
    pub currency: String,
    /// `pending`, `requires_action`, `succeeded`, `failed` or `canceled`.
    pub status: String,
    /// The charge that was refunded.
    pub charge: Option<String>,
}

/// Refunds a Stripe charge or payment intent, wholly or in part. Money moves: the payer gets it back.
#[tool]
pub fn create_refund(args: CreateRefund) -> Result<Refund, ToolError> {
    let mut form = match (&args.charge, &args.payment_intent) {
        (Some(charge), None) => vec![("charge".to_owned(), charge.clone())],
        (None, Some(intent)) => vec![("payment_intent".to_owned(), intent.clone())],
        _ => return Err(ToolError::invalid("name either `charge` or `payment_intent`")),
    };
    if let Some(amount) = args.amount {
        form.push(("amount".to_owned(), amount.to_string()));
    }
    if let Some(reason) = args.reason {
        form.push(("reason".to_owned(), reason.as_str().to_owned()));
    }
    for (name, value) in args.metadata {
        form.push((format!("metadata[{name}]"), value));
    }
    let key = args.idempotency_key.unwrap_or_else(|| call::current().call_id);
    let refund: wire::Refund =
        send(http::post("https://api.stripe.com/v1/refunds").header("idempotency-key", key).form(form))?;
    Ok(Refund {
        id: refund.id,
        amount: refund.amount,
        currency: refund.currency,
        status: refund.status.unwrap_or_else(|| "pending".to_owned()),
        charge: refund.charge,
    })
}

/// The arguments of `list_charges`.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListCharges {
    /// Only charges of this customer, `cus_…`.
    pub customer: Option<String>,
    /// How many at the most; 10, if not given.
    #[schemars(range(min = 1, max = 100))]
    pub limit: Option<u8>,
    /// The id of the last charge of the page before.
    pub starting_after: Option<String>,
}

/// The result of `list_charges`.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Charges {
    /// The charges, newest first.
    pub charges: Vec<Charge>,
    /// Whether there are more: ask again with the last one's id as `starting_after`.
    pub has_more: bool,
}

/// One charge.
#[derive(Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct Charge {
    /// The charge's id, `ch_…`.
    pub id: String,
    /// How much, in the currency's smallest unit.
    pub amount: u64,
    /// How much of it was refunded.
    pub amount_refunded: u64,
    /// The currency, three lower-case letters.
    pub currency: String,
    /// `succeeded`, `pending` or `failed`.
    pub status: String,
    /// Seconds since 1970-01-01 UTC.
    pub created: i64,
    /// The customer, if it has one.
    pub customer: Option<String>,
    /// What it was for.
    pub description: Option<String>,
}

/// Lists Stripe charges, newest first, all or one customer's.
#[tool(read_only)]
pub fn list_charges(args: ListCharges) -> Result<Charges, ToolError> {
    let page: wire::List<Charge> = send(
        http::get("https://api.stripe.com/v1/charges")
            .query("limit", args.limit.unwrap_or(10))
            .query_opt("customer", args.customer)
            .query_opt("starting_after", args.starting_after),
    )?;
    Ok(Charges { charges: page.data, has_more: page.has_more })
}

impl Reason {
    fn as_str(self) -> &'static str {
        match self {
            Self::Duplicate => "duplicate",
            Self::Fraudulent => "fraudulent",
            Self::RequestedByCustomer => "requested_by_customer",
        }
    }
}

/// Sends a request and reads the answer, or Stripe's own word about what is wrong.
fn send<T: DeserializeOwned>(request: Request) -> Result<T, ToolError> {
    let answer = request.header("stripe-version", API_VERSION).send()?;
    if answer.is_success() {
        return Ok(answer.json()?);
    }
    let status = answer.status();
    Err(ToolError::Upstream(match answer.json::<wire::Failure>() {
        Ok(wire::Failure { error }) => {
            let code = error.code.unwrap_or(error.kind);
            format!("Stripe answered {status} ({code}): {}", error.message.unwrap_or_default())
        }
        Err(_) => format!("Stripe answered {status}"),
    }))
}

keybearer_guest::export!(create_refund, list_charges);

#[cfg(test)]
mod tests;
