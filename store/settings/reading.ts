/**
 * From what is stored to a snapshot that a node can work with, whatever is stored: unknown sections and fields are another version's and are passed over; a
 * section that is not valid here keeps the last contents that were.
 */
import { counter, gauge, type Logger } from '../../ops/telemetry/index.js';
import type { KvReads, KvStore } from '../kv/contract.js';
import { type Catalogue, sentence } from './catalogue.js';
import { type Sections, SettingsError } from './contract.js';
import {
  decodeHead,
  decodeSection,
  decodeVersion,
  type Head,
  headKey,
  sectionKey,
  sectionRange,
  versionRange,
} from './records.js';
import type { Sealer } from './seal.js';
import type { Section } from './section.js';
import { Snapshot, type SnapshotSection } from './snapshot.js';

const invalidSections = gauge(
  'starling_settings_invalid_sections',
  'Sections whose stored contents are not valid here: their last valid contents hold.',
);
const ignoredFields = counter(
  'starling_settings_ignored_fields_total',
  'Stored fields passed over because this version does not know them.',
);

/** Older contents of a section that are tried when the newest are not valid. */
const maxOlderContents = 20;
/** Older versions that are tried when the sections do not fit each other. */
const maxOlderVersions = 20;

export interface ReadingParts<S extends Sections> {
  kv: KvStore;
  catalogue: Catalogue<S>;
  sealer: Sealer;
  logger: Logger;
}

/** The stored contents of some sections, undecoded. */
type Rows = Map<string, Buffer | undefined>;

export async function readHead(reads: KvReads): Promise<Head> {
  return decodeHead(await reads.get(headKey));
}

/** The rows of all sections as a version names them, in one round trip. */
export async function readRows(reads: KvReads, sections: Readonly<Record<string, number>>): Promise<Rows> {
  const entries = Object.entries(sections);
  const values = await reads.getMany(entries.map(([name, version]) => sectionKey(name, version)));
  return new Map(entries.map(([name], at) => [name, values[at]]));
}

export class Reading<S extends Sections> {
  readonly #parts: ReadingParts<S>;
  /** Sections that this version does not know and that were named in the log already. */
  readonly #strangers = new Set<string>();
  readonly #lastValid = new Map<string, SnapshotSection>();
  #current: Snapshot<S>;

  constructor(parts: ReadingParts<S>) {
    this.#parts = parts;
    this.#current = this.#defaults(-1);
  }

  /** What holds until something was read: the defaults. */
  get current(): Snapshot<S> {
    return this.#current;
  }

  /** Reads what is stored now; undefined when it is what `current` shows already. Throws KvError. */
  async next(atLeastVersion?: bigint): Promise<Snapshot<S> | undefined> {
    const seen = this.#current.generation;
    const found = await this.#parts.kv.read(
      async (reads) => {
        const head = await readHead(reads);
        return head.generation <= seen ? undefined : { head, rows: await readRows(reads, head.sections) };
      },
      { label: 'settings', ...(atLeastVersion !== undefined && { atLeastVersion }) },
    );
    if (!found) return undefined;
    this.#current = await this.#snapshot(found.head, found.rows);
    return this.#current;
  }

  async #snapshot(head: Head, rows: Rows): Promise<Snapshot<S>> {
    const { catalogue, logger } = this.#parts;
    for (const name of rows.keys()) {
      if (catalogue.sections.has(name) || this.#strangers.has(name)) continue;
      this.#strangers.add(name);
      logger.warn({ section: name }, 'a section of the settings that this version does not know is passed over');
    }
    const parts = new Map<string, SnapshotSection>();
    let invalid = 0;
    for (const section of catalogue.sections.values()) {
      const row = rows.get(section.name);
      let part = this.#judge(section, row, head.version);
      if (!part) {
        invalid++;
        part = this.#lastValid.get(section.name) ?? (await this.#olderContents(section, head)) ?? this.#empty(section);
      }
      parts.set(section.name, part);
    }
    const snapshot = this.#make(head, parts);
    const problems = catalogue.crossProblems(snapshot.values);
    invalidSections.set(invalid + problems.length);
    if (problems.length === 0) {
      for (const [name, part] of parts) this.#lastValid.set(name, part);
      return snapshot;
    }
    logger.error(
      { version: head.version, problems: sentence(problems) },
      'the stored settings do not fit each other: the last valid ones hold',
    );
    return this.#lastFitting(head);
  }

  /** The last contents that fitted each other, in memory, else in the history, else the defaults. */
  async #lastFitting(head: Head): Promise<Snapshot<S>> {
    const { catalogue, kv } = this.#parts;
    if (this.#lastValid.size > 0) return this.#make(head, this.#lastValid);
    const { begin, end } = versionRange(head.floor, head.version);
    const older = await kv.read((reads) => reads.getRange(begin, end, { reverse: true, limit: maxOlderVersions }), {
      label: 'settings',
    });
    for (const [back, { value }] of older.entries()) {
      const { sections } = decodeVersion(head.version - 1 - back, value);
      const rows = await kv.read((reads) => readRows(reads, sections), { label: 'settings' });
      const parts = new Map<string, SnapshotSection>();
      for (const section of catalogue.sections.values()) {
        const part = this.#judge(section, rows.get(section.name), head.version);
        if (part) parts.set(section.name, part);
      }
      if (parts.size !== catalogue.sections.size) continue;
      const snapshot = this.#make(head, parts);
      if (catalogue.crossProblems(snapshot.values).length === 0) return snapshot;
    }
    return this.#defaults(head.generation, head.version);
  }

  /** Undefined when the contents can't be used here; why is logged. */
  #judge(section: Section, row: Buffer | undefined, version: number): SnapshotSection | undefined {
    const { sealer, logger } = this.#parts;
    const about = { section: section.name, version };
    if (!row) return this.#empty(section);
    try {
      const contents = decodeSection(section.name, row);
      const { value, problems, unknown } = section.judge(section.open(contents, sealer));
      if (unknown.length > 0) {
        ignoredFields.inc(unknown.length);
        logger.warn({ ...about, fields: unknown }, 'stored settings that this version does not know are passed over');
      }
      if (problems.length === 0) return { contents, plain: value };
      logger.error({ ...about, problems: sentence(problems) }, 'stored settings are not valid here: the last valid ones hold');
    } catch (error) {
      const reason = error instanceof SettingsError ? error.message : (error as Error).message;
      logger.error({ ...about, reason }, 'stored settings can not be read: the last valid ones hold');
    }
    return undefined;
  }

  /** After a start there is no memory of what was valid, but the history has it. */
  async #olderContents(section: Section, head: Head): Promise<SnapshotSection | undefined> {
    const { begin, end } = sectionRange(section.name, 0, head.sections[section.name] ?? 0);
    const older = await this.#parts.kv.read((reads) => reads.getRange(begin, end, { reverse: true, limit: maxOlderContents }), {
      label: 'settings',
    });
    for (const { value } of older) {
      const part = this.#judge(section, value, head.version);
      if (part) return part;
    }
    return undefined;
  }

  #empty(section: Section): SnapshotSection {
    return { contents: {}, plain: section.judge({}).value };
  }

  #make(head: Head, parts: ReadonlyMap<string, SnapshotSection>): Snapshot<S> {
    return new Snapshot<S>(head.version, head.generation, this.#parts.catalogue.sections, parts);
  }

  #defaults(generation: number, version = 0): Snapshot<S> {
    const { sections } = this.#parts.catalogue;
    const parts = new Map([...sections].map(([name, section]) => [name, this.#empty(section)]));
    return new Snapshot<S>(version, generation, sections, parts);
  }
}
