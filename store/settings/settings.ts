/** The settings of the whole cluster as one node sees and changes them. */
import { type Clock, counter, gauge, type Logger, type Random } from '../../ops/telemetry/index.js';
import type { KvStore } from '../kv/contract.js';
import { Catalogue, type Contents } from './catalogue.js';
import {
  type ChangeOptions,
  type ChangeResult,
  type Sections,
  type Settings,
  type SettingsEdit,
  SettingsError,
  type SettingsListener,
  type SettingsOf,
  type SettingsRegistry,
  type SettingsVersion,
  type ShownVersion,
  settingsLimits,
} from './contract.js';
import { followKey } from './follow.js';
import { checkClusterKey, type Precondition } from './key-check.js';
import { Reading } from './reading.js';
import { headKey } from './records.js';
import type { Sealer } from './seal.js';
import type { Snapshot } from './snapshot.js';
import { type NewVersion, Versions } from './versions.js';

const versionGauge = gauge('starling_settings_version', 'Version of the cluster-wide settings that this node works with.');
/** `result`: `accepted`, `unchanged`, or the code of the refusal. */
const changesTotal = counter('starling_settings_changes_total', 'Changes of settings asked of this node, by how they ended.', [
  'result',
]);
const listenerFailures = counter('starling_settings_listener_failures_total', 'Listeners for changed settings that threw.');

const defaultPollIntervalMs = 5_000;

export interface SettingsOptions<S extends Sections> {
  kv: KvStore;
  clock: Clock;
  random: Random;
  logger: Logger;
  sealer: Sealer;
  registry: SettingsRegistry<S>;
  /** Asked in the transaction of the first write. */
  precondition?: Precondition;
  /** How often the store is asked when no watch fires. Default 5,000. */
  pollIntervalMs?: number;
}

/** Reads the settings, after it has made sure of the cluster key. Throws `SettingsError` (`wrong-key`), KvError. */
export async function openSettings<S extends Sections>(options: SettingsOptions<S>): Promise<Settings<S>> {
  await checkClusterKey(options.kv, options.sealer, options.precondition);
  const settings = new StoredSettings(options);
  await settings.refresh();
  return settings;
}

/** Checks an edit against an empty installation, without a store: for a file that will be applied later. Throws `SettingsError`. */
export function checkFirstSettings<S extends Sections>(registry: SettingsRegistry<S>, edit: SettingsEdit, sealer: Sealer): void {
  new Catalogue(registry).edited(new Map(), edit, sealer);
}

class StoredSettings<S extends Sections> implements Settings<S> {
  readonly #options: SettingsOptions<S>;
  readonly #catalogue: Catalogue<S>;
  readonly #reading: Reading<S>;
  readonly #versions: Versions<S>;
  readonly #listeners = new Set<SettingsListener<S>>();
  #snapshot: Snapshot<S>;
  /** Reads follow one another, so that an older one never replaces a newer one. */
  #lastRefresh: Promise<unknown> = Promise.resolve();
  #unfollow: (() => Promise<void>) | undefined;

  constructor(options: SettingsOptions<S>) {
    this.#options = options;
    this.#catalogue = new Catalogue(options.registry);
    const parts = { ...options, catalogue: this.#catalogue };
    this.#reading = new Reading(parts);
    this.#versions = new Versions(parts);
    this.#snapshot = this.#reading.current;
  }

  get current(): SettingsOf<S> {
    return this.#snapshot.values;
  }

  get version(): number {
    return this.#snapshot.version;
  }

  opened<Name extends keyof S>(name: Name): SettingsOf<S>[Name] {
    return this.#snapshot.opened(name);
  }

  explicit(): Record<string, unknown> {
    return this.#snapshot.explicit();
  }

  onChange(listener: SettingsListener<S>): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  change(edit: SettingsEdit, options: ChangeOptions): Promise<ChangeResult> {
    return this.#write({ ...options, next: (base: Contents) => this.#catalogue.edited(base, edit, this.#options.sealer) });
  }

  rollback(version: number, options: ChangeOptions): Promise<ChangeResult> {
    return this.#write({
      ...options,
      rollbackTo: version,
      next: async (base, tx) =>
        this.#catalogue.restored(base, await this.#versions.contentsOf(tx, version), this.#options.sealer),
    });
  }

  history(options: { limit?: number } = {}): Promise<SettingsVersion[]> {
    return this.#versions.history(options.limit ?? settingsLimits.maxVersions);
  }

  show(version: number): Promise<ShownVersion> {
    return this.#versions.show(version);
  }

  refresh(options: { atLeastVersion?: bigint } = {}): Promise<void> {
    const refreshed = this.#lastRefresh.then(() => this.#read(options.atLeastVersion));
    this.#lastRefresh = refreshed.catch(() => undefined);
    return refreshed;
  }

  reseal(): Promise<number> {
    return this.#versions.reseal();
  }

  follow(): void {
    const { kv, clock, logger, pollIntervalMs = defaultPollIntervalMs } = this.#options;
    this.#unfollow ??= followKey({ kv, clock, logger, key: headKey, pollIntervalMs, refresh: () => this.refresh() });
  }

  async close(): Promise<void> {
    await this.#unfollow?.();
    await this.#lastRefresh;
  }

  async #write(input: Omit<NewVersion, 'changeId'>): Promise<ChangeResult> {
    const { random, logger } = this.#options;
    try {
      const { value, version } = await this.#versions.write({ ...input, changeId: random.bytes(16).toString('hex') });
      changesTotal.inc({ result: value.isChanged ? 'accepted' : 'unchanged' });
      if (value.isChanged) {
        const paths = value.changes.map(({ path }) => path);
        logger.info({ version: value.version, who: input.who, comment: input.comment, paths }, 'settings changed');
        // It is committed whatever comes now; a store that goes away meanwhile is read again later.
        await this.refresh({ atLeastVersion: version }).catch((error: unknown) =>
          logger.warn({ err: error }, 'changed settings can not be read yet'),
        );
      }
      return value;
    } catch (error) {
      changesTotal.inc({ result: error instanceof SettingsError ? error.code : 'failed' });
      throw error;
    }
  }

  async #read(atLeastVersion: bigint | undefined): Promise<void> {
    const next = await this.#reading.next(atLeastVersion);
    if (!next) return;
    const before = this.#snapshot;
    this.#snapshot = next;
    versionGauge.set(next.version);
    const changed = next.changedSince(before);
    if (changed.length === 0) return;
    for (const listener of [...this.#listeners]) this.#tell(listener, before, changed);
  }

  #tell(listener: SettingsListener<S>, before: Snapshot<S>, changed: readonly string[]): void {
    const failed = (error: unknown) => {
      listenerFailures.inc();
      this.#options.logger.error({ err: error, changed }, 'a part of this node could not take the changed settings');
    };
    try {
      const taking = listener(this.#snapshot.values, before.values, changed);
      if (taking) taking.catch(failed);
    } catch (error) {
      failed(error);
    }
  }
}
