/** Reads the local file (TOML) and says in plain sentences what is wrong with it. */
import { readFileSync } from 'node:fs';
import { parse, TomlError } from 'smol-toml';
import { type Config, type ConfigInput, configSchema } from './schema.js';

/** The file can't be used; `message` is for the person who wrote it. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
}

/** Sections that were in this file once and are settings of the whole cluster now. */
const clusterSections = ['smtp', 'imap', 'outbound', 'directory', 'blobs'];

/** Says where they have gone. */
function refuseClusterSections(input: unknown, where: string): void {
  if (typeof input !== 'object' || input === null) return;
  const found = clusterSections.filter((name) => Object.hasOwn(input, name));
  if (found.length === 0) return;
  const outbound = (input as Record<string, unknown>)['outbound'];
  const hasDnsServers = typeof outbound === 'object' && outbound !== null && Object.hasOwn(outbound, 'dnsServers');
  const dns = hasDnsServers ? '; outbound.dnsServers stays in this file, as dns.servers' : '';
  throw new ConfigError(
    `${where} is not valid: ${found.join(', ')}: these are settings of the whole cluster, kept in its store: move them to a file of their own and run 'starling settings apply FILE'${dns}`,
  );
}

/** Checks settings and fills in defaults. Throws `ConfigError` naming each setting that is wrong. */
export function checkConfig(input: ConfigInput, where = 'configuration'): Config {
  refuseClusterSections(input, where);
  const result = configSchema.safeParse(input);
  if (!result.success) {
    const problems = result.error.issues.map((issue) => `  ${issue.path.join('.') || '(top)'}: ${issue.message}`);
    throw new ConfigError(`${where} is not valid:\n${problems.join('\n')}`);
  }
  const config = result.data;
  if ((config.tls.certificateFile === undefined) !== (config.tls.privateKeyFile === undefined)) {
    throw new ConfigError(`${where} is not valid:\n  tls: certificateFile and privateKeyFile go together`);
  }
  if (config.clusterKey !== undefined && config.clusterKeyFile !== undefined) {
    throw new ConfigError(`${where} is not valid:\n  clusterKey: give it here or in clusterKeyFile, not both`);
  }
  const plainOnly = config.listeners.find(({ protocol, tls }) => protocol === 'http' && tls === 'starttls');
  if (plainOnly) throw new ConfigError(`${where} is not valid:\n  listeners: ${plainOnly.name}: there is no STARTTLS in HTTP`);
  const names = config.listeners.map((listener) => listener.name);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice) throw new ConfigError(`${where} is not valid:\n  listeners: the name ${twice} is used twice`);
  return config;
}

/** Reads a TOML file without judging what is in it. Throws `ConfigError`, which never quotes the file: there may be passwords in it. */
export function readToml(file: string): unknown {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    throw new ConfigError(`can't read ${file}: ${(error as Error).message}`, { cause: error });
  }
  return parseToml(text, file);
}

/** The same of text that is at hand; `where` names it. */
export function parseToml(text: string, where: string): unknown {
  try {
    return parse(text);
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    throw new ConfigError(
      `${where} is not valid TOML (line ${error.line}, column ${error.column}): ${error.message.split('\n')[0]}`,
      {
        cause: error,
      },
    );
  }
}

/** Reads and checks a TOML file; `complete` may add what the command line says. Throws `ConfigError`. */
export function loadConfig(file: string, complete = (input: ConfigInput): ConfigInput => input): Config {
  const input = readToml(file) as ConfigInput;
  refuseClusterSections(input, file);
  return checkConfig(complete(input), file);
}
