/** What functions of expressions ask of this node: directory, name service, look-up lists, counters. */
import type { Clock } from '../ops/telemetry/index.js';
import type { DnsOutcome, Resolver } from '../protocols/dns/index.js';
import type { Directory } from '../store/directory/contract.js';
import type { RateLimiter } from '../store/limits/contract.js';
import type { Lookups } from '../store/lookups/contract.js';
import type { ExpressionHost } from './expressions/index.js';

export interface ExpressionHostDependencies {
  clock: Clock;
  directory: Pick<Directory, 'isLocalDomain' | 'resolve'>;
  resolver: Resolver;
  lookups: Pick<Lookups, 'get'>;
  rates: Pick<RateLimiter, 'count'>;
}

/** Texts of the records of a type; a type that is not here is an error of whoever wrote the expression. */
const questions: Record<string, (resolver: Resolver, name: string) => Promise<DnsOutcome<string>>> = {
  A: (resolver, name) => resolver.a(name),
  AAAA: (resolver, name) => resolver.aaaa(name),
  TXT: (resolver, name) => resolver.txt(name),
  PTR: (resolver, address) => resolver.ptr(address),
  async MX(resolver, name) {
    const outcome = await resolver.mx(name);
    if (outcome.status !== 'found') return outcome;
    const byPreference = [...outcome.records].sort((a, b) => a.preference - b.preference);
    return { ...outcome, records: byPreference.map(({ exchange }) => exchange) };
  },
};

export function createExpressionHost({ clock, directory, resolver, lookups, rates }: ExpressionHostDependencies): ExpressionHost {
  return {
    clock,
    isLocalDomain: (domain) => directory.isLocalDomain(domain),
    isLocalAddress: async (address) => (await directory.resolve(address)).kind === 'local',
    async dnsQuery(name, type) {
      const ask = questions[type.toUpperCase()];
      if (!ask) throw new Error(`dns_query knows ${Object.keys(questions).join(', ')}, not ${type}`);
      const outcome = await ask(resolver, name);
      if (outcome.status === 'temporary') throw new Error(`${type} of ${name} could not be found out: ${outcome.reason}`);
      return outcome.status === 'found' ? outcome.records : [];
    },
    keyExists: async (list, key) => (await lookups.get(list, key.toLowerCase())) !== undefined,
    keyGet: async (list, key) => (await lookups.get(list, key.toLowerCase())) ?? '',
    counter: (name, key, periodSeconds) => rates.count(name, key, periodSeconds),
  };
}
