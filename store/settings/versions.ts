/** Writing versions: one transaction that holds the new contents, the version that tells of them, and the end of what is too old to keep. */
import type { Clock } from '../../ops/telemetry/index.js';
import { type Committed, type KvStore, type KvTransaction, keyAfter } from '../kv/contract.js';
import type { Catalogue, Contents } from './catalogue.js';
import {
  type ChangeOptions,
  type ChangeResult,
  type Sections,
  SettingsError,
  type SettingsVersion,
  type ShownVersion,
  settingsLimits,
} from './contract.js';
import { keyCheckPlace } from './key-check.js';
import { isTree } from './paths.js';
import { readHead, readRows } from './reading.js';
import {
  decodeSection,
  decodeVersion,
  encodeHead,
  encodeSection,
  encodeVersion,
  type Head,
  headKey,
  keyCheckKey,
  sectionKey,
  sectionRange,
  versionKey,
  versionRange,
} from './records.js';
import { SealError, type Sealer } from './seal.js';

export interface VersionParts<S extends Sections> {
  kv: KvStore;
  clock: Clock;
  catalogue: Catalogue<S>;
  sealer: Sealer;
}

/** What a change makes of the contents: `next` is complete, and valid. */
type MakeContents = (base: Contents, tx: KvTransaction, head: Head) => Contents | Promise<Contents>;

export interface NewVersion extends ChangeOptions {
  /** Random; the same for every run of the transaction. */
  changeId: string;
  rollbackTo?: number;
  next: MakeContents;
}

export class Versions<S extends Sections> {
  readonly #parts: VersionParts<S>;

  constructor(parts: VersionParts<S>) {
    this.#parts = parts;
  }

  /** Commits a version, or nothing when the contents are the same. Throws what `next` throws, SettingsError, KvError. */
  write(input: NewVersion): Promise<Committed<ChangeResult>> {
    /** Numbers that earlier runs of this transaction would have written. */
    const tried = new Set<number>();
    return this.#parts.kv.transactVersioned(
      async (tx) => {
        const head = await readHead(tx);
        const own = tx.mayHaveCommitted ? await findOwn(tx, tried, input.changeId) : undefined;
        if (own) return { version: own.version, isChanged: true, changes: own.changes };
        if (input.expectedVersion !== undefined && input.expectedVersion !== head.version)
          throw versionChanged(input.expectedVersion, head);
        const base = await this.#contents(tx, head.sections);
        const next = await input.next(base, tx, head);
        const { changes, unlistedChanges } = this.#parts.catalogue.listChanges(base, next);
        if (changes.length === 0) return { version: head.version, isChanged: false, changes };
        const version = head.version + 1;
        tried.add(version);
        const sections = { ...head.sections };
        for (const [name, contents] of next) {
          if (contents === base.get(name)) continue;
          sections[name] = version;
          tx.set(sectionKey(name, version), checkedSection(name, contents));
        }
        const { who, comment = '', changeId, rollbackTo } = input;
        const record = {
          version,
          atMs: this.#parts.clock.nowMs(),
          ...cut(who, comment),
          changeId,
          sections,
          changes,
          unlistedChanges,
        };
        tx.set(versionKey(version), encodeVersion(rollbackTo === undefined ? record : { ...record, rollbackTo }));
        const floor = await truncate(tx, head, version);
        tx.set(headKey, encodeHead({ version, generation: head.generation + 1, floor, sections }));
        return { version, isChanged: true, changes };
      },
      { label: 'settings-change' },
    );
  }

  /** Newest first. */
  history(limit: number): Promise<SettingsVersion[]> {
    const { kv } = this.#parts;
    return kv.read(
      async (reads) => {
        const head = await readHead(reads);
        const { begin, end } = versionRange(head.floor, head.version + 1);
        const rows = await reads.getRange(begin, end, { reverse: true, limit: Math.min(limit, settingsLimits.maxVersions) });
        return rows.map(({ value }, back) => publicVersion(decodeVersion(head.version - back, value)));
      },
      { label: 'settings' },
    );
  }

  show(version: number): Promise<ShownVersion> {
    const { kv, catalogue } = this.#parts;
    return kv.read(
      async (reads) => {
        const value = await reads.get(versionKey(version));
        if (!value) throw noSuchVersion(version);
        const record = decodeVersion(version, value);
        const sections: Record<string, unknown> = {};
        for (const [name, row] of await readRows(reads, record.sections)) {
          const section = catalogue.sections.get(name);
          const contents = row && tryDecode(name, row);
          if (section && isTree(contents)) sections[name] = section.mask(contents);
        }
        return { ...publicVersion(record), sections };
      },
      { label: 'settings' },
    );
  }

  /** The contents of an old version, in a transaction. Throws SettingsError (`no-such-version`). */
  async contentsOf(tx: KvTransaction, version: number): Promise<Map<string, unknown>> {
    const value = await tx.get(versionKey(version));
    if (!value) throw noSuchVersion(version);
    return this.#contents(tx, decodeVersion(version, value).sections);
  }

  /** Seals everything that is kept, history included, with the newest key; one section's contents at a time. */
  async reseal(): Promise<number> {
    const { kv, catalogue } = this.#parts;
    let count = await kv.transact(async (tx) => this.#resealCheck(tx), { label: 'settings-reseal' });
    for (const name of catalogue.sections.keys()) {
      let { begin, end } = sectionRange(name, 0, Number.MAX_SAFE_INTEGER);
      for (;;) {
        const [row] = await kv.read((reads) => reads.getRange(begin, end, { limit: 1 }), { label: 'settings-reseal' });
        if (!row) break;
        count += await kv.transact((tx) => this.#resealRow(tx, name, row.key), { label: 'settings-reseal' });
        begin = keyAfter(row.key);
      }
    }
    return count;
  }

  async #resealCheck(tx: KvTransaction): Promise<number> {
    const { sealer, catalogue } = this.#parts;
    const unknown = Object.keys((await readHead(tx)).sections).filter((name) => !catalogue.sections.has(name));
    if (unknown.length > 0)
      throw new SettingsError(
        'invalid',
        `sections that this version does not know (${unknown.join(', ')}): reseal on a node of the newest version`,
      );
    const value = await tx.get(keyCheckKey);
    const anew = value && sealer.reseal(value, keyCheckPlace);
    if (anew) tx.set(keyCheckKey, anew);
    return anew ? 1 : 0;
  }

  async #resealRow(tx: KvTransaction, name: string, key: Buffer): Promise<number> {
    const value = await tx.get(key);
    if (!value) return 0;
    try {
      const contents = tryDecode(name, value);
      if (contents === value)
        throw new SettingsError('invalid', `a version of ${name} can't be read here, hence not sealed anew`);
      const resealed = this.#parts.catalogue.section(name).reseal(contents, this.#parts.sealer);
      if (!resealed) return 0;
      tx.set(key, encodeSection(resealed.contents));
      return resealed.count;
    } catch (error) {
      if (!(error instanceof SealError)) throw error;
      throw new SettingsError('wrong-key', `a secret of ${name} can't be sealed anew: ${error.message}`, [], { cause: error });
    }
  }

  async #contents(tx: KvTransaction, sections: Readonly<Record<string, number>>): Promise<Map<string, unknown>> {
    const contents = new Map<string, unknown>();
    for (const [name, row] of await readRows(tx, sections)) if (row) contents.set(name, tryDecode(name, row));
    return contents;
  }
}

/** Contents that can't be read are the bytes themselves: no schema takes them, so they can only be replaced. */
function tryDecode(name: string, row: Buffer): unknown {
  try {
    return decodeSection(name, row);
  } catch {
    return row;
  }
}

/** A version that an earlier run of this very transaction has committed after all. */
async function findOwn(tx: KvTransaction, tried: ReadonlySet<number>, changeId: string) {
  for (const version of tried) {
    const value = await tx.get(versionKey(version));
    const record = value && decodeVersion(version, value);
    if (record?.changeId === changeId) return record;
  }
  return undefined;
}

/** Takes away versions beyond the limit, and the contents that only they named; the marker goes with them (TRAPS 9). Answers the new floor. */
async function truncate(tx: KvTransaction, head: Head, version: number): Promise<number> {
  const floor = Math.max(head.floor, version - settingsLimits.maxVersions + 1);
  if (floor === head.floor) return floor;
  const { begin, end } = versionRange(head.floor, floor);
  const oldest = await tx.get(versionKey(floor));
  tx.clearRange(begin, end);
  for (const [name, needed] of Object.entries(oldest ? decodeVersion(floor, oldest).sections : {})) {
    const old = sectionRange(name, 0, needed);
    tx.clearRange(old.begin, old.end);
  }
  return floor;
}

function checkedSection(name: string, contents: unknown): Buffer {
  const encoded = encodeSection(contents);
  if (encoded.length <= settingsLimits.maxSectionBytes) return encoded;
  throw new SettingsError(
    'too-large',
    `the section ${name} would take ${encoded.length} bytes; at most ${settingsLimits.maxSectionBytes} fit`,
  );
}

const cut = (who: string, comment: string) => ({
  who: who.slice(0, settingsLimits.maxWhoCharacters),
  comment: comment.slice(0, settingsLimits.maxCommentCharacters),
});

function publicVersion({ version, atMs, who, comment, changes, unlistedChanges, rollbackTo }: SettingsVersion): SettingsVersion {
  return { version, atMs, who, comment, changes, unlistedChanges, ...(rollbackTo !== undefined && { rollbackTo }) };
}

function versionChanged(expected: number, head: Head): SettingsError {
  const now = head.version === 0 ? 'nothing was ever set' : `they are at version ${head.version}`;
  return new SettingsError(
    'version-changed',
    `the settings are no longer at version ${expected}: ${now}; look again, then repeat the change`,
  );
}

function noSuchVersion(version: number): SettingsError {
  return new SettingsError(
    'no-such-version',
    `there is no version ${version} of the settings (the last ${settingsLimits.maxVersions} are kept)`,
  );
}
