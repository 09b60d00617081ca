//! The tools against a mock host: what each asks to have signed fits its manifest, and no argument leaves it.

use keybearer_guest::http::Response;
use keybearer_guest::mock::Host;
use keybearer_guest::mock::Signing;
use keybearer_guest::signing::Error;

use super::*;

#[test]
fn an_event_goes_out_with_the_mac_of_its_text() {
    let host = Host::new()
        .signs("events", |asked| match asked {
            Signing::Mac { message, .. } if message.as_slice() == br#"{"order":7,"state":"paid"}"# => {
                Ok(vec![0xab, 0x01])
            }
            _ => Err(Error::Denied),
        })
        .on(Method::Post, "https://events.example.com/v1/orders", |_| Response::new(202));
    let delivered = host.run(|| deliver(Event { order: 7, state: "paid".to_owned() })).expect("is delivered");
    assert_eq!(delivered.status, 202);
    let body: Value =
        keybearer_guest::serde_json::from_slice(host.requests()[0].body.as_deref().expect("a body")).expect("JSON");
    assert_eq!(body, json!({"event": "{\"order\":7,\"state\":\"paid\"}", "mac": "ab01"}));
}

#[test]
fn nothing_is_sent_that_could_not_be_signed() {
    let host = Host::new();
    let answer = host.run(|| deliver(Event { order: 7, state: "paid".to_owned() }));
    assert_eq!(answer.err(), Some(ToolError::Denied));
    assert!(host.requests().is_empty() && host.signings().len() == 1);
}

#[test]
fn a_ticket_says_who_and_nothing_else() {
    let host = Host::new().signs("tickets", |_| Ok(b"a.b.c".to_vec()));
    let made = host.run(|| ticket(Visitor { subject: "visitor-1".to_owned() })).expect("a ticket");
    assert_eq!(made.ticket, "a.b.c");
    let claims = vec![("sub".to_owned(), "visitor-1".to_owned())];
    assert_eq!(host.signings(), vec![Signing::Jwt { slot: "tickets".to_owned(), claims }]);
}

#[test]
fn n17_a_link_is_to_a_key_of_the_bucket_and_climbs_nowhere() {
    let manifest = keybearer_tool_check::manifest(include_str!("../manifest.toml"), &PACKAGE);
    let host = Host::new().signs("reports", |asked| match asked {
        Signing::Presign { url, .. } => Ok(format!("{url}?signed").into_bytes()),
        _ => Err(Error::Denied),
    });
    let of = |key: &str| host.run(|| link(Report { key: key.to_owned(), expires_s: 60 }));
    let made = of("2026/a b.csv").expect("a link");
    assert_eq!(made.url, "https://reports.s3.eu-west-1.amazonaws.com/2026/a%20b.csv?signed");
    for bad in ["", "../other", "a/../b", "a//b", "a%2fb", "a\\b", "a\r\nb"] {
        assert!(matches!(of(bad), Err(ToolError::InvalidArguments(_))), "{bad}");
    }
    let Some(Signing::Presign { url, method, .. }) = host.signings().pop() else { panic!("one was asked for") };
    let asked = keybearer_guest::mock::Request { method, url, headers: Vec::new(), body: None };
    assert!(keybearer_tool_check::admits(&manifest, "reports", &asked));
    assert_eq!(host.signings().len(), 1);
}
