//! Signing against the mock host: what a tool asks is recorded, and what nobody expected is denied.

use keybearer_guest::ToolError;
use keybearer_guest::http::Method;
use keybearer_guest::mock::Host;
use keybearer_guest::mock::Signing;
use keybearer_guest::signing;
use keybearer_guest::signing::Error;
use keybearer_guest::signing::GuestFault;

#[test]
fn what_a_tool_asks_to_be_signed_is_recorded_and_answered_by_slot() {
    let host = Host::new()
        .signs("mac", |_| Ok(vec![0, 255]))
        .signs("jwt", |_| Ok(b"a.b.c".to_vec()))
        .signs("url", |_| Err(Error::Guest(GuestFault::ExpiresOutOfRange)));
    let url = "https://bucket.example.com/key";
    host.run(|| {
        assert_eq!(signing::mac("mac", "message").map(|mac| signing::hex(&mac)), Ok("00ff".to_owned()));
        assert_eq!(signing::jwt("jwt", &[("sub", "s")]), Ok("a.b.c".to_owned()));
        let refused = signing::presign("url", Method::Get, url, 999);
        assert_eq!(refused, Err(Error::Guest(GuestFault::ExpiresOutOfRange)));
    });
    let slot = str::to_owned;
    assert_eq!(
        host.signings(),
        [
            Signing::Mac { slot: slot("mac"), message: b"message".to_vec() },
            Signing::Jwt { slot: slot("jwt"), claims: vec![(slot("sub"), slot("s"))] },
            Signing::Presign { slot: slot("url"), method: Method::Get, url: slot(url), expires_s: 999 },
        ]
    );
}

#[test]
fn what_nobody_expected_is_denied_and_a_url_that_no_host_takes_is_the_tools_fault() {
    let host = Host::new().signs("url", |_| Ok(b"https://signed.example.com/".to_vec()));
    host.run(|| {
        assert_eq!(signing::mac("mac", "message"), Err(Error::Denied));
        for url in ["https://bucket.example.com", "https://bucket.example.com/a/../b", "bucket.example.com/key"] {
            let refused = signing::presign("url", Method::Get, url, 60);
            assert_eq!(refused, Err(Error::Guest(GuestFault::MalformedUrl)), "{url}");
        }
    });
    assert_eq!(ToolError::from(Error::Denied), ToolError::Denied);
    assert!(matches!(ToolError::from(Error::Host), ToolError::Failed(_)));
}
