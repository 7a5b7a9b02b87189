/**
 * Which logins have worked from which networks: what keeps a victim's own devices working while strangers guess his password, and an address that real users
 * come from free of bans.
 */
import { Packr } from 'msgpackr';
import type { Clock } from '../../ops/telemetry/index.js';
import type { KvStore } from '../kv/contract.js';
import { type ExpiringTable, indexExpiry, recordKey } from './expiring.js';
import { boundedKey } from './keys.js';
import { S3Fifo } from './s3-fifo.js';

const maxRemembered = 20_000;
/** A record is renewed when it is this much of its life old. */
const renewShare = 1 / 30;
/** What other nodes have learnt is seen after so long. */
const unknownForMs = 1_000;
const formatVersion = 1;
const packr = new Packr({ useRecords: false });

/** (limits, 'known-login', network, login) → [1, until (ms)]; (limits, 'known-login', address, '') when anybody has logged in from there. */
export const knownLoginTable: ExpiringTable = {
  table: 'known-login',
  expiresAtMs: (_items, value) => untilOf(value),
};

function untilOf(value: Buffer): number {
  const fields = packr.unpack(value) as unknown;
  if (!Array.isArray(fields) || fields[0] !== formatVersion) throw new Error('unknown format of a record of a known login');
  return fields[1] as number;
}

export interface KnownLogins {
  /** `login` has worked from `address`, which is in `network`. Writes at most once in a thirtieth of the lifetime. Throws KvError. */
  remember(from: { address: string; network: string }, login: string, lifetimeMs: number): Promise<void>;
  /** Whether the login has worked from that network; answers of at most a second's age. Throws KvError. */
  isKnown(network: string, login: string): Promise<boolean>;
  /** Whether anybody has logged in from that address. Throws KvError. */
  isAddressKnown(address: string): Promise<boolean>;
}

interface Remembered {
  untilMs: number;
  /** Wall clock. */
  renewAtMs: number;
  /** Monotonic: until when an answer of "unknown" holds. */
  unknownUntilMs: number;
}

export function createKnownLogins({ kv, clock }: { kv: KvStore; clock: Clock }): KnownLogins {
  const remembered = new S3Fifo<Remembered>(maxRemembered);
  const itemsOf = (network: string, login: string) => [boundedKey(network), boundedKey(login)];

  async function isKnown(network: string, login: string): Promise<boolean> {
    const items = itemsOf(network, login);
    const id = items.join(' ');
    const known = remembered.get(id);
    const nowMs = clock.nowMs();
    if (known && known.untilMs > nowMs) return true;
    if (known && known.unknownUntilMs > clock.monotonicMs()) return false;
    const value = await kv.read((reads) => reads.get(recordKey(knownLoginTable, ...items)), { label: 'known-login' });
    const untilMs = value ? untilOf(value) : 0;
    remembered.set(id, { untilMs, renewAtMs: 0, unknownUntilMs: clock.monotonicMs() + unknownForMs });
    return untilMs > nowMs;
  }

  return {
    isKnown,
    isAddressKnown: (address) => isKnown(address, ''),

    async remember({ address, network }, login, lifetimeMs) {
      const both = [itemsOf(network, login), itemsOf(address, '')];
      const nowMs = Math.floor(clock.nowMs());
      const isFresh = (items: string[]) => {
        const known = remembered.get(items.join(' '));
        return known !== undefined && known.untilMs > nowMs && nowMs < known.renewAtMs;
      };
      if (both.every(isFresh)) return;
      const untilMs = nowMs + lifetimeMs;
      const renewAtMs = nowMs + lifetimeMs * renewShare;
      await kv.transact(
        async (tx) => {
          const keys = both.map((items) => recordKey(knownLoginTable, ...items));
          for (const [i, value] of (await tx.getMany(keys)).entries()) {
            // Others from the same address have renewed its record already.
            if (value && untilOf(value) > untilMs - lifetimeMs * renewShare) continue;
            tx.set(keys[i]!, packr.pack([formatVersion, untilMs]));
            if (!value) indexExpiry(tx, knownLoginTable, both[i]!, untilMs);
          }
        },
        { label: 'known-login' },
      );
      for (const items of both) remembered.set(items.join(' '), { untilMs, renewAtMs, unknownUntilMs: 0 });
    },
  };
}
