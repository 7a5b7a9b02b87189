/**
 * The local file of one node: where its store is, what it listens on, and what is this machine's own. Everything is checked before anything starts;
 * every limit has its unit in its name and a default here.
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
  store: emptyDefault(z.strictObject({ backend: z.enum(['embedded']).default('embedded') })),
  tls: emptyDefault(
    z.strictObject({
      /** PEM files; without them the node makes a self-signed certificate for its host name. */
      certificateFile: z.string().optional(),
      privateKeyFile: z.string().optional(),
    }),
  ),
  directory: emptyDefault(z.strictObject({ minPasswordCharacters: z.int().min(1).max(128).default(8) })),
  smtp: emptyDefault(
    z.strictObject({
      maxMessageBytes: z.int().min(1_024).max(200_000_000).default(52_428_800),
      maxRecipients: z.int().min(1).max(10_000).default(1_000),
      /** An authenticated user may only send as one of their own addresses (FEATURES A5). */
      mustMatchSender: z.boolean().default(true),
      /** The same for the addresses in the From field; off, because people do send for others. */
      mustMatchFromField: z.boolean().default(false),
      /** What happens to a message with a bare CR or LF in DATA (FEATURES A2). */
      bareLineEnds: z.enum(['refuse', 'normalise']).default('refuse'),
      commandTimeoutSeconds: z.number().positive().default(300),
      dataTimeoutSeconds: z.number().positive().default(180),
    }),
  ),
  imap: emptyDefault(
    z.strictObject({
      maxAppendBytes: z.int().min(1_024).max(200_000_000).default(52_428_800),
      idleKeepAliveSeconds: z.number().positive().default(120),
      autoLogoutSeconds: z.number().positive().default(1_800),
    }),
  ),
  outbound: emptyDefault(
    z.strictObject({
      /** Port of other domains' mail exchangers. */
      port: port.default(25),
      /** `host:port` of DNS servers; without them the machine's own. */
      dnsServers: z.array(z.string().refine(isServerAddress, 'an IP address, with :port if it is not 53')).default([]),
      relay: z
        .strictObject({
          host: z.string(),
          port: port.default(587),
          user: z.string().optional(),
          password: z.string().optional(),
          tls: z.enum(['none', 'opportunistic', 'required', 'implicit']).default('required'),
        })
        .optional(),
      /** Seconds between attempts; the last one repeats. */
      retryScheduleSeconds: z.array(z.number().positive()).min(1).default([60, 300, 900, 1_800, 3_600, 7_200]),
      delayNoticeAfterSeconds: z.number().positive().default(14_400),
      expireAfterSeconds: z.number().positive().default(432_000),
      maxConcurrentDeliveries: z.int().min(1).default(64),
    }),
  ),
  drainTimeoutSeconds: z.number().positive().max(300).default(30),
});

export type Config = z.infer<typeof configSchema>;
/** As written in the file: everything with a default may be left out. */
export type ConfigInput = z.input<typeof configSchema>;
