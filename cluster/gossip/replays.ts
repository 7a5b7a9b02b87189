/**
 * Which messages were here before: per origin the highest incarnation, and per origin and topic a window over the last sequence numbers. What is older than
 * the window counts as a replay.
 */

/** A power of two, and more than a mesh reorders. */
const windowSize = 4_096;
/** Origins that are remembered, members or not. */
const maxOrigins = 4_096;

/** `stale`: of a lower incarnation than one heard before, or older than the window. */
export type Seen = 'new' | 'duplicate' | 'stale';

/** One bit per sequence number, in a ring. */
class SequenceWindow {
  highest = 0;
  readonly #bits = new Uint32Array(windowSize / 32);

  see(sequence: number): Seen {
    if (sequence > this.highest) {
      this.#advanceTo(sequence);
      this.#set(sequence);
      return 'new';
    }
    if (sequence <= this.highest - windowSize) return 'stale';
    const slot = sequence % windowSize;
    if ((this.#bits[slot >>> 5]! & (1 << (slot & 31))) !== 0) return 'duplicate';
    this.#set(sequence);
    return 'new';
  }

  #set(sequence: number): void {
    const slot = sequence % windowSize;
    this.#bits[slot >>> 5]! |= 1 << (slot & 31);
  }

  #advanceTo(sequence: number): void {
    if (sequence - this.highest >= windowSize) this.#bits.fill(0);
    else
      for (let at = this.highest + 1; at < sequence; at++) {
        const slot = at % windowSize;
        this.#bits[slot >>> 5]! &= ~(1 << (slot & 31));
      }
    this.highest = sequence;
  }
}

interface Origin {
  incarnation: number;
  windows: Map<string, SequenceWindow>;
  /** Direct messages come in order: whatever isn't higher is old. */
  lastDirect: number;
}

export class Replays {
  readonly #origins = new Map<string, Origin>();

  /** Looks at a published message and remembers it. */
  see(topic: string, from: string, incarnation: number, sequence: number): Seen {
    const origin = this.#origin(from, incarnation);
    if (!origin) return 'stale';
    let window = origin.windows.get(topic);
    if (!window) origin.windows.set(topic, (window = new SequenceWindow()));
    return window.see(sequence);
  }

  /** Looks at a direct message and remembers it. */
  seeDirect(from: string, incarnation: number, sequence: number): Seen {
    const origin = this.#origin(from, incarnation);
    if (!origin || sequence < origin.lastDirect) return 'stale';
    if (sequence === origin.lastDirect) return 'duplicate';
    origin.lastDirect = sequence;
    return 'new';
  }

  /** Undefined: of a lower incarnation than was heard before. A higher one may come from a new process that counts from 1 again. */
  #origin(from: string, incarnation: number): Origin | undefined {
    const known = this.#origins.get(from);
    if (known && incarnation < known.incarnation) return undefined;
    if (known && incarnation === known.incarnation) return known;
    const origin: Origin = { incarnation, windows: new Map(), lastDirect: 0 };
    // Last among those that are remembered.
    this.#origins.delete(from);
    this.#origins.set(from, origin);
    if (this.#origins.size > maxOrigins) this.#origins.delete(this.#origins.keys().next().value!);
    return origin;
  }
}
