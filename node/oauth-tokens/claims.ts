/** What a verified token must say of itself: audience, scope, address. Pure. */
import type { ClusterSettings } from '../settings/index.js';
import type { TokenVerdict } from './contract.js';

export type IssuerSettings = ClusterSettings['login']['issuers'][string];
type Claims = Readonly<Record<string, unknown>>;

const stale = (detail: string): TokenVerdict => ({ isGood: false, reason: 'stale', detail });

/** RFC 6749 3.3 (`scope`, space-separated), RFC 8693 4.2, and the list or `scp` that some issuers write. */
export function scopesOf(claims: Claims): Set<string> {
  const words = [claims['scope'], claims['scp']].flatMap((value) => {
    if (typeof value === 'string') return value.split(' ');
    return Array.isArray(value) ? value.filter((one) => typeof one === 'string') : [];
  });
  return new Set(words.filter((word) => word !== ''));
}

export function hasAudience(claims: Claims, audiences: readonly string[]): boolean {
  const found = claims['aud'];
  const names: unknown[] = Array.isArray(found) ? found : [found];
  return names.some((name) => typeof name === 'string' && audiences.includes(name));
}

/** Judges the claims of a token whose signature and time are right already. */
export function judgeClaims(claims: Claims, settings: IssuerSettings, addressClaim: string): TokenVerdict {
  const scopes = scopesOf(claims);
  if (settings.requiredScopes.some((scope) => !scopes.has(scope))) {
    const scope = settings.requiredScopes.join(' ');
    return { isGood: false, reason: 'scope', detail: `the token of ${settings.issuer} lacks a scope`, scope };
  }
  const address = claims[addressClaim];
  if (typeof address !== 'string' || address === '')
    return stale(`the token of ${settings.issuer} has no text in ${addressClaim}`);
  // OpenID Connect Core 5.1: an address that the issuer has not verified is what its user has typed.
  // Some issuers write the boolean as a text.
  if (addressClaim === 'email' && ['false', false].includes(claims['email_verified'] as boolean | string))
    return stale(`${settings.issuer} has not verified the address`);
  const domain = address.slice(address.lastIndexOf('@') + 1).toLowerCase();
  if (settings.domains.length > 0 && !settings.domains.some((one) => one.toLowerCase() === domain)) {
    return stale(`${settings.issuer} does not speak for ${domain.slice(0, 253)}`);
  }
  return { isGood: true, address };
}
