/** Paths into settings: `smtp.maxRecipients`, `routes."example.org".host`. Reads, writes and compares trees of plain values without changing them. */
import { isDeepStrictEqual } from 'node:util';
import { SettingsError, settingsLimits } from './contract.js';

type Tree = Record<string, unknown>;

const segment = /^(?:([A-Za-z0-9_-]+)|("(?:[^"\\]|\\.)*"))(?:\.|$)/;
const bareSegment = /^[A-Za-z0-9_-]+$/;
/** Keys that mean something to JavaScript. */
const forbiddenKeys = new Set(['__proto__', 'constructor', 'prototype']);

/** The elements of a path. Throws `SettingsError` (`unknown-path`). */
export function parsePath(text: string): string[] {
  const elements: string[] = [];
  let rest = text;
  while (rest !== '' || elements.length === 0) {
    const found = segment.exec(rest);
    if (!found || elements.length >= settingsLimits.maxDepth || (found[0] === rest && rest.endsWith('.')))
      throw new SettingsError('unknown-path', `not a path of a setting: ${text.slice(0, 200)}`);
    const element = found[1] ?? unquoted(found[2]!, text);
    if (forbiddenKeys.has(element)) throw new SettingsError('unknown-path', `not a path of a setting: ${text.slice(0, 200)}`);
    elements.push(element);
    rest = rest.slice(found[0].length);
  }
  return elements;
}

function unquoted(quoted: string, text: string): string {
  try {
    return JSON.parse(quoted) as string;
  } catch {
    throw new SettingsError('unknown-path', `not a path of a setting: ${text.slice(0, 200)}`);
  }
}

export function formatPath(elements: readonly (string | number)[]): string {
  return elements.map((element) => (bareSegment.test(String(element)) ? element : JSON.stringify(element))).join('.');
}

export function isTree(value: unknown): value is Tree {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !Buffer.isBuffer(value);
}

export function getAt(value: unknown, path: readonly string[]): unknown {
  let at = value;
  for (const element of path) {
    if (Array.isArray(at)) at = at[placeIn(at, element)];
    else if (isTree(at) && Object.hasOwn(at, element)) at = at[element];
    else return undefined;
  }
  return at;
}

const placeIn = (list: readonly unknown[], element: string) => (/^\d{1,6}$/.test(element) ? Number(element) : list.length);

/** A copy in which `path` has the value; what is missing on the way is made. Undefined when the way leads through something that has no parts. */
export function withAt(value: unknown, path: readonly string[], newValue: unknown): unknown {
  const [element, ...rest] = path;
  if (element === undefined) return newValue;
  if (Array.isArray(value)) {
    const place = placeIn(value, element);
    if (place >= value.length) return undefined;
    const inner = withAt(value[place], rest, newValue);
    return inner === undefined ? undefined : value.map((one, index) => (index === place ? inner : one));
  }
  if (value !== undefined && !isTree(value)) return undefined;
  const inner = withAt(value?.[element], rest, newValue);
  return inner === undefined ? undefined : { ...value, [element]: inner };
}

/** A copy without what is at `path`, and without the objects that this leaves empty (an empty tree at last). */
export function withoutAt(value: unknown, path: readonly string[]): unknown {
  const [element, ...rest] = path;
  if (element === undefined) return undefined;
  if (Array.isArray(value)) {
    const place = placeIn(value, element);
    if (rest.length === 0) return value.filter((_one, index) => index !== place);
    return value.map((one, index) => (index === place ? (withoutAt(one, rest) ?? one) : one));
  }
  if (!isTree(value) || !Object.hasOwn(value, element)) return value;
  const { [element]: inner, ...others } = value;
  const left = rest.length === 0 ? undefined : withoutAt(inner, rest);
  const isGone = left === undefined || (isTree(left) && Object.keys(left).length === 0 && left !== inner);
  return isGone ? others : { ...others, [element]: left };
}

/**
 * A copy in which everything at `pattern` (`relay.password`, `stores.*.key`) is what `change` makes of it; undefined takes it away. The concrete path is
 * handed to `change`.
 */
export function mapAt(
  value: unknown,
  pattern: readonly string[],
  change: (value: unknown, path: string[]) => unknown,
  path: string[] = [],
): unknown {
  const [element, ...rest] = pattern;
  if (element === undefined) return value === undefined ? undefined : change(value, path);
  if (Array.isArray(value)) {
    if (element !== '*') return value;
    return value.map((one, index) => mapAt(one, rest, change, [...path, String(index)]));
  }
  if (!isTree(value)) return value;
  const names = element === '*' ? Object.keys(value) : Object.hasOwn(value, element) ? [element] : [];
  let copy = value;
  for (const name of names) {
    const inner = mapAt(value[name], rest, change, [...path, name]);
    if (inner === value[name]) continue;
    if (copy === value) copy = { ...value };
    if (inner === undefined) delete copy[name];
    else copy[name] = inner;
  }
  return copy;
}

/** Paths whose values differ. Lists are compared as wholes, objects by their parts. */
export function differences(before: unknown, after: unknown, path: readonly string[] = []): string[][] {
  if (isDeepStrictEqual(before, after)) return [];
  const trees = [before, after].filter((value) => value !== undefined);
  if (!trees.every(isTree) || trees.some((tree) => Object.keys(tree).length === 0 && trees.length === 1)) return [[...path]];
  const [left, right] = [(before ?? {}) as Tree, (after ?? {}) as Tree];
  const names = new Set([...Object.keys(left), ...Object.keys(right)]);
  return [...names].flatMap((name) => differences(left[name], right[name], [...path, name]));
}

/**
 * A deep copy of what JSON can hold; anything else, and keys that mean something to JavaScript, is refused. Throws `SettingsError` (`invalid`). Undefined
 * members are left out.
 */
export function plainCopy(value: unknown, path: readonly string[] = []): unknown {
  const refuse = (message: string) => {
    const where = formatPath(path);
    return new SettingsError('invalid', `${where}: ${message}`, [{ path: where, message }]);
  };
  if (path.length > settingsLimits.maxDepth) throw refuse(`nested deeper than ${settingsLimits.maxDepth}`);
  if (typeof value === 'string' || typeof value === 'boolean' || value === null) return value;
  if (typeof value === 'number') {
    if (Number.isFinite(value)) return value;
    throw refuse('not a finite number');
  }
  if (Array.isArray(value)) return value.map((one, index) => plainCopy(one, [...path, String(index)]));
  const prototype = typeof value === 'object' ? (Object.getPrototypeOf(value) as unknown) : undefined;
  if (prototype !== null && prototype !== Object.prototype) throw refuse('not text, a number, true or false, a list or a table');
  const copy: Tree = {};
  for (const [name, one] of Object.entries(value as Tree)) {
    if (forbiddenKeys.has(name)) throw refuse(`a key may not be called ${name}`);
    if (one !== undefined) copy[name] = plainCopy(one, [...path, name]);
  }
  return copy;
}

/** Freezes a tree through and through. */
export function deepFreeze<T>(value: T): T {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value) || ArrayBuffer.isView(value)) return value;
  for (const one of Object.values(value)) deepFreeze(one);
  return Object.freeze(value);
}
