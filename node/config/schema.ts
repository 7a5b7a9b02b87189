/**
 * The local file of one node: where its store is, the cluster key, what it listens on, and what else is this machine's own. Everything is checked before
 * anything starts; every limit has its unit in its name and a default here. What holds for the whole cluster is in the store (node/settings).
 */
import { isIPv4, isIPv6 } from 'node:net';
import { z } from 'zod';

const port = z.int().min(0).max(65_535);

/** `192.0.2.1`, `192.0.2.1:5353`, `2001:db8::1`, `[2001:db8::1]:5353`. */
function isServerAddress(text: string): boolean {
  const [, bracketed, plain, digits] = /^(?:\[([^\]]+)\]|([\d.]+))(?::(\d{1,5}))?$/.exec(text) ?? [];
  if (bracketed === undefined && plain === undefined) return isIPv6(text);
  const isAddress = bracketed === undefined ? isIPv4(plain!) : isIPv6(bracketed);
  return isAddress && (digits === undefined || (Number(digits) > 0 && Number(digits) <= 65_535));
}

export const nodeRoles = ['smtp', 'imap', 'http', 'queue'] as const;
export type NodeRole = (typeof nodeRoles)[number];

export const listenerProtocols = ['smtp', 'submission', 'lmtp', 'imap', 'http'] as const;

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
  listeners: z.array(listener).default([]),
  log: emptyDefault(
    z.strictObject({ level: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent']).default('info') }),
  ),
  store: z
    .discriminatedUnion('backend', [
      /** For one node. Default directory: `store` in `data`. */
      z.strictObject({ backend: z.literal('embedded'), directory: z.string().optional() }),
      /** Shared by nodes. The URL may stand in a file of its own or in STARLING_POSTGRES_URL, because of its password; several hosts for failover. */
      z.strictObject({ backend: z.literal('postgres'), url: z.string().optional(), urlFile: z.string().optional() }),
      z.strictObject({
        backend: z.literal('foundationdb'),
        clusterFile: z.string().default('/etc/foundationdb/fdb.cluster'),
        /** Path of libfdb_c.so where the system's loader doesn't find it; also FDB_CLIENT_LIBRARY. */
        clientLibrary: z.string().optional(),
        /** Folder with client libraries of other versions, for upgrades of the database under running nodes. */
        externalClientDirectory: z.string().optional(),
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
  /** What this machine does: its listeners of these protocols are opened (`smtp`: submission and LMTP as well), and it delivers what is queued. */
  roles: z.array(z.enum(nodeRoles)).default([...nodeRoles]),
  /** 32 bytes, base64 or hex, that seal the secrets in the store; several for a change of keys, the first one seals. */
  clusterKey: z.string().optional(),
  /** A file with the same, one key per line. Without either: STARLING_CLUSTER_KEY; with the embedded store `DATA/cluster.key`, made when it is not there. */
  clusterKeyFile: z.string().optional(),
  drainTimeoutSeconds: z.number().positive().max(300).default(30),
});

export type Config = z.infer<typeof configSchema>;
/** As written in the file: everything with a default may be left out. */
export type ConfigInput = z.input<typeof configSchema>;
