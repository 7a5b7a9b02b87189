/** Opens the cluster's settings for one node, and gives an empty installation its first ones. */
import type { Clock, Logger, Random } from '../../ops/telemetry/index.js';
import type { KvReads, KvStore } from '../../store/kv/index.js';
import {
  checkFirstSettings,
  createSealer,
  hasClusterKey,
  openSettings,
  type Sealer,
  SettingsError,
} from '../../store/settings/index.js';
import { ConfigError, readToml } from '../config/load.js';
import type { Config } from '../config/schema.js';
import { StartError } from '../start-error.js';
import { loadClusterKeys } from './cluster-key.js';
import { type NodeSettings, settingsRegistry } from './sections.js';

/** What an empty installation begins with: section to contents. */
export type FirstSettings = Record<string, unknown>;

type KeyedConfig = Pick<Config, 'data' | 'store' | 'clusterKey' | 'clusterKeyFile'>;

interface SettingsDependencies {
  kv: KvStore;
  clock: Clock;
  random: Random;
  logger: Logger;
  precondition?: (reads: KvReads) => Promise<void>;
}

/** Throws `StartError` when the key is missing or another one's, KvError. */
export async function openNodeSettings(config: KeyedConfig, deps: SettingsDependencies): Promise<NodeSettings> {
  return (await openSealedSettings(config, deps)).settings;
}

/** The same, with what seals and opens secrets: for whoever keeps some of their own. */
export async function openSealedSettings(
  config: KeyedConfig,
  deps: SettingsDependencies,
): Promise<{ settings: NodeSettings; sealer: Sealer }> {
  const isStoreSealed = await hasClusterKey(deps.kv);
  const sealer = createSealer(loadClusterKeys({ config, isStoreSealed, random: deps.random }), deps.random);
  try {
    return { settings: await openSettings({ ...deps, sealer, registry: settingsRegistry }), sealer };
  } catch (error) {
    if (error instanceof SettingsError) throw new StartError(error.message, { cause: error });
    throw error;
  }
}

/** Sections in a TOML file, judged before there is a store. Throws `ConfigError`. */
export function readFirstSettings(file: string, random: Random, defaults: FirstSettings = {}): FirstSettings {
  const first: FirstSettings = { ...defaults };
  for (const [name, given] of Object.entries(readToml(file) as FirstSettings)) {
    const preset = defaults[name];
    const areTables = typeof given === 'object' && typeof preset === 'object';
    first[name] = areTables ? { ...preset, ...given } : given;
  }
  try {
    checkFirstSettings(settingsRegistry, { replace: first }, createSealer([random.bytes(32)], random));
  } catch (error) {
    if (!(error instanceof SettingsError)) throw error;
    throw new ConfigError(`${file} is not valid: ${error.message}`, { cause: error });
  }
  return first;
}

/** Makes version 1 where nothing was ever set. Of several nodes at once one does; the others take what it made. */
export async function applyFirstSettings(
  settings: NodeSettings,
  first: FirstSettings,
  who: string,
  logger: Logger,
): Promise<void> {
  if (Object.keys(first).length === 0) return;
  if (settings.version === 0) {
    try {
      await settings.change({ replace: first }, { who, comment: 'first start', expectedVersion: 0 });
      return;
    } catch (error) {
      if (!(error instanceof SettingsError)) throw error;
      if (error.code !== 'version-changed') throw new StartError(error.message, { cause: error });
      await settings.refresh();
    }
  }
  logger.info({ version: settings.version }, 'this installation has its settings: those for a first start are left aside');
}
