/**
 * Values of the history: msgpack arrays without names, small enough that each message can afford several. A row holds what one transaction did to a
 * message: format, node, events. Replies that many recipients share are kept once.
 */
import { Packr } from 'msgpackr';
import { queueLimits } from './contract.js';
import type { HistoryEvent } from './history-contract.js';

const format = 1;
const packr = new Packr({ useRecords: false });

export const historyLimits = {
  /** Recipients named by an event; `omitted` and `recipientCount` tell of the others. */
  maxNamed: 100,
  /** A row stays below this; lists are cut until it does. */
  maxRowBytes: 60_000,
  /** Of one text besides replies: a check's result, a note, a Message-ID. */
  maxTextBytes: 512,
  /** Checks named by `accepted`. */
  maxChecks: 40,
} as const;

type Result = Extract<HistoryEvent, { kind: 'attempt' }>['results'][number];

const kinds = [
  'accepted',
  'freed',
  'operator',
  'attempt',
  'expanded',
  'report',
  'done',
] as const satisfies HistoryEvent['kind'][];
/** Told by number where they are these. */
const verdicts = ['delivered', 'relayed', 'expanded', 'failed', 'deferred', 'cancelled', 'unknown'];
const reports = ['failed', 'delayed', 'success'] as const;
const reasons = ['dead', 'handed-back'] as const;
const actions = ['retry', 'hold', 'unhold', 'cancel', 'reroute'] as const;
/** The reply of nearly every local delivery: told by its number. Only ever added to at the end. */
const knownReplies = ['250\t2.1.5\tDelivered to mailbox\t', '250\t2.1.5\tIn its mailbox with the acceptance\t'];

/** The place of an event among those of the same millisecond: as things happen to a message. */
export function rankOf({ kind }: HistoryEvent): number {
  return kinds.indexOf(kind);
}

function cut(text: string, maxBytes: number): string {
  if (text.length * 3 <= maxBytes || Buffer.byteLength(text) <= maxBytes) return text;
  return Buffer.from(text).subarray(0, maxBytes).toString('utf8').replace(/�+$/u, '');
}

const cutText = (text: string | undefined) => (text === undefined ? undefined : cut(text, historyLimits.maxTextBytes));

function replyKey({ code, enhanced, text, host }: Result): string {
  const line = cut(text, queueLimits.maxReplyTextBytes).replaceAll('\t', ' ');
  return `${code}\t${enhanced}\t${line}\t${cut(host ?? '', 255)}`;
}

/** Known replies have the numbers from 0, those of this event follow. */
function encodeResults(results: readonly Result[]): [replies: string[], rows: unknown[]] {
  const replies: string[] = [];
  const rows = results.map((result) => {
    const reply = replyKey(result);
    let at = knownReplies.indexOf(reply);
    if (at < 0) {
      at = replies.indexOf(reply);
      if (at < 0) at = replies.push(reply) - 1;
      at += knownReplies.length;
    }
    const verdict = verdicts.indexOf(result.verdict);
    return [result.address, verdict < 0 ? result.verdict : verdict, at];
  });
  return [replies, rows];
}

function decodeResults(replies: readonly string[], rows: readonly unknown[]): Result[] {
  const all = [...knownReplies, ...replies];
  return (rows as [string, number | string, number][]).map(([address, verdict, at]) => {
    const [code, enhanced, text, host] = (all[at] ?? '0\t\t\t').split('\t') as [string, string, string, string];
    const result: Result = {
      address,
      verdict: typeof verdict === 'number' ? (verdicts[verdict] ?? 'unknown') : verdict,
      code: Number(code),
      enhanced,
      text,
    };
    if (host !== '') result.host = host;
    return result;
  });
}

/** `maxNamed`: recipients that are named, at most. */
function encodeEvent(event: HistoryEvent, maxNamed: number): unknown[] {
  const kind = rankOf(event);
  switch (event.kind) {
    case 'accepted': {
      const checks = Object.entries(event.checks).slice(0, historyLimits.maxChecks);
      return [
        kind,
        event.from,
        event.recipients.slice(0, maxNamed),
        event.recipientCount,
        event.sizeBytes,
        event.protocol,
        event.remoteAddress,
        cutText(event.helo),
        cutText(event.login),
        cutText(event.tls),
        cutText(event.messageId),
        checks.map(([name, result]) => [cut(name, 100), cutText(result)]),
      ];
    }
    case 'attempt': {
      const [replies, rows] = encodeResults(event.results.slice(0, maxNamed));
      const omitted = event.omitted + event.results.length - rows.length;
      const plain = [kind, event.domain, event.isLocal ? 1 : 0, event.attempt, event.epoch, replies, rows];
      if (omitted === 0 && event.tls === undefined && event.nextAttemptAtMs === undefined) return plain;
      return [...plain, omitted, cutText(event.tls), event.nextAttemptAtMs];
    }
    case 'expanded':
      return [kind, event.domain, event.into, event.members];
    case 'report':
      return [kind, reports.indexOf(event.report), event.id, event.recipients];
    case 'freed':
      return [kind, event.domain, event.fromNode, reasons.indexOf(event.reason)];
    case 'operator':
      return [kind, actions.indexOf(event.action), cutText(event.by), cutText(event.note)];
    case 'done':
      return [kind];
  }
}

/** Undefined for a kind that this version does not know. */
function decodeEvent(f: readonly unknown[]): HistoryEvent | undefined {
  const kind = kinds[f[0] as number];
  switch (kind) {
    case 'accepted':
      return defined({
        kind,
        from: f[1] as string,
        recipients: f[2] as string[],
        recipientCount: f[3] as number,
        sizeBytes: f[4] as number,
        protocol: f[5] as string,
        remoteAddress: f[6] as string | undefined,
        helo: f[7] as string | undefined,
        login: f[8] as string | undefined,
        tls: f[9] as string | undefined,
        messageId: f[10] as string | undefined,
        checks: Object.fromEntries(f[11] as [string, string][]),
      });
    case 'attempt':
      return defined({
        kind,
        domain: f[1] as string,
        isLocal: f[2] === 1,
        attempt: f[3] as number,
        epoch: f[4] as number,
        results: decodeResults(f[5] as string[], f[6] as unknown[]),
        omitted: (f[7] as number | undefined) ?? 0,
        tls: f[8] as string | undefined,
        nextAttemptAtMs: f[9] as number | undefined,
      });
    case 'expanded':
      return { kind, domain: f[1] as string, into: f[2] as string, members: f[3] as number };
    case 'report':
      return { kind, report: reports[f[1] as number] ?? 'failed', id: f[2] as string, recipients: f[3] as number };
    case 'freed':
      return { kind, domain: f[1] as string, fromNode: f[2] as string, reason: reasons[f[3] as number] ?? 'dead' };
    case 'operator':
      return defined({
        kind,
        action: actions[f[1] as number] ?? 'retry',
        by: f[2] as string,
        note: f[3] as string | undefined,
      });
    case 'done':
      return { kind };
    default:
      return undefined;
  }
}

/** Without the fields that have no value. */
function defined<T extends HistoryEvent>(event: { [K in keyof T]: T[K] | undefined }): T {
  return Object.fromEntries(Object.entries(event).filter(([, value]) => value !== undefined && value !== null)) as unknown as T;
}

/** A row's value: below `maxRowBytes`, by naming fewer recipients. */
export function encodeRow(nodeId: string, events: readonly HistoryEvent[]): Buffer {
  const node = /^(?:[0-9a-f]{2})+$/.test(nodeId) ? Buffer.from(nodeId, 'hex') : nodeId;
  for (let maxNamed: number = historyLimits.maxNamed; ; maxNamed >>= 1) {
    const value = packr.pack([format, node, ...events.map((event) => encodeEvent(event, maxNamed))]);
    if (value.length <= historyLimits.maxRowBytes || maxNamed === 0) return value;
  }
}

/** Of a newer version's row, what this one understands. */
export function decodeRow(value: Buffer): { nodeId: string; events: HistoryEvent[] } {
  const fields: unknown = packr.unpack(value);
  if (!Array.isArray(fields) || fields[0] !== format) return { nodeId: '', events: [] };
  const [, node, ...events] = fields as [number, Buffer | string, ...unknown[][]];
  return {
    nodeId: typeof node === 'string' ? node : Buffer.from(node).toString('hex'),
    events: events.map(decodeEvent).filter((event) => event !== undefined),
  };
}
