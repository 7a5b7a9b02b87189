/** One section: its contents judged by its schema, its secrets opened, sealed and masked. */
import { isDeepStrictEqual } from 'node:util';
import { z } from 'zod';
import { type SectionDefinition, SettingsError, type SettingsProblem, secretMask, settingsLimits } from './contract.js';
import { deepFreeze, formatPath, getAt, isTree, mapAt } from './paths.js';
import { SealError, type Sealer } from './seal.js';

const sealPurpose = 'settings';

/** What a section's contents come to. */
export interface JudgedSection {
  /** Complete and frozen; undefined when there are problems. */
  value?: unknown;
  problems: SettingsProblem[];
  /** Fields that this version does not know; they were passed over. */
  unknown: string[];
}

interface SecretPattern {
  text: string;
  elements: string[];
}

export class Section {
  readonly #patterns: SecretPattern[];

  constructor(
    readonly name: string,
    readonly definition: SectionDefinition,
  ) {
    this.#patterns = (definition.secrets ?? []).map((text) => ({ text, elements: text.split('.') }));
  }

  /** Judges contents whose secrets are open. Fields that are not known are named and passed over. */
  judge(contents: unknown): JudgedSection {
    const unknown: string[] = [];
    let rest = contents;
    for (let round = 0; round <= settingsLimits.maxDepth; round++) {
      const result = this.definition.schema.safeParse(rest);
      if (result.success) return { value: deepFreeze(result.data), problems: [], unknown };
      const strangers = result.error.issues.flatMap((issue) =>
        issue.code === 'unrecognized_keys' ? issue.keys.map((name) => [...issue.path.map(String), name]) : [],
      );
      const problems = result.error.issues
        .filter(({ code }) => code !== 'unrecognized_keys')
        .map((issue) => this.#problem(issue));
      if (strangers.length === 0) return { problems, unknown };
      for (const path of strangers) {
        unknown.push(formatPath([this.name, ...path]));
        rest = withoutField(rest, path);
      }
    }
    return { problems: [{ path: this.name, message: 'can not be understood' }], unknown };
  }

  /** Sealed secrets as text. Throws `SettingsError` naming the one that can't be opened. */
  open(contents: unknown, sealer: Sealer): unknown {
    return this.#mapSecrets(contents, (value, path, pattern) => {
      if (!Buffer.isBuffer(value)) return value;
      try {
        return sealer.open(value, this.#place(pattern)).toString('utf8');
      } catch (error) {
        if (!(error instanceof SealError)) throw error;
        const problem = { path: formatPath([this.name, ...path]), message: error.message };
        throw new SettingsError('invalid', `${problem.path}: ${problem.message}`, [problem], { cause: error });
      }
    });
  }

  /** Secrets in plain text are sealed; one that is the same as in `base` stays as it is there. */
  seal(contents: unknown, base: unknown, sealer: Sealer): unknown {
    return this.#mapSecrets(contents, (value, path, pattern) => {
      if (typeof value !== 'string') return value;
      const before = getAt(base, path);
      const place = this.#place(pattern);
      const plain = Buffer.from(value, 'utf8');
      const isSame = Buffer.isBuffer(before) && opens(sealer, before, place)?.equals(plain);
      return isSame ? before : sealer.seal(plain, place);
    });
  }

  /** All secrets under the newest key; undefined when they are already. Throws `SealError`. */
  reseal(contents: unknown, sealer: Sealer): { contents: unknown; count: number } | undefined {
    let count = 0;
    const resealed = this.#mapSecrets(contents, (value, _path, pattern) => {
      const anew = Buffer.isBuffer(value) ? sealer.reseal(value, this.#place(pattern)) : undefined;
      if (anew) count++;
      return anew ?? value;
    });
    return count === 0 ? undefined : { contents: resealed, count };
  }

  /** Where `contents` has the mask in a secret's place, the secret of `base` is meant. Throws `SettingsError` where there is none. */
  keepMasked(contents: unknown, base: unknown): unknown {
    const maskedBase = this.mask(base);
    return this.#mapSecrets(contents, (value, path) => {
      if (value !== secretMask) return value;
      const kept = getAt(base, counterpart(contents, maskedBase, path));
      if (kept !== undefined) return kept;
      const problem = { path: formatPath([this.name, ...path]), message: 'there is no secret yet that could be kept' };
      throw new SettingsError('invalid', `${problem.path}: ${problem.message}`, [problem]);
    });
  }

  /** A copy that may be shown. */
  mask(contents: unknown): unknown {
    return this.#mapSecrets(contents, () => secretMask);
  }

  /** Whether `path` (within the section) is a secret, or has one below it. */
  isSecret(path: readonly string[]): boolean {
    return this.#patterns.some(
      ({ elements }) =>
        elements.length === path.length && elements.every((element, at) => element === '*' || element === path[at]),
    );
  }

  /** JSON Schema (draft 2020-12) of what may be set; secrets are `writeOnly`. */
  jsonSchema(): Record<string, unknown> {
    const schema = z.toJSONSchema(this.definition.schema, { io: 'input', unrepresentable: 'any' }) as Record<string, unknown>;
    for (const { elements } of this.#patterns) markSecret(schema, elements);
    delete schema['$schema'];
    return { title: this.name, ...schema, description: this.definition.description };
  }

  #place(pattern: string) {
    return { purpose: sealPurpose, context: `${this.name}.${pattern}` };
  }

  #mapSecrets(contents: unknown, change: (value: unknown, path: string[], pattern: string) => unknown): unknown {
    let mapped = contents;
    for (const { text, elements } of this.#patterns) mapped = mapAt(mapped, elements, (value, path) => change(value, path, text));
    return mapped;
  }

  #problem(issue: z.core.$ZodIssue): SettingsProblem {
    return { path: formatPath([this.name, ...issue.path.map(String)]), message: issue.message };
  }
}

function opens(sealer: Sealer, sealed: Buffer, place: { purpose: string; context: string }): Buffer | undefined {
  try {
    return sealer.open(sealed, place);
  } catch (error) {
    if (error instanceof SealError) return undefined;
    throw error;
  }
}

/** Like `withoutAt`, but objects that become empty stay: they may have to be there. */
function withoutField(contents: unknown, path: readonly string[]): unknown {
  return mapAt(contents, path.slice(0, -1), (value) => (isTree(value) ? withoutKey(value, path.at(-1)!) : value));
}

function withoutKey(tree: Record<string, unknown>, name: string): Record<string, unknown> {
  const { [name]: _gone, ...rest } = tree;
  return rest;
}

/**
 * Where in `base` the thing at `path` of `contents` is. Members of lists are found again by their `name` or `id`, else by being the same in all but
 * secrets; never by their place, which could give one the secret of another.
 */
function counterpart(contents: unknown, maskedBase: unknown, path: readonly string[]): string[] {
  const found: string[] = [];
  let [here, there] = [contents, maskedBase];
  for (const element of path) {
    const wanted = getAt(here, [element]);
    if (Array.isArray(here)) {
      const place = Array.isArray(there) ? there.findIndex((one) => isSameMember(one, wanted)) : -1;
      found.push(String(place));
    } else {
      found.push(element);
    }
    there = getAt(there, [found.at(-1)!]);
    here = wanted;
  }
  return found;
}

function isSameMember(one: unknown, wanted: unknown): boolean {
  if (isTree(one) && isTree(wanted)) {
    for (const name of ['name', 'id']) if (wanted[name] !== undefined) return one[name] === wanted[name];
  }
  return isDeepStrictEqual(one, wanted);
}

function markSecret(schema: unknown, [element, ...rest]: string[]): void {
  if (!isTree(schema)) return;
  for (const several of ['anyOf', 'oneOf', 'allOf']) {
    const options = schema[several];
    if (Array.isArray(options)) for (const option of options) markSecret(option, element === undefined ? [] : [element, ...rest]);
  }
  if (element === undefined) {
    schema['writeOnly'] = true;
    return;
  }
  const { properties } = schema;
  if (element !== '*') {
    if (isTree(properties)) markSecret(properties[element], rest);
    return;
  }
  if (isTree(properties)) for (const property of Object.values(properties)) markSecret(property, rest);
  markSecret(schema['additionalProperties'], rest);
  markSecret(schema['items'], rest);
}
