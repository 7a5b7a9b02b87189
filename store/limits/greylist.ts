/**
 * Greylisting (RFC 6647): the first mail of an unknown triplet of network, sender and recipient is put off; who comes again in time has shown that he queues
 * his mail, and his network passes from then on.
 */
import { hash } from 'node:crypto';
import { Packr } from 'msgpackr';
import { type Clock, counter } from '../../ops/telemetry/index.js';
import type { KvStore, KvTransaction } from '../kv/contract.js';
import type { Greylist, GreylistRule, RateVerdict } from './contract.js';
import { type ExpiringTable, indexExpiry, recordKey } from './expiring.js';
import { boundedKey } from './keys.js';
import { S3Fifo } from './s3-fifo.js';

/** `result`: known = the network has passed before, passed = it does now, first, early. */
const checksTotal = counter('starling_greylist_checks_total', 'Greylist checks, by what came of them.', ['result']);

const maxRemembered = 20_000;
/** A pass is renewed in the store when this share of its life is over. */
const renewShare = 1 / 8;
/** No refusal is remembered for longer: another node may have been told better. */
const maxRefusalMs = 30_000;
const formatVersion = 1;
const packr = new Packr({ useRecords: false });

/**
 * (limits, 'greylist', 'network', network) → [1, passes until (ms)]; (limits, 'greylist', 'triplet', 16 bytes of digest) → [1, first seen (ms), over at (ms)].
 */
export const greylistTable: ExpiringTable = {
  table: 'greylist',
  expiresAtMs: ([kind], value) => (kind === 'network' ? decode(value)[1] : decode(value)[2])!,
};

function decode(value: Buffer): number[] {
  const fields = packr.unpack(value) as unknown;
  if (!Array.isArray(fields) || fields[0] !== formatVersion) throw new Error('unknown format of a greylist record');
  return fields as number[];
}

/** Until when (wall clock) an answer holds without asking. */
type Remembered = { isAllowed: boolean; untilMs: number };
type Result = 'known' | 'passed' | 'first' | 'early';

export function createGreylist({ kv, clock }: { kv: KvStore; clock: Clock }): Greylist {
  const remembered = new S3Fifo<Remembered>(maxRemembered);

  function recall(id: string): RateVerdict | undefined {
    const known = remembered.get(id);
    const restMs = known ? known.untilMs - clock.nowMs() : 0;
    if (!known || restMs <= 0) return undefined;
    // A clock that was set back must not make a refusal last.
    if (!known.isAllowed && restMs > maxRefusalMs) return undefined;
    return known.isAllowed ? { isAllowed: true } : waitFor(restMs);
  }

  return {
    async check({ network, sender, recipient }, rule) {
      const networkOf = boundedKey(network);
      const networkId = `network ${networkOf} ${rule.lifetimeSeconds}`;
      const digest = hash('sha256', JSON.stringify([network, sender, recipient]), 'buffer').subarray(0, 16);
      const tripletId = `triplet ${digest.toString('base64')} ${rule.delaySeconds}`;
      const known = recall(networkId);
      const verdict = known ?? recall(tripletId);
      if (verdict) {
        checksTotal.inc({ result: known ? 'known' : 'early' });
        return verdict;
      }
      const looked = await kv.transact((tx) => look(tx, networkOf, digest, rule, clock.nowMs()), { label: 'greylist' });
      checksTotal.inc({ result: looked.result });
      if (looked.waitMs === 0) {
        remembered.set(networkId, { isAllowed: true, untilMs: looked.holdsUntilMs });
        return { isAllowed: true };
      }
      remembered.set(tripletId, { isAllowed: false, untilMs: clock.nowMs() + Math.min(looked.waitMs, maxRefusalMs) });
      return waitFor(looked.waitMs);
    },
  };
}

function waitFor(ms: number): RateVerdict {
  return { isAllowed: false, retryAfterSeconds: Math.max(1, Math.ceil(ms / 1000)) };
}

interface Looked {
  result: Result;
  waitMs: number;
  /** Of a pass: until it is to be renewed. */
  holdsUntilMs: number;
}

async function look(tx: KvTransaction, network: string, digest: Buffer, rule: GreylistRule, nowMs: number): Promise<Looked> {
  const networkItems = ['network', network];
  const tripletItems = ['triplet', digest];
  const networkKey = recordKey(greylistTable, ...networkItems);
  const tripletKey = recordKey(greylistTable, ...tripletItems);
  const [networkValue, tripletValue] = await tx.getMany([networkKey, tripletKey]);
  const lifetimeMs = rule.lifetimeSeconds * 1000;

  const pass = (result: Result): Looked => {
    const untilMs = nowMs + lifetimeMs;
    tx.set(networkKey, packr.pack([formatVersion, untilMs]));
    if (!networkValue) indexExpiry(tx, greylistTable, networkItems, untilMs);
    return { result, waitMs: 0, holdsUntilMs: nowMs + lifetimeMs * renewShare };
  };
  if (networkValue) {
    const untilMs = decode(networkValue)[1]!;
    const renewAtMs = untilMs - lifetimeMs * (1 - renewShare);
    if (nowMs < renewAtMs)
      return { result: 'known', waitMs: 0, holdsUntilMs: Math.min(renewAtMs, nowMs + lifetimeMs * renewShare) };
    if (nowMs < untilMs) return pass('known');
  }

  const firstSeenMs = tripletValue && decode(tripletValue)[1]!;
  const sinceMs = firstSeenMs === undefined ? undefined : nowMs - firstSeenMs;
  // First seen in the future: by a node whose clock is ahead. He waits from now on, and not for the difference of two clocks.
  if (sinceMs === undefined || sinceMs < 0 || sinceMs >= rule.windowSeconds * 1000) {
    const overMs = nowMs + rule.windowSeconds * 1000;
    tx.set(tripletKey, packr.pack([formatVersion, nowMs, overMs]));
    if (!tripletValue) indexExpiry(tx, greylistTable, tripletItems, overMs);
    if (rule.delaySeconds > 0) return { result: 'first', waitMs: rule.delaySeconds * 1000, holdsUntilMs: 0 };
    return pass('passed');
  }
  const waitMs = rule.delaySeconds * 1000 - sinceMs;
  if (waitMs > 0) return { result: 'early', waitMs, holdsUntilMs: 0 };
  tx.clear(tripletKey);
  return pass('passed');
}
