/** The header of a message while a script works on it: looked up by name, edited by RFC 5293, the message itself stays as it is. */
import { type EditableHeader, type RawField, type SieveLimits, type SieveOutcome, SieveRunError } from './contract.js';

interface Entry extends RawField {
  /** Index among the message's fields; undefined: added. */
  original?: number;
}

const noValues: readonly string[] = [];
/** Values by lower-case name. Several scripts look at one message: it is made once. */
const indexes = new WeakMap<readonly RawField[], Map<string, string[]>>();

export class ScriptHeader implements EditableHeader {
  readonly #fields: readonly RawField[];
  readonly #maxAdded: number;
  #added = 0;
  /** Present once the header has been edited. */
  #entries?: Entry[];
  #index?: Map<string, string[]>;

  constructor(fields: readonly RawField[], limits: Pick<SieveLimits, 'maxAddedFields'>) {
    this.#fields = fields;
    this.#maxAdded = limits.maxAddedFields;
  }

  values(name: string): readonly string[] {
    this.#index ??= this.#entries ? makeIndex(this.#entries) : sharedIndex(this.#fields);
    return this.#index.get(name.toLowerCase()) ?? noValues;
  }

  /** As they are written, one for each field, first to last. */
  names(): readonly string[] {
    return (this.#entries ?? this.#fields).map(({ name }) => name);
  }

  add(field: RawField, isLast: boolean): void {
    if (++this.#added > this.#maxAdded) throw new SieveRunError(`a script can add at most ${this.#maxAdded} header fields`);
    const entry = { name: field.name, value: field.value };
    if (isLast) this.#edit().push(entry);
    else this.#edit().unshift(entry);
  }

  remove(name: string, options: { index?: number; fromEnd?: boolean; matches?: (value: string) => boolean }): number {
    const wanted = name.toLowerCase();
    const entries = this.#entries ?? this.#fields;
    let found = [...entries.keys()].filter((at) => entries[at]!.name.toLowerCase() === wanted);
    if (options.index !== undefined) {
      const at = options.fromEnd ? found.length - options.index : options.index - 1;
      found = found.slice(at, at + 1).filter(() => at >= 0);
    }
    const removed = new Set(found.filter((at) => options.matches?.(entries[at]!.value) ?? true));
    if (removed.size === 0) return 0;
    this.#entries = this.#edit().filter((_, at) => !removed.has(at));
    return removed.size;
  }

  /** All fields as edited; undefined when nothing was. */
  edited(): SieveOutcome['editedFields'] {
    return this.#entries?.map(({ original, name, value }) =>
      original === undefined ? { added: { name, value } } : { original },
    );
  }

  #edit(): Entry[] {
    this.#index = undefined;
    this.#entries ??= this.#fields.map(({ name, value }, original) => ({ name, value, original }));
    return this.#entries;
  }
}

function sharedIndex(fields: readonly RawField[]): Map<string, string[]> {
  const known = indexes.get(fields);
  if (known) return known;
  const index = makeIndex(fields);
  indexes.set(fields, index);
  return index;
}

function makeIndex(fields: readonly RawField[]): Map<string, string[]> {
  const index = new Map<string, string[]>();
  for (const { name, value } of fields) {
    const key = name.toLowerCase();
    const values = index.get(key);
    if (values) values.push(value);
    else index.set(key, [value]);
  }
  return index;
}
