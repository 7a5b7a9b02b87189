/**
 * The local file of one node: where its store is, the cluster key, what it listens on, and what else is this machine's own. Everything is checked before
 * anything starts; every limit has its unit in its name and a default here. What holds for the whole cluster is in the store (node/settings).
 */
import { isIPv4, isIPv6 } from 'node:net';
import { z } from 'zod';
import type { HostAndPort } from '../../cluster/gossip/contract.js';

const port = z.int().min(0).max(65_535);

/** `192.0.2.1`, `192.0.2.1:5353`, `2001:db8::1`, `[2001:db8::1]:5353`. */
function isServerAddress(text: string): boolean {
  const [, bracketed, plain, digits] = /^(?:\[([^\]]+)\]|([\d.]+))(?::(\d{1,5}))?$/.exec(text) ?? [];
  if (bracketed === undefined && plain === undefined) return isIPv6(text);
  const isAddress = bracketed === undefined ? isIPv4(plain!) : isIPv6(bracketed);
  return isAddress && (digits === undefined || (Number(digits) > 0 && Number(digits) <= 65_535));
}

/** `mx1.example.org:2946`, `192.0.2.1:2946`, `[2001:db8::1]:2946`. Undefined when it is none. */
export function parseHostAndPort(text: string): HostAndPort | undefined {
  const [, bracketed, plain, digits] = /^(?:\[([^\]]+)\]|([a-z0-9](?:[a-z0-9.-]*[a-z0-9])?)):(\d{1,5})$/i.exec(text) ?? [];
  const number = Number(digits);
  if (!(number > 0 && number <= 65_535)) return undefined;
  if (bracketed !== undefined) return isIPv6(bracketed) ? { host: bracketed, port: number } : undefined;
  // What has only digits and dots is meant as an address.
  return /^[\d.]+$/.test(plain!) && !isIPv4(plain!) ? undefined : { host: plain!, port: number };
}

const hostAndPort = z.string().transform((text, context): HostAndPort => {
  const parsed = parseHostAndPort(text);
  if (parsed) return parsed;
  context.addIssue({ code: 'custom', message: 'a name or an address, with its port: mx1.example.org:2946' });
  return z.NEVER;
});

/** Where nodes of a cluster hear one another, unless the file says otherwise. */
export const gossipPort = 2_946;
/** A node looks for its store for so long when it starts. */
const startTimeoutSeconds = z.number().min(0).max(86_400).default(120);

/** `192.0.2.1`, `192.0.2.0/24`, `2001:db8::1`, `2001:db8::/32`. */
function isNetwork(text: string): boolean {
  const [, address = '', prefix = '0'] = /^([^/%]+)(?:\/(\d{1,3}))?$/.exec(text) ?? [];
  return isIPv4(address) ? Number(prefix) <= 32 : isIPv6(address) && Number(prefix) <= 128;
}

export const nodeRoles = ['smtp', 'imap', 'http', 'queue'] as const;
export type NodeRole = (typeof nodeRoles)[number];

export const listenerProtocols = ['smtp', 'submission', 'lmtp', 'imap', 'pop3', 'http'] as const;

const proxyProtocol = z.strictObject({
  /** Balancers: their connections must begin with a PROXY header, version 1 or 2 (http: 2 only). Whoever else sends one is not believed. */
  from: z.array(z.string().refine(isNetwork, 'an IP address, or a network such as 10.0.0.0/8')).min(1),
  /** Connections from anywhere else are refused. */
  required: z.boolean().default(false),
});

const listener = z.strictObject({
  /** Shown in logs and as the metric label. */
  name: z.string().regex(/^[a-z0-9-]{1,32}$/),
  protocol: z.enum(listenerProtocols),
  host: z.string().default('127.0.0.1'),
  port,
  /** `implicit`: TLS from the first byte; `starttls`: offered; `none`: neither. */
  tls: z.enum(['none', 'starttls', 'implicit']).default('none'),
  maxConnections: z.int().min(1).default(8_192),
  maxConnectionsPerAddress: z.int().min(1).default(1_024),
  /** Before whom this listener stands, so that limits, bans, logs and Received fields know the client's address (node/listeners/README). */
  proxyProtocol: proxyProtocol.optional(),
});

export type ListenerConfig = z.infer<typeof listener>;

const emptyDefault = <T extends z.ZodType>(schema: T) => schema.prefault({} as never);

export const configSchema = z.strictObject({
  /** Directory of the embedded store, the certificates and the control socket. */
  data: z.string().default('./data'),
  /** The name that this node gives itself in greetings, Received fields and Message-IDs. */
  hostname: z
    .string()
    .regex(/^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/i)
    .default('localhost'),
  listeners: z
    .array(
      listener.refine((each) => !(each.proxyProtocol && each.protocol === 'http' && each.tls === 'implicit'), {
        path: ['proxyProtocol'],
        message:
          'HTTPS takes no PROXY header: let the balancer end TLS and speak HTTP to a listener without (node/listeners/README)',
      }),
    )
    .default([]),
  log: emptyDefault(
    z.strictObject({ level: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent']).default('info') }),
  ),
  store: z
    .discriminatedUnion('backend', [
      /** For one node. Default directory: `store` in `data`. */
      z.strictObject({ backend: z.literal('embedded'), directory: z.string().optional() }),
      /** Shared by nodes. The URL may stand in a file of its own or in STARLING_POSTGRES_URL, because of its password; several hosts for failover. */
      z.strictObject({
        backend: z.literal('postgres'),
        url: z.string().optional(),
        urlFile: z.string().optional(),
        startTimeoutSeconds,
      }),
      z.strictObject({
        backend: z.literal('foundationdb'),
        clusterFile: z.string().default('/etc/foundationdb/fdb.cluster'),
        /** Path of libfdb_c.so where the system's loader doesn't find it; also FDB_CLIENT_LIBRARY. */
        clientLibrary: z.string().optional(),
        /** Folder with client libraries of other versions, for upgrades of the database under running nodes. */
        externalClientDirectory: z.string().optional(),
        startTimeoutSeconds,
      }),
    ])
    .default({ backend: 'embedded' }),
  tls: emptyDefault(
    z.strictObject({
      /** PEM files; without them the node makes a self-signed certificate for its host name. */
      certificateFile: z.string().optional(),
      privateKeyFile: z.string().optional(),
    }),
  ),
  dns: emptyDefault(
    z.strictObject({
      /** `address[:port]` of DNS servers; without them the machine's own. */
      servers: z.array(z.string().refine(isServerAddress, 'an IP address, with :port if it is not 53')).default([]),
    }),
  ),
  /** What this machine does: its listeners of these protocols are opened (`smtp`: submission and LMTP as well; `imap`: POP3 as well), and it delivers what is queued. */
  roles: z.array(z.enum(nodeRoles)).default([...nodeRoles]),
  /** 32 bytes, base64 or hex, that seal the secrets in the store; several for a change of keys, the first one seals. */
  clusterKey: z.string().optional(),
  /** A file with the same, one key per line. Without either: STARLING_CLUSTER_KEY; with the embedded store `DATA/cluster.key`, made when it is not there. */
  clusterKeyFile: z.string().optional(),
  gossip: emptyDefault(
    z.strictObject({
      /** Default: yes where the store is shared. Without it everything is correct and slower: the store alone tells nodes of one another. */
      enabled: z.boolean().optional(),
      /** Address of this machine to listen on, reached by the other nodes only; every interface: 0.0.0.0 or ::. */
      host: z.string().default('127.0.0.1'),
      /** 0: any free one; the others learn it from the store. */
      port: port.default(gossipPort),
      /** `host:port` under which the others reach this node, where that is not what it listens on (address translation, containers). */
      advertise: z.array(hostAndPort).max(8).default([]),
      /** `host:port` to try besides those that the store knows; hardly ever needed. */
      bootstrap: z.array(hostAndPort).max(64).default([]),
      /** Finds nodes of this cluster by multicast DNS, too. Off: the store knows them all, and it tells the whole network segment of this node. */
      mdns: z.boolean().default(false),
    }),
  ),
  drainTimeoutSeconds: z.number().positive().max(300).default(30),
});

export type Config = z.output<typeof configSchema>;
/** As written in the file: everything with a default may be left out. */
export type ConfigInput = z.input<typeof configSchema>;
