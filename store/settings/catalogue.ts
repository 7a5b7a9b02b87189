/** All sections together: which there are, what an edit makes of them, whether the whole is valid. Pure: what is in the store is handed in. */
import { isDeepStrictEqual } from 'node:util';
import {
  type Sections,
  type SettingsChange,
  type SettingsEdit,
  SettingsError,
  type SettingsOf,
  type SettingsProblem,
  type SettingsRegistry,
  settingsLimits,
} from './contract.js';
import { deepFreeze, differences, formatPath, getAt, isTree, parsePath, plainCopy, withAt, withoutAt } from './paths.js';
import type { Sealer } from './seal.js';
import { Section } from './section.js';

/** Section name to its contents as they were set. */
export type Contents = ReadonlyMap<string, unknown>;

const nothing: Record<string, unknown> = {};

export class Catalogue<S extends Sections> {
  readonly sections: ReadonlyMap<string, Section>;
  readonly #registry: SettingsRegistry<S>;

  /** Throws when a section is not valid with nothing set. */
  constructor(registry: SettingsRegistry<S>) {
    this.#registry = registry;
    const entries = Object.entries(registry.sections);
    this.sections = new Map(entries.map(([name, definition]) => [name, new Section(name, definition)]));
    for (const section of this.sections.values()) {
      const { problems } = section.judge({});
      if (problems.length > 0)
        throw new Error(`the settings section ${section.name} needs what it must not: ${sentence(problems)}`);
    }
  }

  /** Throws `SettingsError` (`unknown-path`). */
  section(name: string): Section {
    const section = this.sections.get(name);
    if (section) return section;
    const names = [...this.sections.keys()].join(', ');
    throw new SettingsError('unknown-path', `there is no section '${name.slice(0, 100)}' in the settings; there are: ${names}`);
  }

  /** The contents after an edit, secrets sealed. Throws `SettingsError`; nothing is taken unless all of it is valid. */
  edited(base: Contents, edit: SettingsEdit, sealer: Sealer): Map<string, unknown> {
    const next = new Map(base);
    for (const [name, contents] of Object.entries(edit.replace ?? {})) {
      const copy = plainCopy(contents ?? {}, [name]);
      next.set(name, this.section(name).keepMasked(copy, base.get(name)));
    }
    for (const text of edit.unset ?? []) {
      const [name, ...path] = parsePath(text);
      this.section(name!);
      next.set(name!, path.length === 0 ? nothing : (withoutAt(next.get(name!) ?? nothing, path) ?? nothing));
    }
    for (const { path: text, value } of edit.set ?? []) {
      const [name, ...path] = parsePath(text);
      const section = this.section(name!);
      const contents = withAt(next.get(name!) ?? nothing, path, plainCopy(value, [name!, ...path]));
      if (contents === undefined) throw new SettingsError('unknown-path', `${text}: there is nothing in that place to set it in`);
      next.set(name!, section.keepMasked(contents, base.get(name!)));
    }
    this.#validate(base, next, sealer);
    for (const [name, section] of this.sections) {
      const contents = next.get(name);
      if (contents !== undefined && contents !== base.get(name)) next.set(name, section.seal(contents, base.get(name), sealer));
    }
    return next;
  }

  /** Old contents brought back. They were valid once, for the version that wrote them; fields that are unknown by now are passed over as in reading. */
  restored(base: Contents, old: Contents, sealer: Sealer): Map<string, unknown> {
    const next = new Map<string, unknown>();
    // What was not set then was all defaults.
    for (const name of base.keys()) next.set(name, nothing);
    for (const [name, contents] of old) next.set(name, isDeepStrictEqual(contents, base.get(name)) ? base.get(name) : contents);
    this.#validate(next, next, sealer);
    return next;
  }

  /** Throws `SettingsError` (`invalid`). Fields that are unknown here but were there already are another version's: they stay. */
  #validate(base: Contents, next: Contents, sealer: Sealer): void {
    const problems: SettingsProblem[] = [];
    const values: Record<string, unknown> = {};
    for (const [name, section] of this.sections) {
      const { value, problems: found, unknown } = this.#judge(section, next.get(name), sealer);
      problems.push(...found);
      values[name] = section.mask(value);
      const old = next.get(name) === base.get(name) ? unknown : this.#judge(section, base.get(name), sealer).unknown;
      problems.push(
        ...unknown.filter((path) => !old.includes(path)).map((path) => ({ path, message: 'there is no such setting' })),
      );
    }
    if (problems.length === 0) problems.push(...this.crossProblems(values as SettingsOf<S>));
    if (problems.length > 0)
      throw new SettingsError('invalid', `the settings would not be valid: ${sentence(problems)}`, problems);
  }

  #judge(section: Section, contents: unknown, sealer: Sealer) {
    try {
      return section.judge(section.open(contents ?? nothing, sealer));
    } catch (error) {
      if (!(error instanceof SettingsError)) throw error;
      return { value: undefined, problems: [...error.problems], unknown: [] };
    }
  }

  /** What the rules over several sections find. */
  crossProblems(masked: SettingsOf<S>): SettingsProblem[] {
    const frozen = deepFreeze(masked);
    return (this.#registry.checks ?? []).flatMap((check) => check(frozen));
  }

  /** What an edit changed, for people to read: secrets masked, long values cut, long lists cut. */
  listChanges(before: Contents, after: Contents): { changes: SettingsChange[]; unlistedChanges: number } {
    const changes: SettingsChange[] = [];
    let unlistedChanges = 0;
    for (const name of new Set([...before.keys(), ...after.keys()])) {
      const section = this.sections.get(name);
      const mask = (contents: unknown) => (section && isTree(contents) ? section.mask(contents) : nothing);
      const [old, now] = [mask(before.get(name)), mask(after.get(name))];
      for (const path of differences(before.get(name) ?? nothing, after.get(name) ?? nothing)) {
        if (changes.length >= settingsLimits.maxListedChanges) unlistedChanges++;
        else
          changes.push({
            path: formatPath([name, ...path]),
            ...listed('old', getAt(old, path)),
            ...listed('new', getAt(now, path)),
          });
      }
    }
    return { changes, unlistedChanges };
  }
}

function listed(name: 'old' | 'new', value: unknown): Partial<SettingsChange> {
  if (value === undefined) return {};
  const text = JSON.stringify(value);
  const limit = settingsLimits.maxListedValueCharacters;
  return { [name]: text.length > limit ? `${text.slice(0, limit)}…` : value };
}

/** Problems as one sentence. */
export function sentence(problems: readonly SettingsProblem[]): string {
  const shown = problems.slice(0, 20).map(({ path, message }) => (path === '' ? message : `${path}: ${message}`));
  return shown.join('; ') + (problems.length > shown.length ? `; and ${problems.length - shown.length} more` : '');
}
