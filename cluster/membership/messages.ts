/**
 * What members tell one another about themselves, as bodies of gossip messages. Arrays, because most of the traffic of an idle cluster is heartbeats.
 * What does not parse is ignored: it comes from newer software, and is a hint only.
 */

/** Marks direct messages of this room. */
const tag = 'member';

export type DirectMessage =
  | {
      kind: 'heartbeat';
      /** Rises with each that this node sends to anybody. */
      beat: number;
      /** Somebody has acknowledged a heartbeat of the sender since it started, so it knows what it is to be heard. */
      isAcknowledged: boolean;
      /** How long ago its last heartbeat in the store that came through had begun. */
      storeAgeMs: number;
      /** Node ids and the newest beat of each that the sender has heard of, in turn. The receiver's own is the acknowledgement. */
      digest: readonly (string | number)[];
    }
  /** Asks the receiver to probe `target` and to say how it went within `timeoutMs`. */
  | { kind: 'probe-request'; probe: number; target: string; timeoutMs: number }
  /** Wants an `ack`. `probe` is the asker's number. */
  | { kind: 'probe'; probe: number }
  /** `target` lives, and had sent so many heartbeats. */
  | { kind: 'ack'; probe: number; target: string; beat: number }
  /** The receiver of the request lives, but `target` has not answered it. */
  | { kind: 'nack'; probe: number; target: string }
  /** The sender hears nothing of the receiver any more. */
  | { kind: 'suspected'; incarnation: number };

/** On topic `membership`. */
export type Announcement =
  /** The sender hears nothing of `nodeId` any more. */
  | { kind: 'suspect'; nodeId: string; incarnation: number }
  /** The sender lives; who suspects an older incarnation of it is wrong. */
  | { kind: 'alive'; incarnation: number; beat: number }
  /** There is something new in the store: a node has come, changed its state, gone, been fenced. */
  | { kind: 'joined' | 'changed' | 'leaving' | 'fenced'; nodeId: string };

const isNumber = (value: unknown): value is number => typeof value === 'number' && Number.isFinite(value) && value >= 0;
/** Beats, incarnations, numbers of probes: what is no whole number would stand above every later one for ever. */
const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
const isText = (value: unknown): value is string => typeof value === 'string' && value.length <= 128;

export function encodeDirect(message: DirectMessage): unknown {
  switch (message.kind) {
    case 'heartbeat':
      return [tag, 'heartbeat', message.beat, message.isAcknowledged, message.storeAgeMs, message.digest];
    case 'probe-request':
      return [tag, 'probe-request', message.probe, message.target, message.timeoutMs];
    case 'probe':
      return [tag, 'probe', message.probe];
    case 'ack':
      return [tag, 'ack', message.probe, message.target, message.beat];
    case 'nack':
      return [tag, 'nack', message.probe, message.target];
    case 'suspected':
      return [tag, 'suspected', message.incarnation];
  }
}

/** Undefined for what is not of this room, or not understood. */
export function decodeDirect(body: unknown): DirectMessage | undefined {
  if (!Array.isArray(body) || body[0] !== tag) return undefined;
  const [, kind, a, b, c, d] = body as unknown[];
  if (!isCount(a)) return undefined;
  switch (kind) {
    case 'heartbeat':
      return isNumber(c) && Array.isArray(d)
        ? { kind, beat: a, isAcknowledged: b === true, storeAgeMs: c, digest: d as (string | number)[] }
        : undefined;
    case 'probe-request':
      return isText(b) && isNumber(c) ? { kind, probe: a, target: b, timeoutMs: c } : undefined;
    case 'probe':
      return { kind, probe: a };
    case 'ack':
      return isText(b) && isCount(c) ? { kind, probe: a, target: b, beat: c } : undefined;
    case 'nack':
      return isText(b) ? { kind, probe: a, target: b } : undefined;
    case 'suspected':
      return { kind, incarnation: a };
    default:
      return undefined;
  }
}

export function encodeAnnouncement(announcement: Announcement): unknown {
  switch (announcement.kind) {
    case 'suspect':
      return ['suspect', announcement.nodeId, announcement.incarnation];
    case 'alive':
      return ['alive', announcement.incarnation, announcement.beat];
    default:
      return [announcement.kind, announcement.nodeId];
  }
}

/** Undefined for what is not understood. */
export function decodeAnnouncement(body: unknown): Announcement | undefined {
  if (!Array.isArray(body)) return undefined;
  const [kind, a, b] = body as unknown[];
  switch (kind) {
    case 'suspect':
      return isText(a) && isCount(b) ? { kind, nodeId: a, incarnation: b } : undefined;
    case 'alive':
      return isCount(a) && isCount(b) ? { kind, incarnation: a, beat: b } : undefined;
    case 'joined':
    case 'changed':
    case 'leaving':
    case 'fenced':
      return isText(a) ? { kind, nodeId: a } : undefined;
    default:
      return undefined;
  }
}

/** On topic `control`: the store has a request for `nodeId`. */
export const encodeDrainWish = (nodeId: string): unknown => ['drain', nodeId];

/** Whom a message on topic `control` wants to drain; undefined when it is about something else. */
export function decodeDrainWish(body: unknown): string | undefined {
  return Array.isArray(body) && body[0] === 'drain' && isText(body[1]) ? body[1] : undefined;
}
