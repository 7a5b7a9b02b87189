/** Runs one operation: on the running node through its control socket, else on the store directly. */
import { join } from 'node:path';
import { createLogger } from '../../ops/telemetry/index.js';
import { ControlRefused, callControl, NoNodeRunning } from '../api/control-client.js';
import { type OperationArguments, OperationRefused, operations } from '../api/operations.js';
import { checkConfig, loadConfig } from '../config/load.js';
import { openStores } from '../stores.js';
import { parseArguments, UsageError } from './arguments.js';
import { printResult } from './output.js';

const options = {
  data: { type: 'string' },
  config: { type: 'string' },
  json: { type: 'boolean' },
  password: { type: 'string' },
  name: { type: 'string' },
  alias: { type: 'string', multiple: true },
  member: { type: 'string', multiple: true },
  quota: { type: 'string' },
  admin: { type: 'boolean' },
  limit: { type: 'string' },
  'catch-all': { type: 'string' },
} as const;

/** Runs `argv` as an operation and prints its result. Returns the exit code. */
export async function runOperation(argv: string[]): Promise<number> {
  const { values, positionals } = parseArguments(argv, options);
  const name = positionals.slice(0, 2).join(' ');
  const operation = operations[name];
  if (!operation) throw new UsageError(`no such command: ${name}`);
  const { data: dataOption, config: configFile, json, ...flags } = values;
  const config = configFile ? loadConfig(configFile) : checkConfig({ data: dataOption ?? './data' });
  const data = dataOption ?? config.data;
  const args: OperationArguments = { positionals: positionals.slice(2), flags };
  const missing =
    operation.usage
      .replace(/\[[^\]]*\]/g, '')
      .split(' ')
      .filter((word) => /^[A-Z]/.test(word)).length - args.positionals.length;
  if (missing > 0) throw new UsageError(`starling ${name} ${operation.usage}`);
  try {
    printResult(await perform(name, args, data, config), json ?? false);
    return 0;
  } catch (error) {
    if (!(error instanceof OperationRefused || error instanceof ControlRefused)) throw error;
    if (json) process.stdout.write(`${JSON.stringify({ error: error.message })}\n`);
    else process.stderr.write(`starling: ${error.message}\n`);
    return 1;
  }
}

async function perform(
  name: string,
  args: OperationArguments,
  data: string,
  config: Parameters<typeof openStores>[0],
): Promise<unknown> {
  try {
    return await callControl(join(data, 'control.sock'), name, args);
  } catch (error) {
    if (!(error instanceof NoNodeRunning)) throw error;
  }
  const operation = operations[name]!;
  if (operation.needsNode) throw new OperationRefused(`no node is running on ${data}`);
  const stores = await openStores({ ...config, data }, { logger: createLogger({ level: 'warn' }), createIfAbsent: false });
  try {
    return await operation.run({ stores }, args);
  } finally {
    await stores.close();
  }
}
