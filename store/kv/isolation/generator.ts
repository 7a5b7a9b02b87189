/**
 * Random transactions over few lists. Lists come in two forms: `p/…` is one value that is read and written back with one more number,
 * `s/…` is a log of versionstamped rows, appended to blindly. A list that has had its share of appends makes way for a new one, so that
 * values stay small and new keys keep appearing in the ranges that others read.
 */
import type { ListName } from './observed.js';

export type Step =
  /** With `declared`, the read is made as a snapshot and its conflict is declared by hand. */
  | { readonly kind: 'read'; readonly list: ListName; readonly declared: boolean }
  | { readonly kind: 'many'; readonly lists: readonly ListName[] }
  /** Over `p/` lists, perhaps limited; or over whole `s/` logs. */
  | {
      readonly kind: 'range';
      readonly begin: ListName;
      readonly end: ListName;
      readonly limit: number | undefined;
      readonly reverse: boolean;
      readonly declared: boolean;
    }
  | { readonly kind: 'append'; readonly list: ListName };

export interface Plan {
  /** `read` goes through `KvStore.read`, the others through `transactVersioned`. */
  readonly by: 'read' | 'transact';
  /** No log is read after it was appended to: that can't be read within its transaction. */
  readonly steps: readonly Step[];
}

/** A whole number from 0 to before `below`. */
export type Numbers = (below: number) => number;

export class Generator {
  readonly #random: Numbers;
  readonly #activeLists: number;
  readonly #appendsPerList: number;
  #lowest = 0;
  #appends = 0;

  constructor(random: Numbers, activeLists: number, appendsPerList: number) {
    this.#random = random;
    this.#activeLists = activeLists;
    this.#appendsPerList = appendsPerList;
  }

  /** Another transaction. */
  next(): Plan {
    const kind = this.#random(10);
    if (kind < 3) return { by: kind === 0 ? 'transact' : 'read', steps: this.#reads(1 + this.#random(4)) };
    if (kind === 3) return { by: 'transact', steps: this.#appendSteps(1 + this.#random(3), 's') };
    const steps = [...this.#reads(this.#random(3)), ...this.#appendSteps(1 + this.#random(2), 'p')];
    for (let at = steps.length - 1; at > 0; at--) {
      const other = this.#random(at + 1);
      [steps[at], steps[other]] = [steps[other]!, steps[at]!];
    }
    if (this.#random(2) === 0) steps.push(...this.#appendSteps(1, 's'));
    return { by: 'transact', steps };
  }

  #reads(count: number): Step[] {
    return Array.from({ length: count }, () => this.#read());
  }

  #read(): Step {
    const declared = this.#random(6) === 0;
    const kind = this.#random(10);
    if (kind < 4) return { kind: 'read', list: this.#list(this.#random(3) === 0 ? 's' : 'p'), declared };
    if (kind < 6) return { kind: 'many', lists: [this.#list('p'), this.#list('p'), this.#list('p')] };
    const form = kind === 6 ? 's' : 'p';
    // From a little below what is in use to a little above: lists that are not there yet are read, too.
    const from = Math.max(0, this.#lowest - 2 + this.#random(this.#activeLists));
    const to = from + 1 + this.#random(this.#activeLists + 2);
    const limit = form === 'p' && this.#random(2) === 0 ? 1 + this.#random(4) : undefined;
    return { kind: 'range', begin: nameOf(form, from), end: nameOf(form, to), limit, reverse: this.#random(3) === 0, declared };
  }

  #appendSteps(count: number, form: 'p' | 's'): Step[] {
    return Array.from({ length: count }, () => {
      if (++this.#appends >= this.#appendsPerList) {
        this.#appends = 0;
        this.#lowest++;
      }
      return { kind: 'append', list: this.#list(form) } as const;
    });
  }

  #list(form: 'p' | 's'): ListName {
    // The square of a fraction: some lists are hot.
    const place = Math.floor((this.#random(1000) * this.#random(1000) * this.#activeLists) / 1_000_000);
    return nameOf(form, this.#lowest + place);
  }
}

function nameOf(form: 'p' | 's', at: number): ListName {
  return `${form}/${String(at).padStart(6, '0')}`;
}
