/**
 * Settings of the whole cluster: what a section is, what a change is, what came of it. This room knows no mail: the sections are handed in by whoever
 * owns what they are about.
 */
import type { z } from 'zod';

/** One named part of the settings, stored, validated and replaced as a whole. */
export interface SectionDefinition<Schema extends z.ZodType = z.ZodType> {
  /** A strict object in which everything has a default or is optional: `{}` must be valid, because an empty installation has to work. */
  schema: Schema;
  /** For help: one line on what the section is about. */
  description: string;
  /** Paths of the strings that are kept sealed, within the section: `relay.password`, `stores.*.secretKey` (`*`: any key or place). */
  secrets?: readonly string[];
}

export type Sections = Readonly<Record<string, SectionDefinition>>;

/** All sections with their defaults filled in. Deep-frozen; secrets are masked (`Settings.opened` has them). */
export type SettingsOf<S extends Sections> = { readonly [Name in keyof S]: Readonly<z.output<S[Name]['schema']>> };

/** What is wrong with one setting. Never holds a value: it may be a secret. */
export interface SettingsProblem {
  /** `smtp.maxRecipients`; '' for what concerns several. */
  path: string;
  message: string;
}

/** A rule over several sections; answers what is wrong. Secrets are masked. */
export type CrossSectionCheck<S extends Sections> = (settings: SettingsOf<S>) => SettingsProblem[];

/** What the owner of the settings hands in. */
export interface SettingsRegistry<S extends Sections> {
  sections: S;
  checks?: readonly CrossSectionCheck<S>[];
}

/** Stands for a secret wherever settings are shown. Setting a secret to this keeps the one that is there. */
export const secretMask = '••••';

export type SettingsErrorCode =
  /** The settings would not be valid; `problems` has each. */
  | 'invalid'
  /** No such section, or not a path. */
  | 'unknown-path'
  /** Somebody else changed the settings since `expectedVersion`. */
  | 'version-changed'
  /** Never was, or is no longer kept. */
  | 'no-such-version'
  /** Over `settingsLimits`. */
  | 'too-large'
  /** The cluster key is not the one that this store's secrets are sealed with. */
  | 'wrong-key';

/** A refusal; the message is a sentence for the person who asked, and holds no value. */
export class SettingsError extends Error {
  override readonly name = 'SettingsError';
  constructor(
    readonly code: SettingsErrorCode,
    message: string,
    readonly problems: readonly SettingsProblem[] = [],
    options?: { cause?: unknown },
  ) {
    super(message, options);
  }
}

export const settingsLimits = {
  /** One section as it is stored. */
  maxSectionBytes: 80_000,
  /** Versions that are kept, the current one included. */
  maxVersions: 200,
  maxWhoCharacters: 200,
  maxCommentCharacters: 1_000,
  /** Objects and lists in one another. */
  maxDepth: 24,
  /** Changed paths that a version names; the rest is counted. */
  maxListedChanges: 100,
  /** Of one old or new value in a version, as JSON. */
  maxListedValueCharacters: 200,
} as const;

/** One setting that a version changed. Absent: it was, or is, the default. Secrets are masked, long values cut. */
export interface SettingsChange {
  path: string;
  old?: unknown;
  new?: unknown;
}

/** One accepted change. */
export interface SettingsVersion {
  /** 1, 2, 3, … */
  version: number;
  atMs: number;
  who: string;
  comment: string;
  changes: SettingsChange[];
  /** Changes beyond those listed. */
  unlistedChanges: number;
  /** The version whose contents this one brought back. */
  rollbackTo?: number;
}

/** What is to be changed, in this order: whole sections, then what goes back to its default, then single settings. */
export interface SettingsEdit {
  /** Section to its new contents; what is left out goes back to its default. */
  replace?: Readonly<Record<string, unknown>>;
  /** Paths. */
  unset?: readonly string[];
  set?: readonly { path: string; value: unknown }[];
}

export interface ChangeOptions {
  /** A name for the history. */
  who: string;
  comment?: string;
  /** Refuse when the settings are not at this version any more (0: nothing was ever set). */
  expectedVersion?: number;
}

export interface ChangeResult {
  /** The version that holds now. */
  version: number;
  /** False when everything was like that already: no version was made. */
  isChanged: boolean;
  changes: SettingsChange[];
}

/** A version with what had been set in it, secrets masked; defaults are not in it. */
export interface ShownVersion extends SettingsVersion {
  sections: Record<string, unknown>;
}

/** `changed`: paths whose effective value differs, secrets included. What it throws is logged and harms nobody else. */
export type SettingsListener<S extends Sections> = (
  now: SettingsOf<S>,
  before: SettingsOf<S>,
  changed: readonly string[],
) => void | Promise<void>;

export interface Settings<S extends Sections> {
  /** What holds on this node now: one immutable object, swapped as a whole. Read it once per session or message. */
  readonly current: SettingsOf<S>;
  /** Version of `current`; 0 while nothing was ever set. */
  readonly version: number;
  /** A section of `current` with its secrets in plain text: for whoever needs them to log in somewhere, never for showing. Deep-frozen. */
  opened<Name extends keyof S>(name: Name): SettingsOf<S>[Name];
  /** What has been set, secrets masked, without defaults. */
  explicit(): Record<string, unknown>;
  /** Calls `listener` after each swap of `current`; answers how to end that. */
  onChange(listener: SettingsListener<S>): () => void;
  /** Validates everything as it would be and makes a version of it. Throws `SettingsError`, `KvError`. */
  change(edit: SettingsEdit, options: ChangeOptions): Promise<ChangeResult>;
  /** A new version with the contents of an old one, validated again. */
  rollback(version: number, options: ChangeOptions): Promise<ChangeResult>;
  /** Newest first. */
  history(options?: { limit?: number }): Promise<SettingsVersion[]>;
  show(version: number): Promise<ShownVersion>;
  /** Looks at the store now instead of at the next poll; for whoever hears of a change sooner. */
  refresh(options?: { atLeastVersion?: bigint }): Promise<void>;
  /** Seals everything that is kept with the newest cluster key. Harmless to repeat. Answers how many secrets were sealed anew. */
  reseal(): Promise<number>;
  /** From now on other nodes' changes arrive by themselves. */
  follow(): void;
  close(): Promise<void>;
}
