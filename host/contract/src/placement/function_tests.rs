//! What a slot may sign is bounded words of its manifest.

use super::*;
use crate::Manifest;
use crate::Placement;

fn manifest(signs: &str, rest: &str) -> Result<Manifest, String> {
    let text = format!(
        "[package]\nname = \"a\"\nversion = \"1.0.0\"\ndescription = \"d\"\n\
         [[slots]]\nname = \"s\"\ndescription = \"d\"\nplacement = {{ kind = \"function\", signs = {{ {signs} }} }}\n{rest}"
    );
    Manifest::parse(&text).map_err(|error| error.to_string())
}

const MAC: &str = "kind = \"hmac\", algorithm = \"hmac-sha256\", context = \"orders-v1.\", max_bytes = 4096";
const JWT: &str = "kind = \"jwt\", algorithm = \"ES256\", claims = { iss = \"us\", aud = \"them\" }, may_claim = [\"sub\"], lifetime_s = 60";
const URL: &str = "kind = \"sigv4\", region = \"eu-west-1\", service = \"s3\", max_expires_s = 300";
const BINDING: &str = "bindings = [{ host = \"b.example.com\", methods = [\"GET\"], paths = [\"/{key...}\"] }]";

#[test]
fn p09_what_a_slot_signs_is_in_its_manifest_and_nothing_of_it_is_on_a_request() {
    for (signs, rest) in [(MAC, ""), (JWT, ""), (URL, BINDING)] {
        let manifest = manifest(signs, rest).expect("may be said");
        let placement = &manifest.slots[0].placement;
        assert!(!placement.is_on_requests() && !placement.owns_header("authorization"), "{signs}");
        assert_eq!(placement.has_place(), signs == URL);
        assert_eq!(placement.owns_parameter("X-Amz-Expires"), signs == URL);
        assert!(matches!(placement, Placement::Function(Function { for_caller: false, .. })));
        assert!(placement.signs().is_some_and(|words| words.ends_with(", for the tool")));
        // As it is kept with what was approved.
        let again: Placement = serde_json::from_value(serde_json::to_value(placement).expect("JSON")).expect("parses");
        assert_eq!(again, *placement);
    }
}

#[test]
fn p09_a_binding_stands_where_there_is_a_place_and_only_there() {
    assert!(manifest(MAC, BINDING).is_err() && manifest(JWT, BINDING).is_err() && manifest(URL, "").is_err());
    let with_headers = BINDING.replace("] }]", "], headers = [\"x-a\"] }]");
    assert!(manifest(URL, &with_headers).is_err());
}

#[test]
fn p09_what_cannot_be_bounded_or_told_apart_is_no_function() {
    for (of, from, to) in [
        (MAC, "orders-v1.", ""),
        (MAC, "orders-v1.", "o."),
        (MAC, "orders-v1.", "orders"),
        (MAC, "orders-v1.", "1700000000."),
        (MAC, "orders-v1.", "or ders."),
        (MAC, "orders-v1.", "orders\\n."),
        (MAC, "4096", "0"),
        (MAC, "4096", "65537"),
        (MAC, "hmac-sha256", "hmac-md5"),
        (MAC, "max_bytes", "most_bytes"),
        (JWT, "\"sub\"", "\"exp\""),
        (JWT, "\"sub\"", "\"jti\""),
        (JWT, "\"sub\"", "\"iss\""),
        (JWT, "\"sub\"", "\"cnf\""),
        (JWT, "\"sub\"", "\"sub\", \"sub\""),
        (JWT, "\"sub\"", "\"\""),
        (JWT, "\"sub\"", "\"a\", \"b\", \"c\", \"d\", \"e\", \"f\", \"g\", \"h\", \"i\""),
        (JWT, ", aud = \"them\" }, may_claim = [\"sub\"]", " }, may_claim = [\"aud\"]"),
        (JWT, "iss = \"us\"", "exp = \"us\""),
        (JWT, "= 60", "= 3601"),
        (JWT, "ES256", "none"),
        (URL, "eu-west-1", "*"),
        (URL, "300", "0"),
        (URL, "300", "604801"),
    ] {
        let rest = if of == URL { BINDING } else { "" };
        assert!(of.contains(from) && manifest(&of.replace(from, to), rest).is_err(), "{from} -> {to}");
    }
}

#[test]
fn p09_no_context_of_a_package_begins_with_another_one() {
    let second = |context: &str| {
        let signs = MAC.replace("orders-v1.", context);
        let slot = format!(
            "[[slots]]\nname = \"t\"\ndescription = \"d\"\nplacement = {{ kind = \"function\", signs = {{ {signs} }} }}\n"
        );
        manifest(MAC, &slot)
    };
    assert!(second("orders-v2.").is_ok());
    for same in ["orders-v1.", "orders-v1.more.", "orders-"] {
        assert!(second(same).is_err(), "{same}");
    }
}

#[test]
fn a_jwt_for_nobody_in_particular_is_found() {
    let findings = |signs: &str| crate::check_description(&manifest(signs, "").expect("may be said"), &[]).len();
    assert_eq!(findings(&JWT.replace(", aud = \"them\"", "")), findings(JWT) + 1);
}
