/** What the tests of this folder share: messages, and conditions that are asked of them. */
import { headerFields, parseMessage, unfold } from '../../message/index.js';
import { compileSieve, SieveError, type SieveInput, type SieveMessage, type SieveOutcome, sieveExtensions } from '../index.js';

export const allExtensions: ReadonlySet<string> = new Set(sieveExtensions());

/** `text` with line ends of any kind, which become CRLF; bytes stay as they are. */
export function messageOf(text: string | Buffer): SieveMessage {
  const bytes = typeof text === 'string' ? Buffer.from(text.replace(/\r?\n/g, '\r\n')) : text;
  const fields = headerFields(bytes, parseMessage(bytes)).map(({ start, valueStart, end }) => ({
    name: bytes.toString('latin1', start, valueStart - 1).trim(),
    value: unfold(bytes.toString('latin1', valueStart, end)),
  }));
  return { fields, sizeBytes: bytes.length, bytes: (maxBytes) => bytes.subarray(0, maxBytes) };
}

/** A message of one field. */
export const messageWith = (...fields: string[]) => messageOf(`${fields.join('\n')}\n\n`);

export interface RunOptions extends Partial<SieveInput> {
  separator?: string;
  maxSteps?: number;
}

export async function runScript(script: string, { separator, maxSteps, ...input }: RunOptions = {}): Promise<SieveOutcome> {
  const options = {
    extensions: allExtensions,
    ...(separator !== undefined && { subaddressSeparator: separator }),
    ...(maxSteps !== undefined && { limits: { maxSteps } }),
  };
  return await compileSieve(script, options).run({
    envelope: { from: 'tim@example.com', to: ['ken+lists@example.org'] },
    environment: {},
    nowMs: Date.UTC(2026, 10, 23, 8, 5, 9),
    ...input,
  });
}

/** All but `ihave`, which makes the compiler lenient. */
export const requireAll = `require [${[...allExtensions]
  .filter((name) => name !== 'ihave')
  .map((name) => `"${name}"`)
  .join(', ')}];`;

/** Whether a condition holds, in a script that has required everything. */
export async function holds(condition: string, options: RunOptions = {}): Promise<boolean> {
  const { actions } = await runScript(`${requireAll} if ${condition} { discard; }`, options);
  return actions.length > 0;
}

/** What `${0}`, `${1}` … are behind a condition that holds; undefined where it does not. */
export async function matchesOf(condition: string, options: RunOptions = {}): Promise<string[] | undefined> {
  const numbers = [...Array(10).keys()];
  const script = `${requireAll} if ${condition} { fileinto "${numbers.map((number) => `<\${${number}}>`).join('')}"; }`;
  const { actions } = await runScript(script, options);
  const [action] = actions;
  return action?.kind === 'fileinto' ? action.mailbox.slice(1, -1).split('><') : undefined;
}

/** `line:column message` of what is wrong with a script; undefined: nothing. */
export function compileError(script: string): string | undefined {
  try {
    compileSieve(script, { extensions: allExtensions });
    return undefined;
  } catch (error) {
    if (error instanceof SieveError) return `${error.at.line}:${error.at.column} ${error.message}`;
    throw error;
  }
}

/** The same of a condition whose script has required everything. */
export const conditionError = (condition: string) =>
  compileError(`${requireAll} if ${condition} { discard; }`)?.replace(/^\S+ /, '');
