/** Operations on the cluster-wide settings. Secrets come in through `flags.secret`, read from files by the command line, and never go out. */
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
import { type Operation, type OperationArguments, type OperationContext, OperationRefused } from './operation.js';

type Flag = OperationArguments['flags'][string];
const text = (value: Flag) => (typeof value === 'string' ? value : undefined);
const list = (value: Flag) => (Array.isArray(value) ? value : []);

const changeFlags = '[--comment TEXT] [--expected-version N]';

function wholeNumber(value: string, what: string): number {
  if (/^\d{1,9}$/.test(value)) return Number(value);
  throw new OperationRefused(`${what} is a whole number, not '${value.slice(0, 40)}'`);
}

function changeOptions({ flags }: OperationArguments) {
  const expected = text(flags['expected-version']);
  return {
    who: text(flags['who']) ?? 'unknown',
    comment: text(flags['comment']) ?? '',
    ...(expected !== undefined && { expectedVersion: wholeNumber(expected, '--expected-version') }),
  };
}

/** Complaints about settings are answers, not failures. */
function operation(
  usage: string,
  summary: string,
  run: (settings: NodeSettings, args: OperationArguments, stores: OperationContext['stores']) => Promise<unknown>,
): Operation {
  return {
    usage,
    summary,
    async run({ stores }: OperationContext, args) {
      try {
        return await run(stores.settings, args, stores);
      } catch (error) {
        if (error instanceof SettingsError || error instanceof ConfigError)
          throw new OperationRefused(error.message, { cause: error });
        throw error;
      }
    },
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

/** By name, two words each. */
export const settingsOperations: Record<string, Operation> = {
  'settings show': operation('[PATH] [--changed] [--version N]', 'settings of the cluster: all, or only what was set', show),
  'settings set': operation(
    `[PATH=VALUE ...] [--secret-file PATH=FILE ...] ${changeFlags}`,
    'change settings; values in TOML or JSON',
    (settings, args) => changed(settings.change({ set: assignments(args) }, changeOptions(args))),
  ),
  'settings unset': operation(`PATH ${changeFlags}`, 'back to the default', async (settings, args) => {
    const [path] = args.positionals;
    if (!isKnownPath(settingsRegistry, path!)) throw new OperationRefused(`there is no setting ${path}`);
    return changed(settings.change({ unset: [path!] }, changeOptions(args)));
  }),
  'settings apply': operation(`FILE ${changeFlags}`, 'replace the sections that a TOML file names', async (settings, args) => {
    const sections = parseToml(text(args.flags['text']) ?? '', args.positionals[0]!) as Record<string, unknown>;
    return changed(settings.change({ replace: sections }, changeOptions(args)));
  }),
  'settings history': operation('[--limit N]', 'versions, newest first', async (settings, { flags }) => {
    const versions = await settings.history({ limit: Number(text(flags['limit']) ?? '20') });
    return versions.map(({ atMs, ...version }) => ({ ...version, at: new Date(atMs).toISOString() }));
  }),
  'settings rollback': operation(`VERSION ${changeFlags}`, 'bring back the contents of an old version', (settings, args) =>
    changed(settings.rollback(wholeNumber(args.positionals[0]!, 'a version'), changeOptions(args))),
  ),
  'settings reseal': operation('', 'seal all secrets with the newest cluster key', async (settings, _args, { kv, sealer }) => ({
    resealed: (await resealInstallationSecrets(kv, sealer)) + (await settings.reseal()),
  })),
  'settings schema': {
    usage: '',
    summary: 'what can be set, as JSON Schema',
    isOffline: true,
    run: async () => sectionSchemas(settingsRegistry),
  },
};
