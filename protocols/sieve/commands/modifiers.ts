/** RFC 5229 4.1: what is done to a value before it is stored. Of `set` (RFC 5229) and `extracttext` (RFC 5703). */
import type { Arguments, TagSpec } from '../contract.js';

/** Two of one precedence, which is their group, exclude one another. */
export const modifierTags: Readonly<Record<string, TagSpec>> = {
  lower: { group: 'modifier 40' },
  upper: { group: 'modifier 40' },
  lowerfirst: { group: 'modifier 30' },
  upperfirst: { group: 'modifier 30' },
  quotewildcard: { group: 'modifier 20' },
  quoteregex: { group: 'modifier 20', requires: 'regex' },
  encodeurl: { group: 'modifier 15', requires: 'enotify' },
  length: { group: 'modifier 10' },
};

/** In the order in which they are applied: the highest precedence first. */
const modifiers: readonly (readonly [string, (value: string) => string])[] = [
  ['lower', (value) => value.toLowerCase()],
  ['upper', (value) => value.toUpperCase()],
  ['lowerfirst', (value) => withFirst(value, (first) => first.toLowerCase())],
  ['upperfirst', (value) => withFirst(value, (first) => first.toUpperCase())],
  ['quotewildcard', (value) => value.replace(/[*?\\]/g, '\\$&')],
  ['quoteregex', (value) => value.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')],
  ['encodeurl', encodeUrl],
  ['length', (value) => String(countCharacters(value))],
];

/** What the modifiers that are given make of a value; undefined when there are none. */
export function modifierOf(arguments_: Arguments): ((value: string) => string) | undefined {
  const used = modifiers.filter(([tag]) => arguments_.hasTag(tag)).map(([, modify]) => modify);
  return used.length === 0 ? undefined : (value) => used.reduce((result, modify) => modify(result), value);
}

function withFirst(value: string, change: (first: string) => string): string {
  const code = value.codePointAt(0);
  if (code === undefined) return value;
  const first = String.fromCodePoint(code);
  return change(first) + value.slice(first.length);
}

/** RFC 5435 6: everything but the unreserved characters of RFC 3986, as UTF-8. */
function encodeUrl(value: string): string {
  return encodeURIComponent(Buffer.from(value).toString()).replace(
    /[!'()*]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

function countCharacters(value: string): number {
  let count = 0;
  for (const _ of value) count++;
  return count;
}
