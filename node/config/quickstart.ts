/** The settings of a first node: one domain, three accounts, everything on 127.0.0.1, ports that need no privilege. */
import { type ConfigInput, gossipPort } from './schema.js';

export const quickstartDomain = 'example.test';
export const quickstartAccounts = ['admin', 'alice', 'bob'].map((name) => `${name}@${quickstartDomain}`);

/** Ports before the offset is added (README, "Ports"). */
export const quickstartPorts = {
  smtp: 2525,
  submission: 2587,
  submissions: 2465,
  lmtp: 2424,
  imap: 2143,
  imaps: 2993,
  pop3: 2110,
  pop3s: 2995,
  http: 2080,
  https: 2443,
} as const;

/** The cluster-wide settings of a new installation: for trying things out, any password will do; otherwise more is asked for. */
export const quickstartSettings = { directory: { minPasswordCharacters: 1 } };

/** Everything with the quickstart's defaults; `overrides` replaces whole sections, of `gossip` single settings: its port stays with the others'. */
export function quickstartConfig(data: string, portOffset: number, overrides: Partial<ConfigInput> = {}): ConfigInput {
  const at = (name: keyof typeof quickstartPorts) => ({ name, port: quickstartPorts[name] + portOffset });
  return {
    data,
    hostname: `mail.${quickstartDomain}`,
    listeners: [
      { ...at('smtp'), protocol: 'smtp', tls: 'starttls' },
      { ...at('submission'), protocol: 'submission', tls: 'starttls' },
      { ...at('submissions'), protocol: 'submission', tls: 'implicit' },
      { ...at('lmtp'), protocol: 'lmtp', tls: 'none' },
      { ...at('imap'), protocol: 'imap', tls: 'starttls' },
      { ...at('imaps'), protocol: 'imap', tls: 'implicit' },
      { ...at('pop3'), protocol: 'pop3', tls: 'starttls' },
      { ...at('pop3s'), protocol: 'pop3', tls: 'implicit' },
      { ...at('http'), protocol: 'http', tls: 'none' },
      { ...at('https'), protocol: 'http', tls: 'implicit' },
    ],
    ...overrides,
    gossip: withPort(overrides.gossip, gossipPort + portOffset),
  };
}

/** What is no table is left for the schema to refuse. */
function withPort(given: ConfigInput['gossip'], port: number): ConfigInput['gossip'] {
  return given === undefined || typeof given === 'object' ? { port, ...given } : given;
}
