/** What other rooms ask of the DNS, with every outcome told apart: "there is none" and "I could not find out" must never be mixed up. */

/** Answers are lower case, without the trailing dot. */
export type DnsOutcome<T> =
  | {
      status: 'found';
      records: T[];
      /** Proved by DNSSEC (the resolver's AD, from a resolver that is trusted to say so). */
      authenticated: boolean;
      ttlSeconds: number;
    }
  /** The name exists, records of this type do not. */
  | { status: 'nodata'; authenticated: boolean }
  /** The name does not exist. */
  | { status: 'nxdomain'; authenticated: boolean }
  /** SERVFAIL, timeout, refusal, bogus DNSSEC: nobody knows. Never cached. */
  | { status: 'temporary'; reason: string };

export interface MxRecord {
  preference: number;
  /** Empty for the null MX (RFC 7505). */
  exchange: string;
}

/** Names are given in ASCII (A-labels), with or without the trailing dot. No method rejects. */
export interface Resolver {
  mx(name: string): Promise<DnsOutcome<MxRecord>>;
  /** IPv4 addresses; CNAMEs are followed. */
  a(name: string): Promise<DnsOutcome<string>>;
  /** IPv6 addresses; CNAMEs are followed. */
  aaaa(name: string): Promise<DnsOutcome<string>>;
  /** Each record's strings joined without a space (RFC 7208 3.3). */
  txt(name: string): Promise<DnsOutcome<string>>;
  /** Host names of an IPv4 or IPv6 address. */
  ptr(address: string): Promise<DnsOutcome<string>>;
}
