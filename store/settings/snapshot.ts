/** What holds on this node at one time: the sections' values, frozen, once masked and once with their secrets, and where they came from. */
import type { Sections, SettingsOf } from './contract.js';
import { deepFreeze, differences, formatPath } from './paths.js';
import type { Section } from './section.js';

export interface SnapshotSection {
  /** As it was set, secrets sealed. */
  contents: unknown;
  /** With defaults, secrets in plain text. */
  plain: unknown;
}

export class Snapshot<S extends Sections> {
  /** Secrets masked. */
  readonly values: SettingsOf<S>;
  // Private, so that nothing that prints a snapshot prints a secret.
  readonly #plain: ReadonlyMap<string, unknown>;
  readonly #explicit: Record<string, unknown>;

  constructor(
    readonly version: number,
    readonly generation: number,
    sections: ReadonlyMap<string, Section>,
    parts: ReadonlyMap<string, SnapshotSection>,
  ) {
    const values: Record<string, unknown> = {};
    const explicit: Record<string, unknown> = {};
    for (const [name, section] of sections) {
      const { contents, plain } = parts.get(name)!;
      values[name] = section.mask(plain);
      const masked = section.mask(contents) as Record<string, unknown>;
      if (Object.keys(masked).length > 0) explicit[name] = masked;
    }
    this.values = deepFreeze(values) as SettingsOf<S>;
    this.#explicit = deepFreeze(explicit);
    this.#plain = new Map([...parts].map(([name, { plain }]) => [name, deepFreeze(plain)]));
  }

  opened<Name extends keyof S>(name: Name): SettingsOf<S>[Name] {
    return this.#plain.get(name as string) as SettingsOf<S>[Name];
  }

  explicit(): Record<string, unknown> {
    return this.#explicit;
  }

  /** Paths whose values differ from those of `before`, secrets included. */
  changedSince(before: Snapshot<S>): string[] {
    return [...this.#plain].flatMap(([name, plain]) =>
      differences(before.#plain.get(name), plain).map((path) => formatPath([name, ...path])),
    );
  }
}
