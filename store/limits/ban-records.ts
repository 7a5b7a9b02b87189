/**
 * Bans as they are stored: a record per network, a counter that every change raises, and a log of which networks have changed, so that a node which knows
 * 100,000 of them reads only what is new. The log is cut off at the beginning; who is further behind than that reads all.
 */
import { Packr } from 'msgpackr';
import { keysFrom } from '../keyspace.js';
import { type KvReads, type KvStore, type KvTransaction, keyAfter } from '../kv/contract.js';
import type { Ban } from './contract.js';
import type { Assert } from './expiring.js';
import { banGenerationKey, banKey, banLogFloorKey, banLogPrefix, banLogSuffix, banRange } from './keys.js';

const pageRows = 2_000;
const purgedPerTransaction = 500;
/** Entries of the log older than this are cut off; by the clock of the node that purges, as it only makes others read more. */
const logLifetimeMs = 3_600_000;
const formatVersion = 1;
const packr = new Packr({ useRecords: false });

function fieldsOf(what: string, value: Buffer): unknown[] {
  const fields = packr.unpack(value) as unknown;
  if (!Array.isArray(fields) || fields[0] !== formatVersion) throw new Error(`unknown format of a ${what}`);
  return fields;
}

function encodeBan({ network, reason, note, bannedAtMs, untilMs }: Ban): Buffer {
  return packr.pack([formatVersion, network, reason, note, bannedAtMs, untilMs ?? null]);
}

export function decodeBan(value: Buffer): Ban {
  const [, network, reason, note, bannedAtMs, untilMs] = fieldsOf('ban', value) as [
    number,
    string,
    string,
    string,
    number,
    number | null,
  ];
  return { network, reason, note, bannedAtMs, ...(untilMs !== null && { untilMs }) };
}

/** Undefined for one that a newer release has written: it must not keep this node from learning all the others. */
function readableBan(value: Buffer): Ban | undefined {
  try {
    return decodeBan(value);
  } catch {
    return undefined;
  }
}

/** As text that differs after each change. */
export async function readBanGeneration(reads: KvReads): Promise<string> {
  return (await reads.get(banGenerationKey))?.toString('hex') ?? '';
}

function logChange(tx: KvTransaction, network: string, nowMs: number): void {
  tx.setVersionstampedKey(banLogPrefix, banLogSuffix, packr.pack([formatVersion, network, nowMs]));
  tx.add(banGenerationKey, 1n);
}

/** What is stored in the end: a ban that was there and is stronger stays. An operator's word stands above all others. */
export async function writeBan(tx: KvTransaction, ban: Ban): Promise<Ban> {
  const stored = await tx.get(banKey(ban.network));
  const before = stored && decodeBan(stored);
  if (before && isStronger(before, ban)) return before;
  tx.set(banKey(ban.network), encodeBan(ban));
  logChange(tx, ban.network, ban.bannedAtMs);
  return ban;
}

function isStronger(before: Ban, after: Ban): boolean {
  if (after.reason === 'operator') return false;
  const isOver = (before.untilMs ?? Number.POSITIVE_INFINITY) <= after.bannedAtMs;
  if (isOver) return false;
  return (
    before.reason === 'operator' || (before.untilMs ?? Number.POSITIVE_INFINITY) >= (after.untilMs ?? Number.POSITIVE_INFINITY)
  );
}

/** Answers whether there was one. An own commit whose answer was lost counts as one. */
export async function liftBan(tx: KvTransaction, network: string, nowMs: number): Promise<boolean> {
  if (!(await tx.get(banKey(network)))) return tx.mayHaveCommitted;
  tx.clear(banKey(network));
  logChange(tx, network, nowMs);
  return true;
}

/** Up to where the log is known. */
export type LogPosition = Buffer;

export interface BanPage {
  networks: { network: string; ban: Ban | undefined }[];
  position: LogPosition;
  isLast: boolean;
}

/** What has changed since, one page of it; undefined when the log does not reach back so far. */
export function readChanges(kv: KvStore, position: LogPosition): Promise<BanPage | undefined> {
  return kv.read(
    async (reads) => {
      const floor = await reads.get(banLogFloorKey);
      if (floor && floor.compare(position) > 0) return undefined;
      const rows = await reads.getRange(keyAfter(position), keysFrom(banLogPrefix).end, { limit: pageRows });
      const networks = [...new Set(rows.map(({ value }) => fieldsOf('change of bans', value)[1] as string))];
      const values = await reads.getMany(networks.map(banKey));
      return {
        networks: networks.map((network, i) => ({ network, ban: values[i] && readableBan(values[i]) })),
        position: rows.at(-1)?.key ?? position,
        isLast: rows.length < pageRows,
      };
    },
    { label: 'bans-read' },
  );
}

/** The end of the log now. Whoever reads all bans after this, and then the log from here, has missed nothing. */
export function readPosition(kv: KvStore): Promise<LogPosition> {
  return kv.read(
    async (reads) => {
      const { begin, end } = keysFrom(banLogPrefix);
      const [last] = await reads.getRange(begin, end, { limit: 1, reverse: true });
      return last?.key ?? (await reads.get(banLogFloorKey)) ?? banLogPrefix;
    },
    { label: 'bans-read' },
  );
}

/** All bans that can be read, the ended ones that were not purged yet included, page by page; pages are of different moments. */
export async function* allBans(kv: KvStore): AsyncGenerator<Ban[], void, undefined> {
  let { begin } = banRange();
  const { end } = banRange();
  for (;;) {
    const from = begin;
    const rows = await kv.read((reads) => reads.getRange(from, end, { limit: pageRows }), { label: 'bans-read' });
    if (rows.length > 0) yield rows.flatMap(({ value }) => readableBan(value) ?? []);
    if (rows.length < pageRows) return;
    begin = keyAfter(rows.at(-1)!.key);
  }
}

/** Removes those of `networks` that have been over since `overMs`. Nobody has to be told: whoever knows them knows that they are over. */
export async function purgeBans(kv: KvStore, networks: readonly string[], overMs: number, assert?: Assert): Promise<void> {
  for (let at = 0; at < networks.length; at += purgedPerTransaction) {
    const keys = networks.slice(at, at + purgedPerTransaction).map(banKey);
    await kv.transact(
      async (tx) => {
        await assert?.(tx);
        for (const [i, value] of (await tx.getMany(keys)).entries()) {
          if (value && (decodeBan(value).untilMs ?? Number.POSITIVE_INFINITY) <= overMs) tx.clear(keys[i]!);
        }
      },
      { label: 'forget-bans' },
    );
  }
}

/** Cuts old entries off the log, and says so in the same transaction (TRAPS 9). */
export async function purgeLog(kv: KvStore, nowMs: number, assert?: Assert): Promise<void> {
  const { begin, end } = keysFrom(banLogPrefix);
  for (;;) {
    const removed = await kv.transact(
      async (tx) => {
        await assert?.(tx);
        const rows = await tx.snapshot.getRange(begin, end, { limit: purgedPerTransaction });
        const firstKept = rows.findIndex(({ value }) => (fieldsOf('change of bans', value)[2] as number) > nowMs - logLifetimeMs);
        const old = firstKept < 0 ? rows : rows.slice(0, firstKept);
        const last = old.at(-1);
        if (!last) return 0;
        tx.clearRange(begin, keyAfter(last.key));
        tx.set(banLogFloorKey, last.key);
        return old.length;
      },
      { label: 'forget-bans' },
    );
    if (removed < purgedPerTransaction) return;
  }
}
