//! PostgreSQL, by itself and with the accounts that OpenBao makes in it.

use keybearer_tests::OpenBao;
use keybearer_tests::Postgres;
use serde_json::json;

mod needs_postgres {
    use super::*;

    // If it failed, an account would count as closed because nobody can log in at all.
    #[test]
    fn the_superuser_is_let_in_by_its_password_only() -> anyhow::Result<()> {
        let server = Postgres::find()?;
        assert_eq!(server.sql("SELECT current_user")?, Postgres::SUPERUSER);
        assert!(!server.lets_in(Postgres::SUPERUSER, "another"));
        assert!(server.sql("SELECT no_such_column").is_err());
        Ok(())
    }

    mod needs_openbao {
        use super::*;

        // If it failed, the cases of leases would not see that what is taken back does not serve any more.
        #[tokio::test]
        async fn an_account_that_openbao_makes_is_let_in_until_its_lease_is_revoked() -> anyhow::Result<()> {
            let (bao, server) = (OpenBao::shared().await?, Postgres::find()?);
            bao.enable_postgres("database", &server, "reader", 60, json!({})).await?;
            let (one, other) = (bao.read("database/creds/reader").await?, bao.read("database/creds/reader").await?);
            let lets_in = |lease: &serde_json::Value| {
                let text = |name: &str| lease["data"][name].as_str().unwrap_or_default().to_owned();
                server.lets_in(&text("username"), &text("password"))
            };
            assert!(lets_in(&one) && lets_in(&other), "{one} {other}");
            assert_eq!((&one["lease_duration"], &one["renewable"]), (&json!(60), &json!(true)));
            let lease = one["lease_id"].clone();
            let renewed = bao.write("sys/leases/renew", &json!({"lease_id": lease, "increment": 90})).await?;
            assert_eq!(renewed["lease_duration"], 90, "{renewed}");
            bao.write("sys/leases/revoke", &json!({"lease_id": lease, "sync": true})).await?;
            assert!(!lets_in(&one), "its lease was revoked");
            assert!(lets_in(&other), "the other one was not");
            Ok(())
        }
    }
}
