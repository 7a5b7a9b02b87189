/** The variables of expressions: their types, and what an absent one is. */
import type { FactName, StageFacts } from './contract.js';

type FactType<T> = T extends string ? 'string' : T extends boolean ? 'bool' : 'int';

export const factTypes: { readonly [Name in FactName]: FactType<StageFacts[Name]> } = {
  listener: 'string',
  protocol: 'string',
  remote_ip: 'string',
  remote_port: 'int',
  local_ip: 'string',
  local_port: 'int',
  is_tls: 'bool',
  tls_version: 'string',
  helo: 'string',
  authenticated_as: 'string',
  sender: 'string',
  sender_domain: 'string',
  recipient: 'string',
  rcpt_domain: 'string',
  rcpt_count: 'int',
  size: 'int',
  priority: 'int',
  queue_id: 'string',
  queue_name: 'string',
  retry_num: 'int',
  notify_num: 'int',
  last_error: 'string',
  last_status: 'int',
  age: 'int',
  expires_in: 'int',
  source: 'string',
  mx: 'string',
  mx_ip: 'string',
  node_id: 'string',
  hostname: 'string',
};

const emptyValues = { string: '', int: 0, bool: false } as const;

/** Reads one fact; absent ones are empty, numbers lose their fraction. */
export function factReader(name: FactName): (facts: Partial<StageFacts>) => string | number | boolean {
  const type = factTypes[name];
  const empty = emptyValues[type];
  if (type === 'int') return (facts) => Math.trunc((facts[name] as number | undefined) ?? 0) || 0;
  return (facts) => facts[name] ?? empty;
}

export function isFactName(name: string): name is FactName {
  return Object.hasOwn(factTypes, name);
}
