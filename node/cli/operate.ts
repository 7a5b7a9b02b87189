/** Runs one operation: on the running node through its control socket, else on the store directly. */
import { join } from 'node:path';
import { KvError } from '../../store/kv/contract.js';
import { ControlRefused, callControl, NoNodeRunning } from '../api/control-client.js';
import {
  type Operation,
  type OperationArguments,
  type OperationContext,
  OperationRefused,
  operations,
} from '../api/operations.js';
import { checkConfig, loadConfig } from '../config/load.js';
import { withLocation } from '../config/location.js';
import type { Config } from '../config/schema.js';
import { StartError } from '../start-error.js';
import { parseArguments, UsageError, wholeNumber } from './arguments.js';
import { banFaces } from './bans.js';
import { explainFaces } from './explain.js';
import type { OperationFace } from './face.js';
import { nodeFaces } from './nodes.js';
import { printHelp, printResult } from './output.js';
import { queueFaces } from './queue.js';
import { settingsFaces } from './settings.js';

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
  'legacy-logins': { type: 'string' },
  deep: { type: 'boolean' },
  repair: { type: 'boolean' },
  limit: { type: 'string' },
  help: { type: 'boolean', short: 'h' },
  'catch-all': { type: 'string' },
  store: { type: 'string' },
  'cluster-key-file': { type: 'string' },
  changed: { type: 'boolean' },
  version: { type: 'string' },
  comment: { type: 'string' },
  'expected-version': { type: 'string' },
  'secret-file': { type: 'string', multiple: true },
  sender: { type: 'string' },
  recipient: { type: 'string' },
  domain: { type: 'string' },
  state: { type: 'string' },
  queue: { type: 'string' },
  'older-than': { type: 'string' },
  text: { type: 'string' },
  after: { type: 'string' },
  all: { type: 'boolean' },
  bounce: { type: 'boolean' },
  note: { type: 'string' },
  host: { type: 'string' },
  port: { type: 'string' },
  via: { type: 'string' },
  back: { type: 'boolean' },
  for: { type: 'string' },
} as const;

const faces = { ...settingsFaces, ...nodeFaces, ...queueFaces, ...explainFaces, ...banFaces };

/** Runs `argv` as an operation and prints its result. Returns the exit code. */
export async function runOperation(argv: string[]): Promise<number> {
  const { values, positionals } = parseArguments(argv, options);
  const { data: dataOption, config: configFile, store, 'cluster-key-file': clusterKeyFile, json, help, ...flags } = values;
  if (help) {
    printHelp();
    return 0;
  }
  const words = Object.hasOwn(operations, positionals[0] ?? '') ? 1 : 2;
  const name = positionals.slice(0, words).join(' ');
  const operation = Object.hasOwn(operations, name) ? operations[name] : undefined;
  if (!operation) throw new UsageError(`no such command: ${name}`);
  const args: OperationArguments = { positionals: positionals.slice(words), flags };
  checkUsage(name, operation, args);
  const location = { store, clusterKeyFile };
  const config = configFile
    ? loadConfig(configFile, (input) => withLocation(input, location))
    : checkConfig(withLocation({ data: dataOption ?? './data' }, location));
  const data = dataOption ?? config.data;
  const face: OperationFace | undefined = faces[name];
  try {
    const result = await perform(name, face?.prepare?.(args) ?? args, data, config);
    if (face?.print && !json) process.stdout.write(`${face.print(result, args)}\n`);
    else printResult(result, json ?? false);
    return 0;
  } catch (error) {
    const isAnswer = [OperationRefused, ControlRefused, StartError, KvError].some((known) => error instanceof known);
    if (!isAnswer || !(error instanceof Error)) throw error;
    if (json) process.stdout.write(`${JSON.stringify({ error: error.message })}\n`);
    else process.stderr.write(`starling: ${error.message}\n`);
    return 1;
  }
}

/** Throws `UsageError` unless the operation takes exactly these arguments and options: what would be ignored was meant otherwise. */
export function checkUsage(name: string, { usage }: Operation, { positionals, flags }: OperationArguments): void {
  const wanted = usage
    .replace(/\[[^\]]*\]/g, '')
    .split(' ')
    .filter((word) => /^[A-Z]/.test(word)).length;
  const optional = usage.includes('[PATH=VALUE ...]')
    ? Number.POSITIVE_INFINITY
    : Array.from(usage.matchAll(/\[[A-Z]+\]/g)).length;
  const known = new Set(Array.from(usage.matchAll(/--([a-z-]+)/g), (match) => match[1]));
  const stranger = Object.keys(flags).find((flag) => !known.has(flag));
  if (positionals.length < wanted || positionals.length > wanted + optional || stranger !== undefined) {
    const problem = stranger === undefined ? '' : ` (it takes no --${stranger})`;
    throw new UsageError(`usage: ${`starling ${name} ${usage}`.trim()}${problem}`);
  }
  if (typeof flags.limit === 'string') wholeNumber(flags.limit, '--limit', 1, 10_000);
}

async function perform(name: string, args: OperationArguments, data: string, config: Config): Promise<unknown> {
  if (operations[name]!.isOffline) return operations[name]!.run({} as OperationContext, args);
  try {
    return await callControl(join(data, 'control.sock'), name, args);
  } catch (error) {
    if (!(error instanceof NoNodeRunning)) throw error;
  }
  const operation = operations[name]!;
  if (operation.needsNode) throw new OperationRefused(`no node is running on ${data}`);
  const [{ openStores }, { createLogger }] = await Promise.all([import('../stores.js'), import('../../ops/telemetry/index.js')]);
  const stores = await openStores({ ...config, data }, { logger: createLogger({ level: 'warn' }), createIfAbsent: false });
  try {
    return await operation.run({ stores }, args);
  } finally {
    await stores.close();
  }
}
