/**
 * What lies in the settings subspace: keys and msgpack records. A version names, for each section, the version in which that section was last written; so a
 * version costs only the sections that it changed.
 */
import { Packr } from 'msgpackr';
import { type KeyRange, key, subspace } from '../keyspace.js';
import type { SettingsVersion } from './contract.js';

const packr = new Packr({ useRecords: false, mapsAsObjects: true });
const formatVersion = 1;

export const headKey: Buffer = key(subspace.settings, 'head');
export const keyCheckKey: Buffer = key(subspace.settings, 'key-check');
export const versionKey = (version: number): Buffer => key(subspace.settings, 'version', version);
export const sectionKey = (name: string, version: number): Buffer => key(subspace.settings, 'section', name, version);
/** The versions from `first` up to, but not including, `end`. */
export const versionRange = (first: number, end: number): KeyRange => ({ begin: versionKey(first), end: versionKey(end) });
export const sectionRange = (name: string, first: number, end: number): KeyRange => ({
  begin: sectionKey(name, first),
  end: sectionKey(name, end),
});

/** Section to the version that wrote it last. */
export type SectionVersions = Record<string, number>;

export interface Head {
  version: number;
  /** Raised with everything that is written here; nodes watch it. */
  generation: number;
  /** Versions below are gone. */
  floor: number;
  sections: SectionVersions;
}

export interface VersionRecord extends SettingsVersion {
  /** Random, chosen before the transaction: tells an own commit whose answer was lost. */
  changeId: string;
  sections: SectionVersions;
}

export const emptyHead: Head = { version: 0, generation: 0, floor: 1, sections: {} };

function unpackFields(what: string, value: Uint8Array): unknown[] {
  const fields = packr.unpack(value) as unknown;
  if (!Array.isArray(fields) || fields[0] !== formatVersion) throw new Error(`unknown format of the ${what}`);
  return fields;
}

export function encodeHead(head: Head): Buffer {
  return packr.pack([formatVersion, head.version, head.generation, head.floor, head.sections]);
}

export function decodeHead(value: Uint8Array | undefined): Head {
  if (!value) return emptyHead;
  const [, version, generation, floor, sections] = unpackFields('settings', value) as [
    number,
    number,
    number,
    number,
    SectionVersions,
  ];
  return { version, generation, floor, sections };
}

export function encodeVersion(record: VersionRecord): Buffer {
  const { atMs, who, comment, changes, unlistedChanges, rollbackTo, changeId, sections } = record;
  const listed = changes.map((change) => [change.path, 'old' in change, change.old, 'new' in change, change.new]);
  return packr.pack([formatVersion, atMs, who, comment, changeId, sections, listed, unlistedChanges, rollbackTo ?? null]);
}

export function decodeVersion(version: number, value: Uint8Array): VersionRecord {
  const [, atMs, who, comment, changeId, sections, listed, unlistedChanges, rollbackTo] = unpackFields(
    `settings version ${version}`,
    value,
  ) as [
    number,
    number,
    string,
    string,
    string,
    SectionVersions,
    [string, boolean, unknown, boolean, unknown][],
    number,
    number | null,
  ];
  const changes = listed.map(([path, hasOld, old, hasNew, new_]) => ({
    path,
    ...(hasOld && { old }),
    ...(hasNew && { new: new_ }),
  }));
  const rollback = rollbackTo === null ? {} : { rollbackTo };
  return { version, atMs, who, comment, changeId, sections, changes, unlistedChanges, ...rollback };
}

/** A section as it was set: plain values, and sealed secrets as bytes, which no plain setting can be. */
export function encodeSection(value: unknown): Buffer {
  return packr.pack([formatVersion, value]);
}

/** Throws when the format is unknown or the bytes are none. */
export function decodeSection(name: string, value: Uint8Array): unknown {
  return unpackFields(`section ${name} of the settings`, value)[1];
}
