import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { SettingsError } from './contract.js';
import { differences, formatPath, getAt, mapAt, parsePath, plainCopy, withAt, withoutAt } from './paths.js';

describe('paths', () => {
  it('are read as they are written', () => {
    fc.assert(
      fc.property(fc.array(fc.string(), { minLength: 1, maxLength: 5 }), (elements) => {
        fc.pre(!elements.some((element) => ['__proto__', 'constructor', 'prototype'].includes(element)));
        expect(parsePath(formatPath(elements))).toEqual(elements);
      }),
    );
    expect(parsePath('routes."example.org".host')).toEqual(['routes', 'example.org', 'host']);
  });

  it.each(['', '.', 'a.', '.a', 'a..b', 'a b', 'a."b', 'a.__proto__', '"constructor".x', Array(30).fill('a').join('.')])(
    'refuses %j',
    (text) => expect(() => parsePath(text)).toThrow(SettingsError),
  );

  it('get, set and unset without touching the original', () => {
    const tree = { a: { b: [1, { c: 2 }] } };
    const before = structuredClone(tree);
    expect(getAt(tree, ['a', 'b', '1', 'c'])).toBe(2);
    expect(getAt(tree, ['a', 'toString'])).toBeUndefined();
    expect(withAt(tree, ['a', 'b', '1', 'c'], 3)).toEqual({ a: { b: [1, { c: 3 }] } });
    expect(withAt(tree, ['x', 'y'], 1)).toEqual({ ...tree, x: { y: 1 } });
    expect(withAt(tree, ['a', 'b', '2'], 1)).toBeUndefined();
    expect(withAt(tree, ['a', 'b', '0', 'd'], 1)).toBeUndefined();
    expect(withoutAt(tree, ['a', 'b', '0'])).toEqual({ a: { b: [{ c: 2 }] } });
    expect(withoutAt({ a: { b: { c: 1 } }, d: 1 }, ['a', 'b', 'c'])).toEqual({ d: 1 });
    expect(withoutAt({ a: {} }, ['a', 'b'])).toEqual({ a: {} });
    expect(tree).toEqual(before);
  });

  it('map over all that a pattern means', () => {
    const seen: string[] = [];
    const tree = { list: [{ key: 1 }, { other: 2 }], byName: { 'a.b': { key: 3 } }, key: 4 };
    const mapped = ['list.*.key', 'byName.*.key'].reduce<unknown>(
      (value, pattern) =>
        mapAt(value, pattern.split('.'), (_value, path) => {
          seen.push(formatPath(path));
          return undefined;
        }),
      tree,
    );
    expect(seen).toEqual(['list.0.key', 'byName."a.b".key']);
    expect(mapped).toEqual({ list: [{}, { other: 2 }], byName: { 'a.b': {} }, key: 4 });
  });

  it('tell differences by the smallest part, lists as wholes', () => {
    expect(differences({ a: 1, b: { c: 1, d: [1] } }, { a: 1, b: { c: 2, d: [1, 2] }, e: { f: 1 } })).toEqual([
      ['b', 'c'],
      ['b', 'd'],
      ['e', 'f'],
    ]);
    expect(differences({ a: 1 }, { a: { b: 1 } })).toEqual([['a']]);
    expect(differences({}, { a: {} })).toEqual([['a']]);
    expect(differences({ a: Buffer.of(1) }, { a: Buffer.of(1) })).toEqual([]);
    expect(differences({ a: Buffer.of(1) }, { a: Buffer.of(2) })).toEqual([['a']]);
  });

  it('copy only what JSON can hold', () => {
    fc.assert(
      fc.property(fc.jsonValue({ maxDepth: 5 }), (value) => {
        fc.pre(!/"(__proto__|constructor|prototype)"/.test(JSON.stringify(value)));
        expect(JSON.stringify(plainCopy(value))).toBe(JSON.stringify(value));
      }),
    );
    const deep = JSON.parse(`${'['.repeat(100)}${']'.repeat(100)}`) as unknown;
    for (const value of [new Date(), 1n, Number.NaN, () => 1, Buffer.of(1), JSON.parse('{"__proto__": 1}'), deep, undefined])
      expect(() => plainCopy(value)).toThrow(SettingsError);
  });
});
