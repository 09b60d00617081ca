// An authorization server as it is, oidc-provider, set up for the tests: run as `node op.mjs FOLDER`. FOLDER
// has the authority's certificate and the server's, and gets `oidc.ready` with the port. Its `oidc.token` is
// the initial access token of dynamic registration, and opens what tests say and ask at `/test/...`. A second
// argument is the port to listen on.

import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:https';
import Provider from 'oidc-provider';
import { BEARER, EXCHANGE, issuers, register } from './grants.mjs';
import { Store } from './store.mjs';

const folder = process.argv[2];
const admin = readFileSync(`${folder}/oidc.token`, 'utf8').trim();
const EVENTS_MAX = 10_000;
const SCOPES = ['openid', 'offline_access', 'api:read', 'api:write'];

// Metadata of a client that only tests set: how long its tokens live in s, and whether it keeps its
// refresh tokens.
const TTL = 'test_access_ttl_s';
const KEEPS = 'test_keeps_refresh_token';
const lasts = (otherwise) => (ctx, token, client) => client?.[TTL] ?? otherwise;

const provider = new Provider('https://oidc.test', {
  adapter: Store,
  scopes: SCOPES,
  findAccount: async (ctx, id) => ({ accountId: id, claims: async () => ({ sub: id }) }),
  rotateRefreshToken: (ctx) => !ctx.oidc.client[KEEPS],
  issueRefreshToken: async (ctx, client, code) =>
    client.grantTypeAllowed('refresh_token') && code.scopes.has('offline_access'),
  ttl: {
    AccessToken: lasts(300), ClientCredentials: lasts(300), RefreshToken: 3600, AuthorizationCode: 60,
    Grant: 3600, IdToken: 300, Interaction: 300, Session: 300,
  },
  extraClientMetadata: { properties: [TTL, KEEPS] },
  pkce: { required: () => true },
  extraTokenClaims: (ctx, token) => token.extra,
  interactions: { url: (ctx, interaction) => `/interaction/${interaction.uid}` },
  loadExistingGrant: everything,
  cookies: { keys: [admin] },
  clientAuthMethods: [
    'client_secret_basic', 'client_secret_post', 'client_secret_jwt', 'private_key_jwt',
    'tls_client_auth', 'self_signed_tls_client_auth', 'none',
  ],
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    introspection: { enabled: true },
    revocation: { enabled: true },
    registration: { enabled: true, initialAccessToken: admin },
    registrationManagement: { enabled: true, rotateRegistrationAccessToken: true },
    mTLS: {
      enabled: true,
      tlsClientAuth: true,
      selfSignedTlsClientAuth: true,
      certificateBoundAccessTokens: true,
      getCertificate: (ctx) => ctx.socket.getPeerX509Certificate(),
      certificateAuthorized: (ctx) => ctx.socket.authorized,
      certificateSubjectMatches: (ctx, property, expected) => {
        const names = ctx.socket.getPeerX509Certificate()?.subjectAltName ?? '';
        const kind = { tls_client_auth_san_dns: 'DNS', tls_client_auth_san_uri: 'URI' }[property];
        return kind !== undefined && names.split(', ').includes(`${kind}:${expected}`);
      },
    },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => 'urn:api',
      useGrantedResource: () => true,
      getResourceServerInfo: (ctx, resource) => ({ scope: 'api:read api:write', audience: resource }),
    },
  },
});
register(provider);

/// The account's consent to all that is asked for: nobody sits here to give it.
async function everything(ctx) {
  const { client, session, params, result } = ctx.oidc;
  const grant = new provider.Grant({ clientId: client.clientId, accountId: session.accountId ?? result.login.accountId });
  grant.addOIDCScope(params.scope ?? 'openid');
  grant.addResourceScope('urn:api', 'api:read api:write');
  await grant.save();
  return grant;
}

// --- what happened, for tests to look at
const events = [];
function note(event, token, more = {}) {
  events.push({ event, at_ms: Date.now(), client_id: token.clientId, account: token.accountId, grant_id: token.grantId, token: token.jti, ...more });
  if (events.length > EVENTS_MAX) events.shift();
}
for (const kind of ['access_token', 'client_credentials', 'refresh_token', 'authorization_code']) {
  for (const what of ['saved', 'destroyed', 'consumed']) {
    provider.on(`${kind}.${what}`, (token) => note(`${kind}.${what}`, token));
  }
}
provider.on('grant.revoked', (ctx, grantId) => note('grant.revoked', { clientId: ctx.oidc.client?.clientId, grantId }));
provider.on('grant.success', (ctx) => note('grant.success', { clientId: ctx.oidc.client.clientId }, { grant_type: ctx.oidc.params.grant_type }));
provider.on('grant.error', (ctx, error) => note('grant.error', { clientId: ctx.oidc?.client?.clientId }, { error: error.error, description: error.error_description, detail: error.error_detail }));
provider.on('server_error', (ctx, error) => console.error(error));

// --- what a test can do that no client can
const faults = []; // { client_id, kind } for the next answers of the token endpoint, in order
const orders = {
  /// Registers a client with any metadata, id and secret included.
  async clients(body) {
    const metadata = { token_endpoint_auth_method: 'client_secret_basic', scope: SCOPES.join(' '), redirect_uris: [], response_types: [], ...body };
    await new Store('Client').upsert(metadata.client_id, metadata);
    return (await provider.Client.find(metadata.client_id)).metadata();
  },
  /// Gives a client a refresh token of an account, as if it had consented.
  async refresh({ client_id, account, scope = 'openid offline_access api:read', ttl_s }) {
    const client = await provider.Client.find(client_id);
    const grant = new provider.Grant({ clientId: client_id, accountId: account });
    grant.addOIDCScope(scope);
    grant.addResourceScope('urn:api', scope);
    const grantId = await grant.save();
    const token = new provider.RefreshToken({
      client, accountId: account, grantId, scope, resource: 'urn:api', gty: 'authorization_code',
      claims: {}, authTime: Math.floor(Date.now() / 1000), expiresIn: ttl_s,
    });
    return { refresh_token: await token.save(), grant_id: grantId };
  },
  /// Takes back what an account consented to, as it can by itself.
  async withdraw({ grant_id }) {
    for (const model of ['AccessToken', 'RefreshToken', 'AuthorizationCode']) await provider[model].revokeByGrantId(grant_id);
    await new Store('Grant').destroy(grant_id);
    return {};
  },
  /// Trusts the assertions of an issuer.
  async issuers({ issuer, jwks }) {
    issuers.set(issuer, jwks);
    return {};
  },
  /// Spoils the next answers of the token endpoint to a client: "lost" does what was asked and closes the
  /// connection without an answer, "error" answers 503 at once, "hang" never answers, "garbage" is no JSON.
  async faults({ client_id, kinds }) {
    faults.push(...kinds.map((kind) => ({ client_id, kind })));
    return {};
  },
  /// What is registered of a client; nothing of one that is not.
  async metadata({ client_id }) {
    return (await provider.Client.find(client_id))?.metadata() ?? {};
  },
  async events({ client_id }) {
    return events.filter((event) => event.client_id === client_id);
  },
};

async function read(ctx) {
  const chunks = [];
  for await (const chunk of ctx.req) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

provider.use(async (ctx, next) => {
  const order = ctx.path.match(/^\/test\/(\w+)$/)?.[1];
  if (order === undefined) return next();
  if (ctx.get('authorization') !== `Bearer ${admin}` || ctx.method !== 'POST' || !Object.hasOwn(orders, order)) {
    ctx.status = 404;
    return undefined;
  }
  try {
    ctx.body = await orders[order](JSON.parse(await read(ctx)));
  } catch (error) {
    ctx.status = 400;
    ctx.body = { error: String(error.stack), description: error.error_description };
  }
  return undefined;
});

// The person in front of the browser: logs in as `login_hint` says, or refuses if that is `nobody`.
provider.use(async (ctx, next) => {
  if (!ctx.path.startsWith('/interaction/')) return next();
  const { params, prompt } = await provider.interactionDetails(ctx.req, ctx.res);
  const accountId = params.login_hint ?? 'somebody';
  const agreed = prompt.name === 'consent' ? { consent: {} } : { login: { accountId } };
  const result = accountId === 'nobody' ? { error: 'access_denied' } : agreed;
  ctx.redirect(await provider.interactionResult(ctx.req, ctx.res, result, { mergeWithLastSubmission: true }));
  return undefined;
});

// A client that shows nothing but an assertion is named by it; and the faults that a test has asked for.
provider.use(async (ctx, next) => {
  if (ctx.path !== '/token' || ctx.method !== 'POST') return next();
  const form = new URLSearchParams(await read(ctx));
  const basic = ctx.get('authorization').match(/^Basic (.+)$/)?.[1];
  const assertion = form.get('client_assertion') ?? form.get('assertion');
  const issuer = assertion && JSON.parse(Buffer.from(assertion.split('.')[1] ?? '', 'base64url').toString() || '{}').iss;
  const client = basic ? decodeURIComponent(Buffer.from(basic, 'base64').toString().split(':')[0]) : form.get('client_id') ?? issuer;
  if (form.get('grant_type') === BEARER && !basic && !form.has('client_id') && !form.has('client_assertion')) form.set('client_id', issuer);
  ctx.req.body = form.toString();
  const at = faults.findIndex((fault) => fault.client_id === client);
  const fault = at < 0 ? undefined : faults.splice(at, 1)[0].kind;
  if (fault === 'error') {
    ctx.status = 503;
  } else if (fault === 'hang') {
    ctx.respond = false;
  } else {
    await next();
    if (fault === 'garbage') ctx.body = 'not JSON';
    if (fault === 'lost') {
      ctx.respond = false;
      ctx.socket.destroy();
    }
  }
  return undefined;
});

const tls = {
  cert: readFileSync(`${folder}/server.pem`),
  key: readFileSync(`${folder}/server.key`),
  ca: readFileSync(`${folder}/ca.pem`),
  requestCert: true,
  rejectUnauthorized: false,
};
const server = createServer(tls, provider.callback());
server.listen(Number(process.argv[3] ?? 0), '127.0.0.1', () => {
  writeFileSync(`${folder}/oidc.part`, String(server.address().port));
  renameSync(`${folder}/oidc.part`, `${folder}/oidc.ready`);
});
process.on('SIGTERM', () => process.exit(0));
