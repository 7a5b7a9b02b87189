/**
 * Parses a text and checks its types with the CEL library, and says in our words what is wrong with it. Nothing is evaluated here: the library counts no
 * steps, runs JavaScript's regular expressions and has types that mail has no use for.
 */
import { type ASTNode, Environment } from '@marcbachmann/cel-js';
import { ExpressionError, type ExpressionPosition, type ExpressionType, expressionLimits, type FactName } from './contract.js';
import { factTypes, isFactName } from './facts.js';
import { type FunctionDefinition, pureFunctions } from './functions.js';
import { hostFunctions } from './host-functions.js';

/** A node after the check. */
export type CheckedNode = ASTNode & { checkedType?: { name: string } };

const functions: ReadonlyMap<string, FunctionDefinition> = new Map([...pureFunctions, ...hostFunctions]);

/** `count` arguments, the receiver among them. */
export function findFunction(name: string, count: number): FunctionDefinition | undefined {
  return functions.get(`${name}/${count}`);
}

/** Names of all functions. */
export const functionNames: readonly string[] = [...new Set([...functions.keys()].map((key) => key.split('/')[0]!))];

const base = new Environment({
  limits: {
    maxAstNodes: expressionLimits.maxNodes,
    maxDepth: expressionLimits.maxDepth,
    maxListElements: expressionLimits.maxListElements,
    maxMapEntries: 0,
    maxCallArguments: 8,
  },
});
for (const { signatures, isOwn } of functions.values()) {
  if (!isOwn) continue;
  for (const signature of signatures) base.registerFunction(signature, () => undefined, { async: false });
}

/** One for each set of variables; there are as many sets as stages. */
const environments = new Map<string, Environment>();

function environmentFor(variables: readonly FactName[]): Environment {
  const names = [...new Set(variables)].sort();
  const key = names.join();
  let environment = environments.get(key);
  if (!environment) {
    environment = base.clone();
    for (const name of names) environment.registerVariable(name, factTypes[name]);
    environments.set(key, environment);
  }
  return environment;
}

const typeNames: Record<ExpressionType, string> = { bool: 'bool', int: 'int', string: 'string', strings: 'list<string>' };

/** Makes the positions of one text. */
export type Locate = (offset: number) => ExpressionPosition;

export function locator(source: string, place: string | undefined): Locate {
  return (offset) => {
    const before = source.slice(0, offset);
    const lineStart = before.lastIndexOf('\n') + 1;
    const line = before.split('\n').length;
    return { ...(place !== undefined && { place }), offset, line, column: offset - lineStart + 1 };
  };
}

/** The checked tree of a text that answers `type`. Throws ExpressionError. */
export function parseChecked(source: string, type: ExpressionType, variables: readonly FactName[], locate: Locate): CheckedNode {
  if (Buffer.byteLength(source) > expressionLimits.maxSourceBytes)
    throw new ExpressionError(`the expression is longer than ${expressionLimits.maxSourceBytes} bytes`, locate(0));
  if (source.trim() === '') throw new ExpressionError("an expression is missing (the empty text is '')", locate(0));
  try {
    const parsed = environmentFor(variables).parse(source);
    const { valid, error, type: found } = parsed.check();
    if (!valid) throw error;
    const untyped = untypedSum(parsed.ast);
    if (untyped) throw new ExpressionError('nothing can be added to an empty list', locate(untyped.start));
    const isWanted = found === typeNames[type] || (type === 'strings' && found === 'list<T>');
    if (isWanted) return parsed.ast;
    throw new ExpressionError(`it gives ${found}, but ${typeNames[type]} is wanted here`, locate(0));
  } catch (error) {
    if (error instanceof ExpressionError) throw error;
    throw translated(error, source, locate);
  }
}

/**
 * The library takes `[] + [1]` for a list of anything, and its elements for whatever is wanted: texts, say. An empty list that a sum begins with is the one way
 * to a value of another type than the checked one.
 */
function untypedSum(node: CheckedNode): CheckedNode | undefined {
  if (node.op === '+' && /\bT\b/.test(node.checkedType?.name ?? '')) return node;
  return nodesIn(node.args).reduce<CheckedNode | undefined>((found, child) => found ?? untypedSum(child), undefined);
}

/** The nodes among what a node is made of. */
function nodesIn(args: unknown): CheckedNode[] {
  if (Array.isArray(args)) return args.flatMap(nodesIn);
  return typeof args === 'object' && args !== null && 'op' in args ? [args as CheckedNode] : [];
}

interface LibraryError {
  code?: string;
  summary?: string;
  message: string;
  range?: { start: number };
}

function translated(error: unknown, source: string, locate: Locate): ExpressionError {
  // Too deep a text may also overflow the parser's own stack: the source is short, but the message is the same.
  if (error instanceof RangeError) return new ExpressionError('the expression is nested too deeply', locate(0));
  const { code, summary, message, range } = error as LibraryError;
  const offset = Math.min(range?.start ?? 0, source.length);
  return new ExpressionError(sentence(code ?? '', summary ?? message, offset >= source.trimEnd().length), locate(offset));
}

function sentence(code: string, summary: string, isAtEnd: boolean): string {
  const subject = summary.slice(summary.indexOf(': ') + 2);
  switch (code) {
    case 'unknown_variable':
      if (isFactName(subject)) return `'${subject}' has no value at this stage`;
      return `there is no variable '${subject}' (a text has quotes: '${subject}')`;
    case 'no_such_overload':
      return `${subject}: these types don't go together`;
    case 'no_matching_overload':
      return overloadSentence(/'(.*)'/s.exec(summary)?.[1] ?? summary);
    case 'limit_exceeded': {
      const [, limit, value] = /Exceeded (\w+) \((\d+)\)/.exec(summary) ?? [];
      if (limit === 'maxMapEntries') return 'there are no maps here';
      const what = { maxAstNodes: 'parts', maxDepth: 'levels of nesting', maxListElements: 'elements in a list' }[limit ?? ''];
      return `more than ${value} ${what ?? 'arguments'}`;
    }
    case 'unexpected_token':
      return isAtEnd ? 'the expression ends too early' : 'this is not expected here';
    case 'expected_token':
      return isAtEnd ? 'the expression ends too early' : summary.charAt(0).toLowerCase() + summary.slice(1);
    default:
      return summary.charAt(0).toLowerCase() + summary.slice(1);
  }
}

function overloadSentence(call: string): string {
  const [, receiver, name] = /^(?:(.*?)\.)?([\w]+)\(/s.exec(call) ?? [];
  const signatures = Array.from(functions)
    .filter(([key]) => key.startsWith(`${name}/`))
    .flatMap(([, definition]) => definition.signatures);
  if (signatures.length === 0) return `there is no function '${name ?? call}'${receiver ? ` of ${receiver}` : ''}`;
  return `there is no ${call}, but ${signatures.join(' or ')}`;
}
