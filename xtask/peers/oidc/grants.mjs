// Two grants that the provider does not bring along: token exchange (RFC 8693) and the JWT bearer grant
// (RFC 7523), as the services that have them do it: the assertion of a client is verified by that client's
// registered keys, that of another issuer by the keys that a test has named for it.

import { createLocalJWKSet, decodeJwt, jwtVerify } from 'jose';
import { errors } from 'oidc-provider';

export const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
export const BEARER = 'urn:ietf:params:oauth:grant-type:jwt-bearer';
const ACCESS_TOKEN = 'urn:ietf:params:oauth:token-type:access_token';
const JWT = 'urn:ietf:params:oauth:token-type:jwt';

// iss -> JSON Web Key Set
export const issuers = new Map();
// "iss jti" of assertions that were used
const used = new Set();

/// The claims of an assertion that somebody trusted has made for us, and only once if it has an id.
async function verified(provider, client, assertion) {
  try {
    const { iss, jti } = decodeJwt(assertion);
    const keys = iss === client.clientId ? client.jwks : issuers.get(iss);
    if (!keys) throw new Error('its issuer is not trusted');
    const { payload } = await jwtVerify(assertion, createLocalJWKSet(keys), {
      audience: [provider.issuer, `${provider.issuer}/token`],
      requiredClaims: ['iss', 'sub', 'aud', 'exp'],
      algorithms: ['RS256', 'ES256', 'EdDSA', 'Ed25519'],
    });
    if (jti !== undefined && used.has(`${iss} ${jti}`)) throw new Error('it was used before');
    used.add(`${iss} ${jti}`);
    return payload;
  } catch (cause) {
    throw new errors.InvalidGrant(`assertion: ${cause.message}`, undefined, { cause });
  }
}

function scopeOf(client, asked) {
  const allowed = new Set((client.scope ?? '').split(' '));
  const scopes = (asked ?? '').split(' ').filter(Boolean);
  const refused = scopes.find((scope) => !allowed.has(scope));
  if (refused) throw new errors.InvalidScope('requested scope is not allowed', refused);
  return scopes.join(' ') || undefined;
}

async function issue(provider, ctx, audience, extra) {
  const { client, params } = ctx.oidc;
  const token = new provider.ClientCredentials({ client, scope: scopeOf(client, params.scope) });
  token.aud = audience;
  token.extra = extra;
  ctx.oidc.entity('ClientCredentials', token);
  const value = await token.save();
  return { access_token: value, token_type: 'Bearer', expires_in: token.expiration, scope: token.scope };
}

/// What a subject or actor token says; a token of ours or an assertion.
async function claimsOf(provider, client, value, type) {
  if (type === JWT) return verified(provider, client, value);
  if (type !== ACCESS_TOKEN) throw new errors.InvalidRequest('that type of token is not exchanged');
  const token = (await provider.AccessToken.find(value)) ?? (await provider.ClientCredentials.find(value));
  if (!token || token.isExpired) throw new errors.InvalidGrant('the token to exchange is not valid');
  return { sub: token.accountId ?? token.clientId };
}

export function register(provider) {
  provider.registerGrantType(EXCHANGE, async (ctx) => {
    const { client, params } = ctx.oidc;
    const subject = await claimsOf(provider, client, params.subject_token, params.subject_token_type);
    const actor = params.actor_token
      ? await claimsOf(provider, client, params.actor_token, params.actor_token_type)
      : { sub: client.clientId };
    const audience = params.audience ?? params.resource ?? 'urn:api';
    const answer = await issue(provider, ctx, audience, { sub: subject.sub, act: { sub: actor.sub } });
    ctx.body = { ...answer, issued_token_type: ACCESS_TOKEN };
  }, [
    'subject_token', 'subject_token_type', 'actor_token', 'actor_token_type',
    'requested_token_type', 'resource', 'audience', 'scope',
  ]);
  provider.registerGrantType(BEARER, async (ctx) => {
    const { client, params } = ctx.oidc;
    const { sub } = await verified(provider, client, params.assertion);
    ctx.body = await issue(provider, ctx, 'urn:api', { sub });
  }, ['assertion', 'scope']);
}
