/**
 * What the operations of `settings-operations.ts` do. Apart from their table, for all schemas and their expressions come along, which half a second of a command
 * would go for.
 */
import {
  type ChangeResult,
  isKnownPath,
  isSecretPath,
  parsePath,
  SettingsError,
  secretMask,
  sectionSchemas,
  valueAt,
} from '../../store/settings/index.js';
import { ConfigError, parseToml } from '../config/load.js';
import { resealInstallationSecrets } from '../installation.js';
import { type NodeSettings, sectionsReadAtStart, settingsRegistry } from '../settings/sections.js';
import { listFlag, operatorOf, textFlag as text, wholeNumber } from './flags.js';
import { type Operation, type OperationArguments, type OperationContext, OperationRefused } from './operation.js';

const list = (value: OperationArguments['flags'][string]) => listFlag(value) ?? [];

function changeOptions(args: OperationArguments) {
  const { flags } = args;
  const expected = text(flags['expected-version']);
  return {
    who: operatorOf(args),
    comment: text(flags['comment']) ?? '',
    ...(expected !== undefined && { expectedVersion: wholeNumber(expected, '--expected-version') }),
  };
}

/** Complaints about settings are answers, not failures. */
function answering(
  run: (settings: NodeSettings, args: OperationArguments, stores: OperationContext['stores']) => Promise<unknown>,
): Operation['run'] {
  return async ({ stores }, args) => {
    try {
      return await run(stores.settings, args, stores);
    } catch (error) {
      if (error instanceof SettingsError || error instanceof ConfigError)
        throw new OperationRefused(error.message, { cause: error });
      throw error;
    }
  };
}

/** `PATH=VALUE`, split at the first `=` outside of quotes. */
function assignment(argument: string): { path: string; value: string } {
  const [, path, value] = /^((?:[^="]|"(?:[^"\\]|\\.)*")+)=(.*)$/s.exec(argument) ?? [];
  // Nothing is quoted: somebody may have written a secret.
  if (path === undefined || value === undefined) throw new OperationRefused('a setting is given as PATH=VALUE');
  return { path: path.trim(), value };
}

/** A TOML or JSON value; a single word that is neither stands for itself. */
function literal(path: string, value: string): unknown {
  try {
    return (parseToml(`value = ${value}\n`, path) as { value: unknown }).value;
  } catch {
    // Perhaps JSON, or a word.
  }
  try {
    return JSON.parse(value);
  } catch {
    if (/^[\p{L}\d][\p{L}\d._:@/-]*$/u.test(value)) return value;
    throw new OperationRefused(
      `${path}: the value is neither TOML nor JSON; text with spaces or signs needs quotes: '${path}="…"'`,
    );
  }
}

function assignments({ positionals, flags }: OperationArguments) {
  const plain = positionals.map(assignment).map(({ path, value }) => {
    const parsed = literal(path, value);
    if (isSecretPath(settingsRegistry, path) && parsed !== secretMask)
      throw new OperationRefused(
        `${path} is a secret: give it with --secret-file ${path}=FILE (- for standard input), not as an argument`,
      );
    return { path, value: parsed };
  });
  const secret = list(flags['secret']).map(assignment);
  for (const { path } of secret) {
    if (!isSecretPath(settingsRegistry, path)) throw new OperationRefused(`${path} is no secret: give it as ${path}=VALUE`);
  }
  const all = [...plain, ...secret];
  if (all.length === 0) throw new OperationRefused('nothing to set: give PATH=VALUE or --secret-file PATH=FILE');
  return all;
}

async function show(settings: NodeSettings, { positionals, flags }: OperationArguments): Promise<unknown> {
  const version = text(flags['version']);
  const shown =
    version !== undefined
      ? (await settings.show(wholeNumber(version, '--version'))).sections
      : flags['changed'] === true
        ? settings.explicit()
        : settings.current;
  const [path] = positionals;
  if (path === undefined) return shown;
  if (!isKnownPath(settingsRegistry, path)) throw new OperationRefused(`there is no setting ${path}`);
  return valueAt(shown, parsePath(path)) ?? null;
}

/** A change whose effect must be waited for says so. */
async function changed(change: Promise<ChangeResult>): Promise<ChangeResult & { note?: string }> {
  const result = await change;
  const late = sectionsReadAtStart.filter((name) =>
    result.changes.some(({ path }) => path === name || path.startsWith(`${name}.`)),
  );
  if (late.length === 0) return result;
  return { ...result, note: `${late.join(', ')}: a node takes this up when it is started again` };
}

/** By the second word of the operation's name. */
export const settingsRuns = {
  show: answering(show),
  set: answering((settings, args) => changed(settings.change({ set: assignments(args) }, changeOptions(args)))),
  unset: answering(async (settings, args) => {
    const [path] = args.positionals;
    if (!isKnownPath(settingsRegistry, path!)) throw new OperationRefused(`there is no setting ${path}`);
    return changed(settings.change({ unset: [path!] }, changeOptions(args)));
  }),
  apply: answering(async (settings, args) => {
    const sections = parseToml(text(args.flags['text']) ?? '', args.positionals[0]!) as Record<string, unknown>;
    return changed(settings.change({ replace: sections }, changeOptions(args)));
  }),
  history: answering(async (settings, { flags }) => {
    const versions = await settings.history({ limit: Number(text(flags['limit']) ?? '20') });
    return versions.map(({ atMs, ...version }) => ({ ...version, at: new Date(atMs).toISOString() }));
  }),
  rollback: answering((settings, args) =>
    changed(settings.rollback(wholeNumber(args.positionals[0]!, 'a version'), changeOptions(args))),
  ),
  reseal: answering(async (settings, _args, stores) => {
    const { kv, sealer, directory } = stores;
    const counts = [await resealInstallationSecrets(kv, sealer), await settings.reseal(), await directory.resealSecrets()];
    return { resealed: counts.reduce((sum, count) => sum + count, 0) };
  }),
  schema: async () => sectionSchemas(settingsRegistry),
} satisfies Record<string, Operation['run']>;
