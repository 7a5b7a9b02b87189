/**
 * The servers that a connection string names. libpq's form with several hosts (`postgres://u:p@h1:5432,h2:5432/db`) is taken apart into
 * one string for each, because the client library knows only one.
 */
import { KvError } from '../contract.js';

export interface Endpoint {
  /** For logs: no password. */
  readonly name: string;
  readonly connectionString: string;
}

/** Throws `unavailable` with a sentence when the string can't be one of a PostgreSQL server. */
export function parseEndpoints(connectionString: string): Endpoint[] {
  const match = /^(postgres(?:ql)?:\/\/)([^/?#]*)(.*)$/s.exec(connectionString.trim());
  if (!match) throw new KvError('unavailable', 'the address of the PostgreSQL server must begin with postgres://', 'io');
  const [, scheme, authority, rest] = match as unknown as [string, string, string, string];
  const userEnd = authority.lastIndexOf('@') + 1;
  // Such a password would be taken apart, and a part of it shown as the name of the host.
  if (userEnd === 0 && rest.includes('@')) throw badlyEncoded();
  const user = authority.slice(0, userEnd);
  const hosts = authority.slice(userEnd).split(',');
  if (!hosts.every((host) => /^([\w.~%-]*|\[[0-9a-f:.%]+\])(:\d+)?$/i.test(host))) throw badlyEncoded();
  return hosts.map((host) => ({
    name: host === '' ? 'localhost' : host,
    connectionString: `${scheme}${user}${host}${rest}`,
  }));
}

function badlyEncoded(): KvError {
  const message =
    'the address of the PostgreSQL server can not be read: in user and password, the characters / ? # @ : must be percent-encoded, and a host is a name or an address with a port';
  return new KvError('unavailable', message, 'io');
}
