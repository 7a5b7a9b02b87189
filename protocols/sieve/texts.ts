/** The texts of a script as a run sees them: constants, or with variables in them (RFC 5229 3). */
import { type Position, type Run, SieveError, SieveRunError, type StringLiteral, type Text } from './contract.js';
import { decodeEncodedCharacters } from './encoded-characters.js';

export interface TextRules {
  decodesCharacters: boolean;
  expandsVariables: boolean;
  isNamespace(name: string): boolean;
}

/** RFC 5229 3: `${`, names with dots between them, or the number of a match. What has another form is no reference. */
const reference = /\$\{([a-z_][a-z0-9_]{0,127}(?:\.[a-z0-9_]{1,128}){0,8}|[0-9]{1,9})\}/gi;
const setName = /^[a-z_][a-z0-9_]{0,127}(?:\.[a-z_][a-z0-9_]{0,127}){0,8}$/i;
/** Texts as long as this are built before anybody asks what they cost. */
const charsPerStep = 100;

/** @throws SieveError for a variable of an unknown namespace, or a character that is none. */
export function compileText(literal: StringLiteral, rules: TextRules): Text {
  const { at } = literal;
  const value = rules.decodesCharacters ? decodeEncodedCharacters(literal.value, at) : literal.value;
  if (!rules.expandsVariables || !value.includes('${')) return constantText(value, at);
  // Texts at even places, names of variables at odd ones.
  const parts = value.split(reference);
  if (parts.length === 1) return constantText(value, at);
  for (let i = 1; i < parts.length; i += 2) parts[i] = variableKey(parts[i]!, rules, at);
  return { at, of: (run) => expand(parts, run, at) };
}

export function constantText(constant: string, at: Position): Text {
  return { constant, at, of: () => constant };
}

function expand(parts: readonly string[], run: Run, at: Position): string {
  let text = parts[0]!;
  for (let i = 1; i < parts.length; i += 2) {
    text += run.variable(parts[i]!) ?? '';
    text += parts[i + 1]!;
    if (text.length > run.limits.maxTextBytes) throw new SieveRunError('a text has become too long', at);
  }
  run.spend(Math.ceil(text.length / charsPerStep));
  return text;
}

/** As runs know it: lower case, numbers without leading zeros. */
function variableKey(name: string, rules: TextRules, at: Position): string {
  if (/^[0-9]/.test(name)) return String(Number(name));
  const key = name.toLowerCase();
  checkNamespace(key, rules, at);
  return key;
}

function checkNamespace(key: string, rules: TextRules, at: Position): void {
  const dot = key.indexOf('.');
  if (dot >= 0 && !rules.isNamespace(key.slice(0, dot))) {
    throw new SieveError(`no extension that this script requires has variables '${key.slice(0, dot)}.…'`, at);
  }
}

/** The name of a variable that can be set. @throws SieveError */
export function variableNameOf(text: Text, rules: TextRules): string {
  if (text.constant === undefined) throw new SieveError('the name of a variable must be a constant', text.at);
  if (!setName.test(text.constant)) throw new SieveError(`'${text.constant.slice(0, 64)}' is no name of a variable`, text.at);
  const key = text.constant.toLowerCase();
  checkNamespace(key, rules, text.at);
  return key;
}
