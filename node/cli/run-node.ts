/** `serve` and `quickstart`: a node in the foreground until it is told to stop. */
import { createLogger, systemRandom } from '../../ops/telemetry/index.js';
import { ConfigError, checkConfig, loadConfig, readToml } from '../config/load.js';
import { type Location, withLocation } from '../config/location.js';
import { quickstartConfig, quickstartSettings } from '../config/quickstart.js';
import type { Config, ConfigInput } from '../config/schema.js';
import { type RunningNode, startNode } from '../main.js';
import { prepareQuickstart, quickstartGreeting } from '../quickstart.js';
import { type FirstSettings, readFirstSettings } from '../settings/index.js';
import { parseArguments, refusePositionals, UsageError, wholeNumber } from './arguments.js';
import { exitOnUncaught, signalHandler } from './signals.js';

/** Told to stop while the store could not be reached. */
class StoppedWaiting extends Error {
  override readonly name = 'StoppedWaiting';
}

/** Runs until SIGTERM, SIGINT or `node drain`; a second signal ends at once. Returns the exit code: 1 for a node that others had declared dead. */
async function runUntilStopped(
  config: Config,
  firstSettings: FirstSettings,
  started: (node: RunningNode) => Promise<void> | void,
  isHeldBack = false,
): Promise<number> {
  const logger = createLogger({ level: config.log.level });
  exitOnUncaught(logger);
  let node: RunningNode | undefined;
  let isStopWanted = false;
  const waiting = new AbortController();
  const onSignal = signalHandler({
    logger,
    isInTerminal: process.stdout.isTTY === true,
    exit: (code) => process.exit(code),
    stop() {
      isStopWanted = true;
      waiting.abort(new StoppedWaiting());
      node?.drain();
    },
  });
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, onSignal);
  try {
    node = await startNode(config, { logger, isHeldBack, firstSettings, signal: waiting.signal });
  } catch (error) {
    if (!(error instanceof StoppedWaiting)) throw error;
    logger.info('stopped before the store could be reached');
    // What the last attempt has left open has nothing in it.
    process.exit(0);
  }
  if (isStopWanted) node.drain();
  else {
    try {
      await started(node);
    } catch (error) {
      // Stopped while it was getting ready: what that broke off is not an error.
      if (!isStopWanted) {
        node.drain();
        await node.stopped;
        throw error;
      }
    }
  }
  await node.stopped;
  return node.isFenced ? 1 : 0;
}

const locationOptions = {
  store: { type: 'string' },
  'cluster-key-file': { type: 'string' },
  settings: { type: 'string' },
} as const;

const locationOf = (values: { store?: string; 'cluster-key-file'?: string }): Location => ({
  store: values.store,
  clusterKeyFile: values['cluster-key-file'],
});

/** `starling serve --config FILE`. */
export async function runServe(args: string[]): Promise<number> {
  const { values, positionals } = parseArguments(args, {
    ...locationOptions,
    config: { type: 'string' },
    data: { type: 'string' },
  });
  refusePositionals('serve', positionals);
  if (values.config === undefined) throw new UsageError('serve takes --config FILE');
  const config = loadConfig(values.config, (input) => withLocation(input, locationOf(values)));
  if (config.listeners.length === 0) throw new ConfigError(`${values.config} names no listeners`);
  const first = values.settings === undefined ? {} : readFirstSettings(values.settings, systemRandom);
  return runUntilStopped({ ...config, data: values.data ?? config.data }, first, () => {
    process.stdout.write('ready\n');
  });
}

/** `starling quickstart`, which is what `npm start` runs. */
export async function runQuickstart(args: string[]): Promise<number> {
  const { values, positionals } = parseArguments(args, {
    ...locationOptions,
    data: { type: 'string', default: './data' },
    'port-offset': { type: 'string', default: '0' },
    password: { type: 'string' },
    config: { type: 'string' },
  });
  refusePositionals('quickstart', positionals);
  const portOffset = wholeNumber(values['port-offset'], '--port-offset', 0, 60_000);
  if (values.password === '') throw new UsageError('--password takes a password; leave it out to have passwords made');
  const overrides = values.config === undefined ? {} : (readToml(values.config) as Partial<ConfigInput>);
  const input = withLocation(quickstartConfig(values.data, portOffset, overrides), locationOf(values));
  const config = checkConfig(input, values.config ?? 'quickstart');
  const first =
    values.settings === undefined ? quickstartSettings : readFirstSettings(values.settings, systemRandom, quickstartSettings);
  return runUntilStopped(
    config,
    first,
    async (node) => {
      const accounts = await prepareQuickstart(node.stores, config.data, values.password);
      node.setReady();
      process.stdout.write(quickstartGreeting(config, accounts, values.password !== undefined));
    },
    true,
  );
}
