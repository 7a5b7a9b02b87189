/** Which keys belong to an installation, and which only to the nodes that run on it at the moment. */
import { key, keysFrom, subspace } from '../keyspace.js';

/** Where a store says that it is only half of one (`marker.ts`). */
export const markerKey: Buffer = key(subspace.meta, 'transfer');

/** What a half-made store has claimed outside of itself, and where a store says that it is one no more (`claim.ts`). */
export const claimKey: Buffer = key(subspace.meta, 'transfer-blobs');
export const movedKey: Buffer = key(subspace.meta, 'moved');
const ownKeys = [markerKey, claimKey, movedKey];

/** Everything that a store may hold. */
export const wholeSpace = { begin: Buffer.of(0x00), end: Buffer.of(0xff) } as const;

/** Counters, slots and the log of bans: of use to the nodes that run here, and soon over anyhow. Bans, greylist, known logins and look-up lists go along. */
const limitsOfNodes = ['rate', 'rate-expiry', 'count', 'count-expiry', 'slots', 'ban-log', 'ban-log-floor'].map((table) =>
  key(subspace.limits, table),
);

/** Rows and fences of running nodes mean nothing anywhere else. */
const nodeSpace = keysFrom(key(subspace.node));

const names = new Map<number, string>(Object.entries(subspace).map(([name, number]) => [number, name]));

/** The tuple code of an integer of one byte. */
const oneByteInteger = 0x15;

/** The subspace of a key; 0 for what this version does not know. */
export function spaceOf(packed: Uint8Array): number {
  return packed[0] === oneByteInteger ? (packed[1] ?? 0) : 0;
}

export const spaceName = (space: number): string => names.get(space) ?? `other-${space}`;

/** Whether a row goes with the installation. */
export function isTransferred(packed: Buffer): boolean {
  const space = spaceOf(packed);
  if (space === subspace.node) return packed.compare(nodeSpace.begin) < 0 || packed.compare(nodeSpace.end) >= 0;
  // A table's key ends with the zero that ends its name: 'ban-log' is no beginning of 'ban-log-floor'.
  if (space === subspace.limits) return !limitsOfNodes.some((table) => packed.subarray(0, table.length).equals(table));
  return space !== subspace.meta || !ownKeys.some((own) => packed.equals(own));
}
