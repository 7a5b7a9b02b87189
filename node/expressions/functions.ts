/**
 * The functions of expressions that answer by themselves; those that ask the host are in `host-functions.ts`. Each has the signatures that the type
 * checker is told, and may look at its constant arguments once, when the expression is compiled. `text.lower()` is the same as `lower(text)`.
 */
import { RE2JS } from 're2js';
import { expressionLimits } from './contract.js';
import { type Answer, Complaint, type Evaluation, madeText, spend, textSteps, type Value } from './evaluation.js';
import { compileGlob, type Glob } from './glob.js';
import { isInNetwork, networkOf, parseAddress, parseNetwork } from './networks.js';

export type Call = (args: readonly Value[], evaluation: Evaluation) => Answer;

export interface FunctionDefinition {
  /** As the checker writes them; `own` ones it is told, the others it knows. */
  signatures: readonly string[];
  isOwn: boolean;
  /** It asks the host: never folded, may wait. */
  asksHost?: boolean;
  call: Call;
  /** Told the constants among the arguments; answers the call to use. Throws Complaint for constants that can't be. */
  prepare?: (constants: readonly (Value | undefined)[]) => Call;
}

/** `name/number of arguments`; a receiver counts as the first one. */
export type FunctionTable = ReadonlyMap<string, FunctionDefinition>;

/** Signatures of both ways to call: `name(a, b)` and `a.name(b)`. */
export function both(name: string, parameters: readonly string[], result: string): string[] {
  const [first, ...rest] = parameters;
  return [`${name}(${parameters.join(', ')}): ${result}`, `${first}.${name}(${rest.join(', ')}): ${result}`];
}

const text = (value: Value | undefined) => value as string;
const number = (value: Value | undefined) => value as number;
const list = (value: Value | undefined) => value as readonly Value[];

/** Pays for looking at all texts among the arguments. */
function paid(call: Call): Call {
  return (args, evaluation) => {
    let steps = 0;
    for (const value of args) if (typeof value === 'string') steps += textSteps(value.length);
    spend(evaluation, steps);
    return call(args, evaluation);
  };
}

const own = (name: string, parameters: readonly string[], result: string, call: Call): FunctionDefinition => ({
  signatures: both(name, parameters, result),
  isOwn: true,
  call: paid(call),
});
const known = (signatures: readonly string[], call: Call): FunctionDefinition => ({
  signatures,
  isOwn: false,
  call: paid(call),
});

/** Steps of looking for `part`: in the worst case it is compared at every place. Short parts in short texts cost next to nothing. */
const searchSteps = (value: string, part: string) => Math.floor((value.length * part.length) / 1_024);

/** A function that looks for its second text in the first. */
const searching = (signature: string, find: (value: string, part: string) => Value): FunctionDefinition =>
  known([signature], ([value, part], evaluation) => {
    spend(evaluation, searchSteps(text(value), text(part)));
    return find(text(value), text(part));
  });

function domainOf(address: string): string {
  const at = address.lastIndexOf('@');
  return at < 0 ? '' : address.slice(at + 1).toLowerCase();
}

function localPart(address: string): string {
  const at = address.lastIndexOf('@');
  return at < 0 ? address : address.slice(0, at);
}

/** FNV-1a with a final mix: spread evenly, the same on every node and in every release. */
function stableHash(value: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < value.length; i++) hash = Math.imul(hash ^ value.charCodeAt(i), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x7feb352d);
  hash = Math.imul(hash ^ (hash >>> 15), 0x846ca68b);
  return (hash ^ (hash >>> 16)) >>> 0;
}

function codePoints(value: string): number {
  let count = value.length;
  for (let i = 0; i + 1 < value.length; i++)
    if ((value.charCodeAt(i) & 0xfc00) === 0xd800 && (value.charCodeAt(i + 1) & 0xfc00) === 0xdc00) count--;
  return count;
}

function sizeOf(value: Value, evaluation: Evaluation): number {
  if (typeof value !== 'string') return list(value).length;
  spend(evaluation, textSteps(value.length));
  return codePoints(value);
}

function split(value: string, separator: string, evaluation: Evaluation): string[] {
  spend(evaluation, searchSteps(value, separator));
  // Paid before it is made: with an empty separator there are as many pieces as characters.
  let pieces = separator === '' ? value.length : 1;
  if (separator !== '') {
    for (let at = value.indexOf(separator); at >= 0; at = value.indexOf(separator, at + separator.length)) pieces++;
  }
  spend(evaluation, pieces);
  return value.split(separator);
}

function join(items: readonly Value[], separator: string, evaluation: Evaluation): string {
  spend(evaluation, items.length);
  let length = separator.length * Math.max(0, items.length - 1);
  for (const item of items) length += text(item).length;
  spend(evaluation, textSteps(length));
  if (length > expressionLimits.maxStringLength) madeText(' '.repeat(expressionLimits.maxStringLength + 1));
  return items.join(separator);
}

function substring(value: string, from: number, to: number): string {
  if (from < 0 || to < from || to > value.length) throw new Complaint(`substring: the text has ${value.length} characters`);
  return value.slice(from, to);
}

function wholeNumber(value: Value): number {
  if (typeof value === 'number') return value;
  const parsed = /^[+-]?\d{1,16}$/.test(text(value)) ? Number(value) : Number.NaN;
  if (!Number.isSafeInteger(parsed)) throw new Complaint(`int: '${text(value).slice(0, 40)}' is no whole number`);
  return parsed;
}

function compileRegex(pattern: Value | undefined, name: string): RE2JS {
  if (pattern === undefined) throw new Complaint(`${name}: the regular expression must not depend on variables`);
  if (Buffer.byteLength(text(pattern)) > expressionLimits.maxRegexBytes)
    throw new Complaint(`${name}: the regular expression is longer than ${expressionLimits.maxRegexBytes} bytes`);
  let regex: RE2JS;
  try {
    regex = RE2JS.compile(text(pattern));
  } catch (error) {
    const reason = (error as Error).message.replace(/^error parsing regexp: /, '');
    throw new Complaint(`${name}: '${text(pattern).slice(0, 80)}' is no regular expression: ${reason}`, { cause: error });
  }
  if (regex.programSize() > expressionLimits.maxRegexProgram)
    throw new Complaint(`${name}: the regular expression is too large (${regex.programSize()} instructions)`);
  return regex;
}

/** RE2 looks at each character once for every instruction, in the worst case. */
function payRegex(evaluation: Evaluation, value: string, regex: RE2JS): void {
  spend(evaluation, 1 + Math.ceil((value.length * regex.programSize()) / 128));
}

function regexFunction(name: string, result: string, use: (regex: RE2JS, value: string) => Value): FunctionDefinition {
  const prepare = (constants: readonly (Value | undefined)[]): Call => {
    const regex = compileRegex(constants[1], name);
    return (args, evaluation) => {
      payRegex(evaluation, text(args[0]), regex);
      return use(regex, text(args[0]));
    };
  };
  const isMatches = name === 'matches';
  const [plain, method] = both(name, ['string', 'string'], result) as [string, string];
  return {
    signatures: isMatches ? [plain] : [plain, method],
    isOwn: true,
    call: (args, evaluation) => prepare([undefined, args[1]])(args, evaluation),
    prepare,
  };
}

function captures(regex: RE2JS, value: string): string[] {
  const matcher = regex.matcher(value);
  if (!matcher.find()) return [];
  return Array.from({ length: matcher.groupCount() + 1 }, (_, index) => matcher.group(index) ?? '');
}

function globFunction(name: string, result: string, use: (glob: Glob, value: string) => Value): FunctionDefinition[] {
  const prepare = ([, pattern, ignoresCase]: readonly (Value | undefined)[], isShort: boolean): Call => {
    const isConstant = pattern !== undefined && (isShort || ignoresCase !== undefined);
    const ready = isConstant ? compileGlob(text(pattern), ignoresCase === true) : undefined;
    return (args, evaluation) => {
      const value = text(args[0]);
      spend(evaluation, textSteps(value.length) + Math.ceil((value.length * text(args[1]).length) / 256));
      spend(evaluation, textSteps(text(args[1]).length));
      return use(ready ?? compileGlob(text(args[1]), args[2] === true), value);
    };
  };
  return [['string', 'string'] as const, ['string', 'string', 'bool'] as const].map((parameters) => ({
    signatures: both(name, parameters, result),
    isOwn: true,
    call: (args, evaluation) => prepare([], true)(args, evaluation),
    prepare: (constants) => prepare(constants, parameters.length === 2),
  }));
}

function inNetwork(): FunctionDefinition {
  const networksOf = (value: Value) =>
    (typeof value === 'string' ? [value] : list(value)).map((item) => parseNetwork(text(item)));
  const call = (args: readonly Value[], evaluation: Evaluation, ready?: ReturnType<typeof networksOf>) => {
    spend(evaluation, 4 * (typeof args[1] === 'string' ? 1 : list(args[1]).length));
    const address = parseAddress(text(args[0]));
    return address !== undefined && (ready ?? networksOf(args[1]!)).some((network) => isInNetwork(address, network));
  };
  return {
    signatures: [...both('in_network', ['string', 'string'], 'bool'), ...both('in_network', ['string', 'list<string>'], 'bool')],
    isOwn: true,
    call,
    prepare: ([, networks]) => {
      const ready = networks === undefined ? undefined : networksOf(networks);
      return (args, evaluation) => call(args, evaluation, ready);
    },
  };
}

const [glob2, glob3] = globFunction('glob', 'bool', (glob, value) => glob.match(value) !== undefined) as [
  FunctionDefinition,
  FunctionDefinition,
];
const [globCaptures2, globCaptures3] = globFunction(
  'glob_captures',
  'list<string>',
  (glob, value) => glob.match(value) ?? [],
) as [FunctionDefinition, FunctionDefinition];

export const pureFunctions: FunctionTable = new Map<string, FunctionDefinition>([
  ['size/1', known(['size(string): int', 'size(list): int'], ([value], evaluation) => sizeOf(value!, evaluation))],
  ['contains/2', searching('string.contains(string): bool', (value, part) => value.includes(part))],
  ['startsWith/2', known(['string.startsWith(string): bool'], ([value, part]) => text(value).startsWith(text(part)))],
  ['endsWith/2', known(['string.endsWith(string): bool'], ([value, part]) => text(value).endsWith(text(part)))],
  ['trim/1', known(['string.trim(): string'], ([value]) => text(value).trim())],
  ['indexOf/2', searching('string.indexOf(string): int', (value, part) => value.indexOf(part))],
  ['lastIndexOf/2', searching('string.lastIndexOf(string): int', (value, part) => value.lastIndexOf(part))],
  [
    'substring/2',
    known(['string.substring(int): string'], ([value, from]) => substring(text(value), number(from), text(value).length)),
  ],
  [
    'substring/3',
    known(['string.substring(int, int): string'], ([value, from, to]) => substring(text(value), number(from), number(to))),
  ],
  ['string/1', known(['string(int): string', 'string(bool): string', 'string(string): string'], ([value]) => String(value))],
  ['int/1', known(['int(string): int', 'int(int): int'], ([value]) => wholeNumber(value!))],
  ['lower/1', own('lower', ['string'], 'string', ([value]) => madeText(text(value).toLowerCase()))],
  ['upper/1', own('upper', ['string'], 'string', ([value]) => madeText(text(value).toUpperCase()))],
  ['local_part/1', own('local_part', ['string'], 'string', ([value]) => localPart(text(value)))],
  ['domain_of/1', own('domain_of', ['string'], 'string', ([value]) => domainOf(text(value)))],
  ['network_of/1', own('network_of', ['string'], 'string', ([value]) => networkOf(text(value)))],
  ['hash/1', own('hash', ['string'], 'int', ([value]) => stableHash(text(value)))],
  ['min/2', own('min', ['int', 'int'], 'int', ([a, b]) => Math.min(number(a), number(b)))],
  ['max/2', own('max', ['int', 'int'], 'int', ([a, b]) => Math.max(number(a), number(b)))],
  [
    'split/2',
    {
      signatures: ['split(string, string): list<string>'],
      isOwn: true,
      call: paid(([value, separator], evaluation) => split(text(value), text(separator), evaluation)),
    },
  ],
  [
    'join/2',
    {
      signatures: ['join(list<string>, string): string'],
      isOwn: true,
      call: paid(([items, separator], evaluation) => join(list(items), text(separator), evaluation)),
    },
  ],
  ['matches/2', regexFunction('matches', 'bool', (regex, value) => regex.test(value))],
  ['captures/2', regexFunction('captures', 'list<string>', captures)],
  ['glob/2', glob2],
  ['glob/3', glob3],
  ['glob_captures/2', globCaptures2],
  ['glob_captures/3', globCaptures3],
  ['in_network/2', inNetwork()],
]);
