/** RFC 5703 4.1: what `:type`, `:subtype`, `:contenttype` and `:param` take from structured MIME fields. */
import { decodeEncodedWords, defaultMessageLimits, parseParameterized, unicodeToRaw } from '../../message/index.js';
import type { Arguments, CompileContext, Run } from '../contract.js';
import type { Fields } from './fields.js';

/** Taking parameters apart costs some times what comparing them does. */
const parsedCharsPerStep = 20;

export type MimeValues = (run: Run, fields: readonly Fields[]) => string[];

/**
 * Undefined where none of the options stands.
 * @param onlyCounts fields that have no such value are left out: with `:count`, only those count that could be read.
 */
export function mimeValuesOf(arguments_: Arguments, context: CompileContext, onlyCounts: boolean): MimeValues | undefined {
  const option = arguments_.tagOf('mime-option');
  if (option === undefined) return undefined;
  if (!arguments_.hasTag('mime')) context.fail(`':${option}' needs ':mime'`, arguments_.tagAt(option));
  if (option === 'param') {
    const names = arguments_.texts('param')!;
    return (run, fields) =>
      parameters(
        run,
        fields,
        names.map((name) => name.of(run).toLowerCase()),
      );
  }
  return (_run, fields) => {
    const values = fields.flatMap(({ name, values }) => values.map((value) => aspectOf(option, name, value)));
    return onlyCounts ? values.filter((value) => value !== '') : values;
  };
}

/** Fields that have no such thing give ''. */
function aspectOf(option: string, name: string, raw: string): string {
  if (name !== 'content-type' && name !== 'content-disposition') return '';
  const value = parseParameterized(raw, defaultMessageLimits)
    .value.toLowerCase()
    .replace(/[\t ]+/g, '');
  if (name === 'content-disposition') return option === 'subtype' ? '' : value;
  const parts = /^([^/]+)\/([^/]+)$/.exec(value);
  if (!parts) return '';
  if (option === 'contenttype') return value;
  return option === 'type' ? parts[1]! : parts[2]!;
}

function parameters(run: Run, fields: readonly Fields[], names: readonly string[]): string[] {
  const found: string[] = [];
  for (const { values } of fields) {
    for (const value of values) {
      run.spend(Math.floor(value.length / parsedCharsPerStep));
      const { params } = parseParameterized(value, defaultMessageLimits);
      for (const name of names) if (Object.hasOwn(params, name)) found.push(decodedParameter(params[name]!));
    }
  }
  return found;
}

/** RFC 2047 words in parameters are forbidden, and sent by many. */
function decodedParameter(value: string): string {
  return value.includes('=?') ? decodeEncodedWords(unicodeToRaw(value)) : value;
}
