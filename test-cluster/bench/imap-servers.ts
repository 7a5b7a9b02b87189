/** The two servers of the IMAP benchmarks, with what both have in common: ports, a way to fill a mailbox, to begin anew, and to have the full text indexed. */
import { Dovecot, type DovecotOptions } from '../harness/dovecot.js';
import { ImapMeter } from '../harness/imap-meter.js';
import { appendCommand, type CorpusMessage, corpusMessage } from '../harness/mail-corpus.js';
import { basePorts, NodeProcess } from '../harness/node-process.js';
import { freePortOffset } from '../harness/ports.js';
import { waitFor } from '../harness/processes.js';

export interface ImapServer {
  readonly name: 'starling' | 'dovecot';
  readonly port: number;
  readonly password: string;
  /** Of the node, or of Dovecot's master. */
  readonly pid: number;
  /** A fresh process on the same mail. */
  restart(): Promise<void>;
  /** Resolves when searches for text find everything in the index; false where the server can't say. */
  indexed(user: string): Promise<boolean>;
  stop(): Promise<void>;
}

export const benchUser = 'alice@example.test';

export const meterOf = (server: ImapServer, localAddress?: string): Promise<ImapMeter> =>
  ImapMeter.connect({ port: server.port, user: benchUser, password: server.password, ...(localAddress ? { localAddress } : {}) });

/** A node that takes as many connections from one address as the benchmark opens. */
export async function startStarling(maxConnections = 1_000, hasFullText = true): Promise<ImapServer & { node: NodeProcess }> {
  const portOffset = await freePortOffset(Object.values(basePorts));
  const listener = (name: 'imaps' | 'http', protocol: string, more: string) =>
    `[[listeners]]\nname = "${name}"\nprotocol = "${protocol}"\nport = ${basePorts[name] + portOffset}\n${more}\n`;
  const limits = `tls = "implicit"\nmaxConnections = ${maxConnections}\nmaxConnectionsPerAddress = ${maxConnections}`;
  const node = await NodeProcess.start({
    portOffset,
    clusterSettings: `[imap]\nmaxConnectionsPerUser = ${maxConnections}\n[search]\nenabled = ${hasFullText}\n`,
    settings: `[log]\nlevel = "warn"\n${listener('imaps', 'imap', limits)}${listener('http', 'http', 'tls = "none"')}`,
  });
  return {
    name: 'starling',
    node,
    port: node.port('imaps'),
    password: node.password,
    get pid() {
      return node.pid;
    },
    restart: async () => {
      await node.stop();
      await node.start();
    },
    indexed: () => searchIsIndexed(node),
    stop: () => node.remove(),
  };
}

/** What `starling search status --json` says of the indexing that is still to be done. */
async function searchIsIndexed(node: NodeProcess): Promise<boolean> {
  const first = await node.cli('search', 'status', '--json');
  if (first.code === 2) return false; // this release has no such command
  return waitFor('the full-text index', 3_600_000, async () => {
    const { code, stdout, stderr } = await node.cli('search', 'status', '--json');
    if (code !== 0) throw new Error(`search status ended with ${code}: ${stderr}`);
    const accounts = JSON.parse(stdout) as { isPending: boolean }[];
    const isDone = accounts.every(({ isPending }) => !isPending);
    if (!isDone) await new Promise((resolve) => setTimeout(resolve, 500));
    return isDone;
  });
}

export async function startDovecot(options: DovecotOptions): Promise<ImapServer & { dovecot: Dovecot }> {
  const dovecot = await Dovecot.start(options);
  return {
    name: 'dovecot',
    dovecot,
    port: dovecot.ports.imaps,
    password: dovecot.password,
    get pid() {
      return dovecot.pid;
    },
    restart: () => dovecot.restart(),
    indexed: async (user) => {
      await dovecot.index(user);
      return true;
    },
    stop: () => dovecot.stop(),
  };
}

/** What one MULTIAPPEND (RFC 3502) carries at most. */
const batchBytes = 1_000_000;
const batchMessages = 250;
const lanes = 4;

/** Puts the first `count` messages of the corpus into a mailbox, nearly in order. Answers the messages filed in a second. */
export async function fill(server: ImapServer, mailbox: string, count: number, octets?: number): Promise<number> {
  const meters = await Promise.all(Array.from({ length: lanes }, () => meterOf(server)));
  if (mailbox !== 'INBOX') await meters[0]!.command(`CREATE ${mailbox}`);
  let filed = 0;
  const nextBatch = (): CorpusMessage[] => {
    const batch: CorpusMessage[] = [];
    for (let size = 0; filed < count && batch.length < batchMessages && size < batchBytes; filed++) {
      const message = corpusMessage(filed, octets);
      batch.push(message);
      size += message.bytes.length;
    }
    return batch;
  };
  const start = performance.now();
  await Promise.all(
    meters.map(async (meter) => {
      for (let batch = nextBatch(); batch.length > 0; batch = nextBatch()) await meter.command(appendCommand(mailbox, batch));
      await meter.close();
    }),
  );
  return count / ((performance.now() - start) / 1_000);
}
