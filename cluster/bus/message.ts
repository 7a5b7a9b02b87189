/**
 * The body of a message on the topic `changes`: `[version, isOverflow, names, changes]`, where `names` are generations that were raised and `changes` is
 * flat: account, modseq, commit version ('' where unknown), account, … A later version may append elements; they are passed over.
 */
import { type AccountChange, busLimits } from './contract.js';

const bodyVersion = 1;
const maxNameCharacters = 64;
const maxNames = 64;
/** Of an account's modseq, and the heads of the three elements. */
const changeOverheadBytes = 9 + 5 + 3;

export interface BusMessage {
  changes: AccountChange[];
  raised: string[];
  /** The origin had more to tell than it could: whoever hears this has missed something. */
  isOverflow: boolean;
}

/** How many octets a change takes in a body, at most. */
export function changeBytes({ accountId, commitVersion }: AccountChange): number {
  return Buffer.byteLength(accountId) + (commitVersion?.length ?? 0) + changeOverheadBytes;
}

export function encodeBody({ changes, raised, isOverflow }: BusMessage): unknown {
  const flat: (string | number)[] = [];
  for (const { accountId, modseq, commitVersion } of changes) flat.push(accountId, modseq, commitVersion ?? '');
  return [bodyVersion, isOverflow ? 1 : 0, raised, flat];
}

/** Undefined for what is no such body. Elements that are not as they should be are left out. */
export function decodeBody(body: unknown): BusMessage | undefined {
  if (!Array.isArray(body) || typeof body[0] !== 'number' || body[0] < bodyVersion) return undefined;
  const [, isOverflow, names, flat] = body as [number, unknown, unknown, unknown];
  if (!Array.isArray(names) || !Array.isArray(flat)) return undefined;
  const raised = names.slice(0, maxNames).filter((name) => typeof name === 'string' && isName(name)) as string[];
  const changes: AccountChange[] = [];
  for (let at = 0; at + 2 < flat.length; at += 3) {
    const change = changeOf(flat[at], flat[at + 1], flat[at + 2]);
    if (change) changes.push(change);
  }
  return { changes, raised, isOverflow: isOverflow === 1 };
}

export const isName = (name: string): boolean => name.length <= maxNameCharacters && /^[a-z-]+$/.test(name);

function changeOf(accountId: unknown, modseq: unknown, commitVersion: unknown): AccountChange | undefined {
  if (typeof accountId !== 'string' || accountId === '' || Buffer.byteLength(accountId) > busLimits.maxAccountIdBytes)
    return undefined;
  if (!Number.isSafeInteger(modseq) || (modseq as number) < 0) return undefined;
  if (typeof commitVersion === 'string' && /^\d{1,30}$/.test(commitVersion)) {
    return { accountId, modseq: modseq as number, commitVersion };
  }
  return { accountId, modseq: modseq as number };
}
