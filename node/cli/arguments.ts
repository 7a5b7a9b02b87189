/** Command line arguments: one place that turns a wrong one into a usage error (exit code 2). */
import { type ParseArgsConfig, parseArgs } from 'node:util';

/** The command was not understood; exit code 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

type Options = NonNullable<ParseArgsConfig['options']>;

/** `parseArgs` in strict mode whose complaints are `UsageError`s. */
export function parseArguments<O extends Options>(args: string[], options: O) {
  try {
    return parseArgs({ args, options, allowPositionals: true, strict: true });
  } catch (error) {
    throw new UsageError((error as Error).message, { cause: error });
  }
}

/** For commands that take options only. */
export function refusePositionals(command: string, positionals: readonly string[]): void {
  if (positionals.length > 0) throw new UsageError(`${command} takes no '${positionals[0]}'`);
}

/** A whole number from `minimum` to `maximum`. */
export function wholeNumber(text: string, name: string, minimum: number, maximum: number): number {
  const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
  if (!(value >= minimum && value <= maximum))
    throw new UsageError(`${name} takes a whole number from ${minimum} to ${maximum}, not '${text}'`);
  return value;
}
