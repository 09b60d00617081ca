//! The Vault API (HashiCorp Vault, OpenBao): how the host logs in, and what it asks for then. A login's
//! token is used by every fetch of the same credential and run while it lives.

mod events;

use std::time::Duration;

use keybearer_contract::Method;
use keybearer_gate::Auth;
use keybearer_gate::CredentialKind;
use keybearer_gate::Exchange;
use keybearer_gate::ExchangeBody;
use keybearer_gate::Field;
use keybearer_gate::Ingredient;
use keybearer_gate::NotCanonical;
use keybearer_gate::Refusal;
use keybearer_gate::VaultDatabase;
use keybearer_gate::VaultKv;
use keybearer_gate::VaultLogin;
use keybearer_gate::VaultServer;
use keybearer_gate::Yields;
use keybearer_strongbox::AnswerRefused;
use keybearer_strongbox::Told;
use keybearer_strongbox::Yield;

use crate::MintFault;
use crate::Transport;
use crate::spiffe;
use crate::way::Way;

pub(crate) use events::VaultEvents;
pub(crate) use events::listen;

/// The name under which a login's token is held.
const TOKEN: &str = "login_token";

/// The name under which a new secret of the role is held.
pub(crate) const SECRET_ID: &str = "secret_id";

/// The field that carries it.
const TOKEN_HEADER: &str = "x-vault-token";

/// A token is not used in its last seconds (or last quarter, if that is less): a request takes time.
const BUFFER: Duration = Duration::from_secs(30);

/// What was read may be echoed by an upstream long after it was rotated out; the strongbox looks no longer than this.
const LOOKED_FOR_S: u64 = 24 * 3_600;

/// A key of a KV engine with versions.
pub(crate) async fn read(recipe: &VaultKv, way: &mut Way<'_, impl Transport>) -> Result<Yield, MintFault> {
    let pinned = recipe.version.map(|version| format!("?version={version}")).unwrap_or_default();
    let path = format!("{}/data/{}{pinned}", recipe.mount, recipe.path);
    let mut exchange = recipe.server.request(Method::Get, &path)?;
    let mut parts = Vec::with_capacity(2);
    if let Some(user) = &recipe.user_field {
        exchange = exchange.holds("user", &["data", "data", user]);
        parts.push("user");
    }
    exchange = exchange
        .holds("value", &["data", "data", &recipe.field])
        .tells("version", &["data", "metadata", "version"])
        .tells("tenant", &["data", "metadata", "custom_metadata", "tenant"]);
    parts.push("value");
    let told = ask(&recipe.server, exchange, way).await?;
    let version = told.number("version")?.ok_or(AnswerRefused::Malformed)?;
    if recipe.version.is_some_and(|pinned| pinned != version) {
        return Err(AnswerRefused::Unexpected("it is of another version than the recipe pins").into());
    }
    if recipe.tenant.is_some() && recipe.tenant.as_deref() != told.get("tenant") {
        return Err(AnswerRefused::Unexpected("its metadata names another tenant than the recipe").into());
    }
    let source_version = Some(version);
    let (life_s, use_max_s) = (Some(LOOKED_FOR_S), Some(recipe.ttl_s));
    Ok(Yield { parts, life_s, use_max_s, source_version, ..Yield::default() })
}

/// An account of a database engine. It is the login's: it ends with it, at the latest.
pub(crate) async fn account(recipe: &VaultDatabase, way: &mut Way<'_, impl Transport>) -> Result<Yield, MintFault> {
    let server = &recipe.server;
    if way.vessel().remains(TOKEN).is_some_and(|remains| remains < LEASING_MIN) {
        way.vessel().forget(TOKEN);
    }
    let exchange = server
        .request(Method::Get, &format!("{}/creds/{}", recipe.mount, recipe.role))?
        .holds("user", &["data", "username"])
        .holds("password", &["data", "password"])
        .tells("lease", &["lease_id"])
        .tells("life_s", &["lease_duration"]);
    let told = ask(server, exchange, way).await?;
    let lease = told.get("lease").filter(|lease| !lease.is_empty()).ok_or(AnswerRefused::Malformed)?;
    let lease_s = told.number("life_s")?.unwrap_or(0);
    let login_s = way.vessel().remains(TOKEN).map_or(0, |remains| remains.as_secs());
    let parts = if recipe.yields == Yields::Basic { vec!["user", "password"] } else { vec!["password"] };
    Ok(Yield {
        parts,
        life_s: Some(lease_s.min(login_s)),
        undo: Some(revocation(server, lease)?),
        orphan: Some(lease.to_owned()),
        ..Yield::default()
    })
}

/// A login that ends sooner is not used for an account, which would end with it: a new one is made.
const LEASING_MIN: Duration = Duration::from_secs(300);

/// Has the server take back what it gave an earlier process: a lease, or a login with all that was leased to it.
pub(crate) async fn reap(
    server: &VaultServer,
    reference: &str,
    way: &mut Way<'_, impl Transport>,
) -> Result<(), MintFault> {
    let Some(accessor) = reference.strip_prefix(LOGIN) else {
        return ask(server, revocation(server, reference)?, way).await.map(drop);
    };
    let body = vec![("accessor", accessor.into())];
    let exchange = server.request(Method::Post, "auth/token/revoke-accessor")?.body(ExchangeBody::Json(body));
    match ask(server, exchange, way).await {
        // It has ended by itself.
        Err(MintFault::Refused(AnswerRefused::Status { status: 400 | 404, .. })) => Ok(()),
        // The policy does not let us: asking again would be logging in again, for nothing.
        Err(MintFault::Refused(AnswerRefused::Status { status: 403, .. })) => Err(MintFault::Stale),
        reaped => reaped.map(drop),
    }
}

/// How the reference of a login begins: no lease does so, for a mount's name has no colon.
const LOGIN: &str = "login:";

fn revocation(server: &VaultServer, lease: &str) -> Result<Exchange, NotCanonical> {
    // Answered when it is done, and not when it is noted down.
    let body = vec![("lease_id", lease.into()), ("sync", Field::Json(true.into()))];
    let exchange = server.request(Method::Post, "sys/leases/revoke")?.body(ExchangeBody::Json(body));
    Ok(exchange.auth(Auth::Header(TOKEN_HEADER, Ingredient::Held(TOKEN))))
}

/// Unwraps what is stored in place of the secret, after a look at what it wraps: whoever was on the way could have
/// unwrapped the secret and wrapped something else.
pub(crate) async fn unwrap(server: &VaultServer, way: &mut Way<'_, impl Transport>) -> Result<(), MintFault> {
    let body = vec![("token", Field::Secret(Ingredient::StoredPassword))];
    let look = server.request(Method::Post, "sys/wrapping/lookup")?.body(ExchangeBody::Json(body));
    let told = way.ask(look.tells("path", &["data", "creation_path"])).await?;
    let is_a_secret_id = |path: &str| path.contains("auth/") && path.ends_with("/secret-id");
    if !told.get("path").is_some_and(is_a_secret_id) {
        return Err(MintFault::Refused(AnswerRefused::Unexpected("the token does not wrap a secret_id")));
    }
    let open = server
        .request(Method::Post, "sys/wrapping/unwrap")?
        .auth(Auth::Header(TOKEN_HEADER, Ingredient::StoredPassword))
        .holds(SECRET_ID, &["data", "secret_id"]);
    way.ask(open).await.map(drop)
}

/// Has a new `secret_id` made; says by which accessor the one that is stored is known.
pub(crate) async fn make_secret_id(
    server: &VaultServer,
    path: &str,
    way: &mut Way<'_, impl Transport>,
) -> Result<String, MintFault> {
    let body = vec![("secret_id", Field::Secret(Ingredient::StoredPassword))];
    let look = server.request(Method::Post, &format!("{path}/lookup"))?.body(ExchangeBody::Json(body));
    let told = ask(server, look.tells("accessor", &["data", "secret_id_accessor"]), way).await?;
    let accessor = told.get("accessor").ok_or(AnswerRefused::Malformed)?.to_owned();
    let make = server.request(Method::Post, path)?.body(ExchangeBody::Json(Vec::new()));
    ask(server, make.holds(SECRET_ID, &["data", "secret_id"]), way).await?;
    Ok(accessor)
}

/// Destroys a `secret_id`, by its accessor.
pub(crate) async fn destroy_secret_id(
    server: &VaultServer,
    path: &str,
    accessor: &str,
    way: &mut Way<'_, impl Transport>,
) -> Result<(), MintFault> {
    let body = vec![("secret_id_accessor", accessor.into())];
    let destroy = server.request(Method::Post, &format!("{path}-accessor/destroy"))?.body(ExchangeBody::Json(body));
    ask(server, destroy, way).await.map(drop)
}

/// Asks with a login's token: with one of an earlier fetch, if there is one. The server may have forgotten
/// that one, which it does not tell from a path that the token's policy forbids: then with a new one, once.
async fn ask(server: &VaultServer, exchange: Exchange, way: &mut Way<'_, impl Transport>) -> Result<Told, MintFault> {
    let exchange = exchange.auth(Auth::Header(TOKEN_HEADER, Ingredient::Held(TOKEN)));
    if way.vessel().has(TOKEN) {
        match way.ask(exchange.clone()).await {
            Err(MintFault::Refused(AnswerRefused::Status { status: 403, .. })) => way.vessel().forget(TOKEN),
            answered => return answered,
        }
    }
    log_in(server, way).await?;
    way.ask(exchange).await
}

async fn log_in(server: &VaultServer, way: &mut Way<'_, impl Transport>) -> Result<(), MintFault> {
    let stored = Field::Secret;
    let (mount, auth, body) = match &server.login {
        VaultLogin::Approle { mount, .. } => {
            let (id, secret) = (stored(Ingredient::StoredUser), stored(Ingredient::StoredPassword));
            (mount, Auth::None, vec![("role_id", id), ("secret_id", secret)])
        }
        VaultLogin::Jwt { mount, role } => {
            (mount, Auth::None, vec![("role", role.as_str().into()), ("jwt", stored(Ingredient::Stored))])
        }
        VaultLogin::Cert { mount, role } => {
            (mount, Auth::ClientCertificate(Ingredient::Stored), vec![("name", role.as_str().into())])
        }
        VaultLogin::SpiffeX509 { mount, role, spiffe_id } => {
            spiffe::hold_x509(spiffe_id, way)?;
            let auth = Auth::ClientCertificate(Ingredient::Held(spiffe::SVID));
            (mount, auth, vec![("name", role.as_str().into())])
        }
        VaultLogin::SpiffeJwt { mount, role, spiffe_id, audience } => {
            spiffe::hold_jwt(spiffe_id, audience, way).await?;
            let jwt = stored(Ingredient::Held(spiffe::SVID));
            (mount, Auth::None, vec![("role", role.as_str().into()), ("jwt", jwt)])
        }
    };
    let exchange = server
        .request(Method::Post, &format!("auth/{mount}/login"))?
        .auth(auth)
        .body(ExchangeBody::Json(body))
        .holds(TOKEN, &["auth", "client_token"])
        .tells("life_s", &["auth", "lease_duration"])
        .tells("accessor", &["auth", "accessor"])
        .tells("type", &["auth", "token_type"]);
    let told = way.ask(exchange).await?;
    let life = Duration::from_secs(told.number("life_s")?.unwrap_or(0));
    // What is leased to the token ends with it: what a crash cuts off between lease and note is found by its login.
    let leases = matches!(way.kind(), CredentialKind::VaultDatabase(_));
    let accessor = told.get("accessor").filter(|accessor| leases && !accessor.is_empty());
    let orphan = accessor.map(|accessor| format!("{LOGIN}{accessor}"));
    if let Some(reference) = &orphan {
        way.note(reference, life.as_secs()).await?;
    }
    // A batch token is nowhere written down, and cannot be revoked.
    let logout = if told.get("type") == Some("batch") { None } else { Some(log_out(server)?) };
    way.stay_logged_in(TOKEN, life.saturating_sub(BUFFER.min(life / 4)), logout, orphan);
    Ok(())
}

fn log_out(server: &VaultServer) -> Result<Exchange, NotCanonical> {
    let exchange = server.request(Method::Post, "auth/token/revoke-self")?;
    Ok(exchange.auth(Auth::Header(TOKEN_HEADER, Ingredient::Held(TOKEN))))
}

impl From<NotCanonical> for MintFault {
    fn from(why: NotCanonical) -> Self {
        Self::NotCleared(Refusal::NoBinding { method: String::new(), place: why.to_string() })
    }
}
