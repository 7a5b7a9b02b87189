/**
 * What SORT and THREAD want to know of the messages of one mailbox, from their summaries, in columns by ascending UID. About 60 bytes per message, 8 for each
 * reference, and the texts once each (`text-pool.ts`).
 */
import type { Random } from '../../../ops/telemetry/index.js';
import { decodeHeaderText, type EnvelopeAddress, type MessageSummary, parseDate, rawToUnicode } from '../../message/index.js';
import { msPerDay } from '../grammar/dates.js';
import { lowerBound } from '../grammar/sequence-set.js';
import { baseSubject } from './base-subject.js';
import { casemap } from './collation.js';
import { TextPool } from './text-pool.js';

/** As much of a summary as is kept; `receivedAtMs` stands in for a missing Date (RFC 5256 2.2). */
export interface FactSource {
  uid: number;
  receivedAtMs: number;
  /** Undefined for a message that is gone meanwhile: it counts as empty. */
  summary: Pick<MessageSummary, 'envelope' | 'messageIds'> | undefined;
}

/** The text columns: numbers in a pool. */
export type TextColumn = 'subject' | 'from' | 'to' | 'cc' | 'displayFrom' | 'displayTo';

const textColumns: readonly TextColumn[] = ['subject', 'from', 'to', 'cc', 'displayFrom', 'displayTo'];
const bytesPerMessage = 4 + 8 + 4 + 1 + 4 * textColumns.length + 8 + 4;

/** Of a message id, 53 bits; 0 stands for none. Keyed, so that nobody can make two ids meet on purpose. */
export type HashId = (id: string) => number;

export function keyedHash(random: Random): HashId {
  const key = random.bytes(8);
  const [seed, otherSeed] = [key.readUInt32LE(0), key.readUInt32LE(4)];
  return (id) => {
    let a = seed ^ id.length;
    let b = otherSeed;
    for (let i = 0; i < id.length; i++) {
      const code = id.charCodeAt(i);
      a = Math.imul(a ^ code, 0x85ebca77);
      b = Math.imul(b ^ code, 0xc2b2ae3d);
      a = (a << 13) | (a >>> 19);
    }
    a = Math.imul(a ^ (a >>> 16), 0x735a2d97) ^ Math.imul(b ^ (b >>> 15), 0xcaf649a9);
    b = Math.imul(b ^ (b >>> 16), 0x735a2d97) ^ Math.imul(a ^ (a >>> 15), 0xcaf649a9);
    return (b & 0x1fffff) * 0x1_0000_0000 + (a >>> 0) || 1;
  };
}

/** RFC 5256: `<"a"@b>` and `<a@b>` are one and the same. */
export function normalizedId(id: string): string {
  if (!id.startsWith('"')) return id;
  const quoted = /^"((?:[^"\\]|\\.)*)"(?=@|$)/.exec(id);
  return quoted ? quoted[1]!.replace(/\\(.)/g, '$1') + id.slice(quoted[0].length) : id;
}

function mailboxKey(addresses: readonly EnvelopeAddress[]): string {
  return casemap(rawToUnicode(addresses[0]?.mailbox ?? ''));
}

/** RFC 5957 section 3. A group is known by its name. */
function displayKey(addresses: readonly EnvelopeAddress[]): string {
  const first = addresses[0];
  if (!first) return '';
  const name = first.name === null ? '' : decodeHeaderText(first.name);
  if (name !== '') return casemap(name);
  if (first.mailbox === null) return '';
  return casemap(rawToUnicode(first.host ? `${first.mailbox}@${first.host}` : first.mailbox));
}

export class MessageFacts {
  /** The view of the index that they were last compared with. */
  modseq = 0;
  readonly subjects = new TextPool();
  readonly addresses = new TextPool();
  readonly #hash: HashId;
  #count = 0;
  #uids = new Uint32Array(0);
  #sentSeconds = new Float64Array(0);
  #sentDays = new Int32Array(0);
  #isReply = new Uint8Array(0);
  #texts: Record<TextColumn, Uint32Array>;
  #ids = new Float64Array(0);
  #referenceEnds = new Uint32Array(0);
  #references = new Float64Array(0);

  constructor(hash: HashId) {
    this.#hash = hash;
    this.#texts = Object.fromEntries(textColumns.map((name) => [name, new Uint32Array(0)])) as Record<TextColumn, Uint32Array>;
  }

  get size(): number {
    return this.#count;
  }

  get memoryBytes(): number {
    const texts = this.subjects.memoryBytes + this.addresses.memoryBytes;
    return this.#uids.length * bytesPerMessage + this.#references.length * 8 + texts;
  }

  /** UIDs, ascending; valid until the next `add`. */
  get uids(): Uint32Array {
    return this.#uids.subarray(0, this.#count);
  }

  get lastUid(): number {
    return this.#count === 0 ? 0 : this.#uids[this.#count - 1]!;
  }

  /** Place of each of these UIDs (ascending), -1 for those that are not here. Places change with `retain`. */
  slotsOf(uids: Uint32Array): Int32Array {
    const slots = new Int32Array(uids.length);
    let slot = -1;
    for (let i = 0; i < uids.length; i++) {
      const uid = uids[i]!;
      if (this.#uids[++slot] !== uid || slot >= this.#count) {
        slot = lowerBound(this.uids, uid);
        if (slot >= this.#count || this.#uids[slot] !== uid) {
          slots[i] = -1;
          slot--;
          continue;
        }
      }
      slots[i] = slot;
    }
    return slots;
  }

  /** RFC 5256 2.2, in seconds since the epoch. */
  sentSecondsAt(slot: number): number {
    return this.#sentSeconds[slot]!;
  }

  /** The day that the sender wrote, zone disregarded (RFC 9051 6.4.4), since the epoch; undefined for a message that is not here. */
  sentDayOf(uid: number): number | undefined {
    const slot = lowerBound(this.uids, uid);
    return slot < this.#count && this.#uids[slot] === uid ? this.#sentDays[slot] : undefined;
  }

  isReplyAt(slot: number): number {
    return this.#isReply[slot]!;
  }

  textAt(column: TextColumn, slot: number): number {
    return this.#texts[column][slot]!;
  }

  /** Hash of the message's own id, 0 for none. */
  idAt(slot: number): number {
    return this.#ids[slot]!;
  }

  referenceCountAt(slot: number): number {
    return this.#referenceEnds[slot]! - (slot === 0 ? 0 : this.#referenceEnds[slot - 1]!);
  }

  /** Writes the hashes of the ids that it refers to, the oldest first, to `target` from `at` on. */
  copyReferences(slot: number, target: Float64Array, at: number): void {
    let to = at;
    for (let i = slot === 0 ? 0 : this.#referenceEnds[slot - 1]!; i < this.#referenceEnds[slot]!; i++)
      target[to++] = this.#references[i]!;
  }

  /** Adds a message; its UID is above all others. */
  add({ uid, receivedAtMs, summary }: FactSource): void {
    if (this.#count === this.#uids.length) this.#resize(Math.max(64, Math.ceil(this.#count * 1.5)));
    const slot = this.#count;
    const envelope = summary?.envelope;
    const date = envelope?.date == null ? undefined : parseDate(envelope.date);
    this.#uids[slot] = uid;
    this.#sentSeconds[slot] = Math.floor((date?.epochMs ?? receivedAtMs) / 1000);
    this.#sentDays[slot] = Math.floor((date ? date.epochMs + date.offsetMinutes * 60_000 : receivedAtMs) / msPerDay);
    const subject = baseSubject(decodeHeaderText(envelope?.subject ?? ''));
    this.#isReply[slot] = subject.isReply ? 1 : 0;
    this.#texts.subject[slot] = this.subjects.add(casemap(subject.text));
    this.#texts.from[slot] = this.addresses.add(mailboxKey(envelope?.from ?? []));
    this.#texts.to[slot] = this.addresses.add(mailboxKey(envelope?.to ?? []));
    this.#texts.cc[slot] = this.addresses.add(mailboxKey(envelope?.cc ?? []));
    this.#texts.displayFrom[slot] = this.addresses.add(displayKey(envelope?.from ?? []));
    this.#texts.displayTo[slot] = this.addresses.add(displayKey(envelope?.to ?? []));
    this.#addIds(slot, summary?.messageIds);
    this.#count++;
  }

  #addIds(slot: number, ids: MessageSummary['messageIds'] | undefined): void {
    this.#ids[slot] = ids?.own === undefined ? 0 : this.#hash(normalizedId(ids.own));
    // RFC 5256: References, or else the first of In-Reply-To.
    const references = ids ? (ids.references.length > 0 ? ids.references : ids.inReplyTo.slice(0, 1)) : [];
    const start = slot === 0 ? 0 : this.#referenceEnds[slot - 1]!;
    const end = start + references.length;
    if (end > this.#references.length) {
      const larger = new Float64Array(Math.max(end, Math.ceil(this.#references.length * 1.5)));
      larger.set(this.#references.subarray(0, start));
      this.#references = larger;
    }
    for (let i = 0; i < references.length; i++) this.#references[start + i] = this.#hash(normalizedId(references[i]!));
    this.#referenceEnds[slot] = end;
  }

  #resize(capacity: number): void {
    const wider = <T extends Uint32Array | Float64Array | Int32Array | Uint8Array>(from: T, to: T): T => {
      to.set(from as never);
      return to;
    };
    this.#uids = wider(this.#uids, new Uint32Array(capacity));
    this.#sentSeconds = wider(this.#sentSeconds, new Float64Array(capacity));
    this.#sentDays = wider(this.#sentDays, new Int32Array(capacity));
    this.#isReply = wider(this.#isReply, new Uint8Array(capacity));
    this.#ids = wider(this.#ids, new Float64Array(capacity));
    this.#referenceEnds = wider(this.#referenceEnds, new Uint32Array(capacity));
    for (const name of textColumns) this.#texts[name] = wider(this.#texts[name], new Uint32Array(capacity));
  }

  /** The same without messages that are not among `uids` (ascending), and without texts that only those had. */
  retained(uids: Uint32Array): MessageFacts {
    const kept = new MessageFacts(this.#hash);
    kept.modseq = this.modseq;
    const slots = this.slotsOf(uids).filter((slot) => slot >= 0);
    kept.#resize(slots.length);
    kept.#references = new Float64Array(this.#references.length);
    const subjects = new Int32Array(this.subjects.size).fill(-1);
    const addresses = new Int32Array(this.addresses.size).fill(-1);
    for (let to = 0; to < slots.length; to++) kept.#take(this, slots[to]!, to, subjects, addresses);
    kept.#count = slots.length;
    return kept;
  }

  #take(from: MessageFacts, slot: number, to: number, subjects: Int32Array, addresses: Int32Array): void {
    this.#uids[to] = from.#uids[slot]!;
    this.#sentSeconds[to] = from.#sentSeconds[slot]!;
    this.#sentDays[to] = from.#sentDays[slot]!;
    this.#isReply[to] = from.#isReply[slot]!;
    this.#ids[to] = from.#ids[slot]!;
    const start = to === 0 ? 0 : this.#referenceEnds[to - 1]!;
    from.copyReferences(slot, this.#references, start);
    this.#referenceEnds[to] = start + from.referenceCountAt(slot);
    for (const name of textColumns) {
      const [known, source, target] =
        name === 'subject' ? [subjects, from.subjects, this.subjects] : [addresses, from.addresses, this.addresses];
      const number = from.#texts[name][slot]!;
      if (known[number] === -1) known[number] = target.add(source.text(number));
      this.#texts[name][to] = known[number]!;
    }
  }
}
