/**
 * The mark of a half-made store: what is being moved into it and how far that is. It is written in the transaction that writes the rows, so that whoever
 * comes after an interruption goes on exactly there; as long as it stands no node starts on the store.
 */
import { Packr } from 'msgpackr';
import type { KvReads, KvStore } from '../kv/contract.js';
import { movedIn, movedSentence } from './claim.js';
import { TransferRefused } from './contract.js';
import { markerKey } from './spaces.js';
import { type PackedTally, Tally } from './tally.js';

const format = 1;
const packr = new Packr({ useRecords: false });

/** `clearing`: rows of an attempt whose source has changed go; `finishing`: all rows are there and verified, claims are being freed. */
const stages = ['copying', 'clearing', 'verifying', 'finishing'] as const;
export type MarkerStage = (typeof stages)[number];

export interface Marker {
  kind: 'copy' | 'restore';
  /** What comes in: the id of the installation, or of the backup. */
  sourceId: string;
  /** For people. */
  source: string;
  stage: MarkerStage;
  startedAtMs: number;
  /** The last key that is there. */
  lastKey?: Buffer;
  tally: Tally;
}

export function encodeMarker(marker: Marker): Buffer {
  const { kind, sourceId, source, stage, startedAtMs, lastKey, tally } = marker;
  return packr.pack([format, kind, sourceId, source, stages.indexOf(stage), startedAtMs, lastKey ?? null, tally.pack()]);
}

export function decodeMarker(value: Buffer): Marker {
  const fields = packr.unpack(value) as unknown;
  if (!Array.isArray(fields) || fields[0] !== format) {
    throw new TransferRefused('the store is half of a copy or restore that another version of this program has begun');
  }
  const [, kind, sourceId, source, stage, startedAtMs, lastKey, tally] = fields as [
    number,
    Marker['kind'],
    string,
    string,
    number,
    number,
    Buffer | null,
    PackedTally,
  ];
  return {
    kind,
    sourceId,
    source,
    stage: stages[stage]!,
    startedAtMs,
    ...(lastKey && { lastKey: Buffer.from(lastKey) }),
    tally: Tally.unpack(tally),
  };
}

/**
 * A sentence about a transfer into this store that is not over, or one that took its blobs away; undefined for a whole store. For whoever wants to start on it.
 */
export async function unfinishedTransfer(kv: Pick<KvStore, 'read'>): Promise<string | undefined> {
  return kv.read(transferProblem, { label: 'transfer-marker' });
}

/** The same within a transaction, so that whoever writes there and whoever begins a transfer can't both succeed. */
export async function transferProblem(reads: KvReads): Promise<string | undefined> {
  const moved = await movedIn(reads);
  return (await unfinishedIn(reads)) ?? (moved && movedSentence(moved));
}

/** Just the former, within a read: whoever only reads may read what was moved. */
export async function unfinishedIn(reads: KvReads): Promise<string | undefined> {
  const value = await reads.get(markerKey);
  if (!value) return undefined;
  let what = 'transfer';
  let source = '';
  try {
    const marker = decodeMarker(value);
    what = marker.kind;
    source = ` of ${marker.source}`;
  } catch (error) {
    if (!(error instanceof TransferRefused)) throw error;
  }
  return `the store holds an unfinished ${what}${source}: run the same 'starling store' command again to finish it`;
}
