/** What the programs of this room share in reading their command lines. */

/** The command was not understood; exit code 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** `text` as a whole number within the bounds. Throws `UsageError`, which calls it `name`. */
export function wholeNumber(text: string, name: string, minimum: number, maximum: number): number {
  const value = /^\d{1,10}$/.test(text) ? Number(text) : Number.NaN;
  if (!(value >= minimum && value <= maximum))
    throw new UsageError(`${name} takes a whole number from ${minimum} to ${maximum}, not '${text}'`);
  return value;
}
