/**
 * Who did what when. Every line is hashed, so that two runs can be compared to the last detail; of the lines as many are kept as help to understand a
 * failure: those that name its subject, and what happened to nodes, links and store around it.
 */

/** `fault`, `verdict`, `lease`, `node`: told in every story; the others only where they name what a violation is about. */
export type LineKind = 'fault' | 'node' | 'verdict' | 'lease' | 'client' | 'peer' | 'commit' | 'violation';

interface Line {
  atMs: number;
  kind: LineKind;
  who: string;
  text: string;
}

export interface Violation {
  /** Short and stable: what tells one kind of violation from another. */
  rule: string;
  text: string;
  /** Ids that the story is searched for. */
  about: string[];
  atMs: number;
}

const maxLines = 60_000;
const maxToldLines = 160;
/** Faults before and after the violation that are told. */
const toldBeforeMs = 30_000;
/** What is not longer is the name of a node, and would be found in too many lines. */
const minSearchedLength = 3;

export class Story {
  readonly lines: Line[] = [];
  readonly violations: Violation[] = [];
  #hash = 0x811c9dc5;
  #other = 0x9e3779b9;

  constructor(
    readonly seed: number,
    readonly nowMs: () => number,
  ) {}

  tell(kind: LineKind, who: string, text: string): void {
    const atMs = this.nowMs();
    this.mix(`${atMs}|${kind}|${who}|${text}`);
    this.lines.push({ atMs, kind, who, text });
    if (this.lines.length > maxLines) this.lines.splice(0, maxLines / 4);
  }

  /** Into the hash, and nowhere else. */
  mix(text: string): void {
    let [hash, other] = [this.#hash, this.#other];
    for (let at = 0; at < text.length; at++) {
      const code = text.charCodeAt(at);
      hash = Math.imul(hash ^ code, 0x01000193);
      other = Math.imul(other ^ hash ^ code, 0x85ebca6b) ^ (other >>> 13);
    }
    this.#hash = hash;
    this.#other = other;
  }

  get hash(): string {
    return [this.#hash, this.#other].map((half) => (half >>> 0).toString(16).padStart(8, '0')).join('');
  }

  violate(rule: string, text: string, about: readonly string[] = []): void {
    this.violations.push({ rule, text, about: [...about], atMs: this.nowMs() });
    this.tell('violation', '', `${rule}: ${text}`);
  }

  /** For a person who wants to know how the first violation came about. */
  told(): string {
    const [first] = this.violations;
    if (!first) return '';
    const isTold = ({ kind, text, who, atMs }: Line): boolean => {
      if (kind === 'violation') return true;
      if (
        first.about.some((id) =>
          id.length > minSearchedLength ? text.includes(id) : who === id && kind !== 'commit' && kind !== 'client',
        )
      )
        return true;
      return kind !== 'client' && kind !== 'peer' && kind !== 'commit' && atMs >= first.atMs - toldBeforeMs;
    };
    let told = this.lines.filter(isTold);
    const left = Math.max(0, told.length - maxToldLines);
    if (left > 0) told = told.slice(left);
    const text = told.map(({ atMs, kind, who, text }) => {
      const seconds = (atMs / 1000).toFixed(3).padStart(9);
      return `${seconds}  ${kind.padEnd(9)} ${who.padEnd(5)} ${text}`;
    });
    const more = this.violations.length > 1 ? ` (and ${this.violations.length - 1} more)` : '';
    return [
      `seed ${this.seed}: ${first.rule}${more}: ${first.text}`,
      ...(left > 0 ? [`(${left} earlier lines left out)`] : []),
      ...text,
      `to see it again: npm run sim -- --seed ${this.seed}`,
    ].join('\n');
  }
}

/** An error in one line. */
export function describe(error: unknown): string {
  return error instanceof Error ? `${error.name}: ${error.message}` : String(error);
}
