/** `serve` and `quickstart`: a node in the foreground until it is told to stop. */
import { readFileSync } from 'node:fs';
import { parse } from 'smol-toml';
import { createLogger } from '../../ops/telemetry/index.js';
import { ConfigError, checkConfig, loadConfig } from '../config/load.js';
import { quickstartConfig } from '../config/quickstart.js';
import type { Config, ConfigInput } from '../config/schema.js';
import { type RunningNode, startNode } from '../main.js';
import { prepareQuickstart, quickstartGreeting } from '../quickstart.js';
import { parseArguments, UsageError, wholeNumber } from './arguments.js';

/** Runs until SIGTERM, SIGINT or `node drain`; a second signal ends at once. Returns the exit code. */
async function runUntilStopped(
  config: Config,
  started: (node: RunningNode) => Promise<void> | void,
  isHeldBack = false,
): Promise<number> {
  const logger = createLogger({ level: config.log.level });
  const node = await startNode(config, { logger, isHeldBack });
  let signals = 0;
  const onSignal = (signal: NodeJS.Signals) => {
    if (++signals > 1) {
      logger.warn({ signal }, 'second signal: ending at once');
      process.exit(1);
    }
    logger.info({ signal }, 'told to stop');
    node.drain();
  };
  process.on('SIGTERM', onSignal);
  process.on('SIGINT', onSignal);
  await started(node);
  await node.stopped;
  return 0;
}

/** `starling serve --config FILE`. */
export async function runServe(args: string[]): Promise<number> {
  const { values } = parseArguments(args, { config: { type: 'string' }, data: { type: 'string' } });
  if (values.config === undefined) throw new UsageError('serve takes --config FILE');
  const config = loadConfig(values.config);
  if (config.listeners.length === 0) throw new ConfigError(`${values.config} names no listeners`);
  return runUntilStopped({ ...config, data: values.data ?? config.data }, () => {
    process.stdout.write('ready\n');
  });
}

function readOverrides(file: string | undefined): Partial<ConfigInput> {
  if (file === undefined) return {};
  try {
    return parse(readFileSync(file, 'utf8')) as Partial<ConfigInput>;
  } catch (error) {
    throw new ConfigError(`can't use ${file}: ${(error as Error).message}`, { cause: error });
  }
}

/** `starling quickstart`, which is what `npm start` runs. */
export async function runQuickstart(args: string[]): Promise<number> {
  const { values } = parseArguments(args, {
    data: { type: 'string', default: './data' },
    'port-offset': { type: 'string', default: '0' },
    password: { type: 'string' },
    config: { type: 'string' },
  });
  const portOffset = wholeNumber(values['port-offset'], '--port-offset', 0, 60_000);
  const overrides = readOverrides(values.config);
  const config = checkConfig(quickstartConfig(values.data, portOffset, overrides), values.config ?? 'quickstart');
  return runUntilStopped(
    config,
    async (node) => {
      const accounts = await prepareQuickstart(node.stores, config.data, values.password);
      node.setReady();
      process.stdout.write(quickstartGreeting(config, accounts, values.password !== undefined));
    },
    true,
  );
}
