/**
 * What membership does to the store: one function per transaction. The only place that writes node rows and fences. Each body can run again, also
 * after a commit that was unknown: what it writes is chosen before, and a process knows its own row by the start token.
 */
import { type KeyRange, keyItems, nodeKeys } from '../../store/keyspace.js';
import { type KvReads, type KvStore, keyAfter, type TransactOptions } from '../../store/kv/contract.js';
import { NodeFenced, NodeIdTaken, type NodeRow } from './contract.js';
import { decodeRow, encodeRow } from './rows.js';

const standing = Buffer.alloc(0);
const pageKeys = 500;

/** What one look found of a node. */
export interface FoundNode {
  bytes?: Buffer;
  hasFence: boolean;
}

/** What was seen of a node that is to be declared dead; the transaction asserts that it is still so. */
export interface Evidence extends FoundNode {
  nodeId: string;
}

type Options = Pick<TransactOptions, 'signal'>;

/** The row as it stands, if it is this process's own. */
function ownRow(own: Pick<NodeRow, 'nodeId' | 'startToken'>, bytes: Buffer | undefined): NodeRow | undefined {
  const row = bytes && decodeRow(own.nodeId, bytes);
  return row?.startToken === own.startToken ? row : undefined;
}

/** Writes row and fence together. Throws NodeIdTaken when anything stands under the id that is not this very process's. */
export function enter(
  kv: KvStore,
  row: NodeRow,
  precondition?: (reads: KvReads) => Promise<void>,
  options?: Options,
): Promise<void> {
  const [rowKey, fenceKey] = [nodeKeys.row(row.nodeId), nodeKeys.fence(row.nodeId)];
  const bytes = encodeRow(row);
  return kv.transact(
    async (tx) => {
      const [existing, fence] = await tx.getMany([rowKey, fenceKey]);
      if (fence && ownRow(row, existing)) return;
      if (existing || fence) throw new NodeIdTaken(`there is a node ${row.nodeId} in the store already`);
      await precondition?.(tx);
      tx.set(rowKey, bytes);
      tx.set(fenceKey, standing);
    },
    { label: 'node-join', ...options },
  );
}

/** What a heartbeat learns beside. */
export interface Beaten {
  /** Somebody has asked this node to drain. */
  isDrainWanted: boolean;
}

/**
 * Writes the row anew, unless a later heartbeat has (this one had been given up and came late).
 * Throws NodeFenced unless the fence stands and the row is this process's.
 */
export function beat(kv: KvStore, row: NodeRow, options?: Options): Promise<Beaten> {
  const [rowKey, fenceKey] = [nodeKeys.row(row.nodeId), nodeKeys.fence(row.nodeId)];
  const bytes = encodeRow(row);
  return kv.transact(
    async (tx) => {
      const [existing, fence, request] = await tx.getMany([rowKey, fenceKey, nodeKeys.request(row.nodeId)]);
      if (!fence) throw new NodeFenced(`another node has declared ${row.nodeId} dead`);
      const own = ownRow(row, existing);
      if (!own) throw new NodeFenced(`the row of ${row.nodeId} belongs to another process`);
      if (own.heartbeat <= row.heartbeat) tx.set(rowKey, bytes);
      return { isDrainWanted: request !== undefined };
    },
    { label: 'heartbeat', ...options },
  );
}

/** Every node that has a row or a fence, as of one moment. */
export function readNodes(kv: KvStore, options?: Options): Promise<Map<string, FoundNode>> {
  return kv.read(
    async (reads) => {
      const found = new Map<string, FoundNode>();
      const [rows, fences] = await Promise.all([wholeRange(reads, nodeKeys.rows()), wholeRange(reads, nodeKeys.fences())]);
      for (const { key, value } of rows) found.set(idOf(key), { bytes: value, hasFence: false });
      for (const { key } of fences) found.set(idOf(key), { ...found.get(idOf(key)), hasFence: true });
      return found;
    },
    { label: 'node-look', ...options },
  );
}

const idOf = (key: Buffer): string => keyItems(key)[2] as string;

async function wholeRange(reads: KvReads, { begin, end }: KeyRange) {
  const pairs = await reads.getRange(begin, end, { limit: pageKeys });
  for (let page = pairs; page.length === pageKeys; ) {
    page = await reads.getRange(keyAfter(page.at(-1)!.key), end, { limit: pageKeys });
    pairs.push(...page);
  }
  return pairs;
}

/**
 * Breaks a node's fence, if the node still is as `evidence` says: reading the row makes this conflict with a heartbeat. From the commit on it saves
 * nothing. Answers undefined when it has changed, `was-broken` when there is no fence any more. Throws NodeFenced when this node itself has been declared dead.
 */
export function breakFence(
  kv: KvStore,
  ownId: string,
  evidence: Evidence,
  options?: Options,
): Promise<'broken' | 'was-broken' | undefined> {
  const { nodeId, bytes, hasFence } = evidence;
  return kv.transact(
    async (tx) => {
      const [own, row, fence] = await tx.getMany([nodeKeys.fence(ownId), nodeKeys.row(nodeId), nodeKeys.fence(nodeId)]);
      if (!own) throw new NodeFenced(`another node has declared ${ownId} dead`);
      const isSameRow = row === undefined ? bytes === undefined : bytes !== undefined && row.equals(bytes);
      if (!isSameRow || (fence && !hasFence)) return undefined;
      // Another node was first, unless it was an earlier run of this body.
      if (!fence && !tx.mayHaveCommitted) return 'was-broken';
      tx.clear(nodeKeys.fence(nodeId));
      return 'broken';
    },
    { label: 'break-fence', ...options },
  );
}

/** Removes the row of a node that is fenced and has no claims any more. */
export function forget(kv: KvStore, nodeId: string, options?: Options): Promise<void> {
  return kv.transact(
    async (tx) => {
      if (await tx.get(nodeKeys.fence(nodeId))) return;
      tx.clear(nodeKeys.row(nodeId));
      tx.clear(nodeKeys.request(nodeId));
    },
    { label: 'node-forget', ...options },
  );
}

/** Writes down that this node is wanted to drain. Answers false when no such node stands. */
export function askToDrain(kv: KvStore, nodeId: string): Promise<boolean> {
  return kv.transact(
    async (tx) => {
      const [row, fence] = await tx.getMany([nodeKeys.row(nodeId), nodeKeys.fence(nodeId)]);
      if (!row || !fence) return false;
      tx.set(nodeKeys.request(nodeId), standing);
      return true;
    },
    { label: 'node-drain-request' },
  );
}

/** Breaks this process's own fence. Answers false when the row is not its own, so that there is nothing to give back. */
export function retire(kv: KvStore, own: NodeRow, options?: Options): Promise<boolean> {
  return kv.transact(
    async (tx) => {
      if (!ownRow(own, await tx.get(nodeKeys.row(own.nodeId)))) return false;
      tx.clear(nodeKeys.fence(own.nodeId));
      return true;
    },
    { label: 'node-leave', ...options },
  );
}
