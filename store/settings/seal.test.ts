import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { systemRandom } from '../../ops/telemetry/index.js';
import { createSealer, makeClusterKey, parseClusterKeys, SealError, sealOverheadBytes } from './seal.js';

const keyOf = (fill: number) => Buffer.alloc(32, fill);
const sealer = createSealer([keyOf(1)], systemRandom);
const place = { purpose: 'settings', context: 'outbound.relay.password' };
const bytes = fc.uint8Array({ maxLength: 300 });

describe('a sealed secret', () => {
  it('opens to what was sealed, whatever it is', () => {
    fc.assert(
      fc.property(bytes, fc.string(), fc.string(), (plain, purpose, context) => {
        const sealed = sealer.seal(plain, { purpose, context });
        expect(sealed.length).toBe(plain.length + sealOverheadBytes);
        expect(sealer.open(sealed, { purpose, context })).toEqual(Buffer.from(plain));
      }),
    );
  });

  it('does not open when any byte was changed, cut off or added', () => {
    fc.assert(
      fc.property(bytes, fc.nat(), fc.integer({ min: 1, max: 255 }), (plain, at, difference) => {
        const sealed = sealer.seal(plain, place);
        const changed = Buffer.from(sealed);
        changed[at % sealed.length]! ^= difference;
        expect(() => sealer.open(changed, place)).toThrow(SealError);
        expect(() => sealer.open(sealed.subarray(0, at % sealed.length), place)).toThrow(SealError);
        expect(() => sealer.open(Buffer.concat([sealed, Buffer.of(difference)]), place)).toThrow(SealError);
      }),
    );
    const sealed = sealer.seal(Buffer.from('secret'), place);
    for (let at = 0; at < sealed.length; at++) {
      const changed = Buffer.from(sealed);
      changed[at]! ^= 1;
      expect(() => sealer.open(changed, place), `byte ${at}`).toThrow(SealError);
    }
  });

  it('does not open in another place, whichever way purpose and context are put together', () => {
    fc.assert(
      fc.property(fc.string(), fc.string(), fc.string(), fc.string(), (purpose, context, otherPurpose, otherContext) => {
        fc.pre(purpose !== otherPurpose || context !== otherContext);
        const sealed = sealer.seal(Buffer.from('secret'), { purpose, context });
        expect(() => sealer.open(sealed, { purpose: otherPurpose, context: otherContext })).toThrow(SealError);
      }),
    );
    const moved = sealer.seal(Buffer.from('secret'), { purpose: 'ab', context: 'c' });
    expect(() => sealer.open(moved, { purpose: 'a', context: 'bc' })).toThrow(/damaged or was moved/);
  });

  it('is never the same twice, and shows nothing of what is in it', () => {
    const [one, two] = [sealer.seal(Buffer.from('same'), place), sealer.seal(Buffer.from('same'), place)];
    expect(one.equals(two)).toBe(false);
    expect(one.includes('same')).toBe(false);
  });
});

describe('cluster keys', () => {
  it('can be exchanged: the first seals, all open, resealing moves to the first', () => {
    const old = createSealer([keyOf(1)], systemRandom);
    const both = createSealer([keyOf(2), keyOf(1)], systemRandom);
    const fresh = createSealer([keyOf(2)], systemRandom);
    const sealed = old.seal(Buffer.from('secret'), place);
    expect(both.open(sealed, place).toString()).toBe('secret');
    expect(() => fresh.open(sealed, place)).toThrow(expect.objectContaining({ code: 'unknown-key' }));
    const resealed = both.reseal(sealed, place)!;
    expect(fresh.open(resealed, place).toString()).toBe('secret');
    expect(both.reseal(resealed, place)).toBeUndefined();
    expect(fresh.keyId).toBe(both.keyId);
    expect(old.keyId).not.toBe(both.keyId);
  });

  it('are read from base64 and hex, one or several, and refused without being quoted', () => {
    const made = makeClusterKey(systemRandom);
    const hex = Buffer.from(made, 'base64').toString('hex');
    const url = Buffer.from(made, 'base64').toString('base64url');
    for (const text of [made, `${made}\n`, hex, hex.toUpperCase(), url, `# a comment\n\n  ${made} # mine\r\n`])
      expect(parseClusterKeys(text)).toEqual([Buffer.from(made, 'base64')]);
    expect(parseClusterKeys(`${made}\n${hex},${url}`)).toHaveLength(3);
    for (const text of ['', '# nothing', 's3cret', made.slice(1), hex.slice(2), `${made} ${made}`]) {
      expect(() => parseClusterKeys(text)).toThrow(RangeError);
      expect(() => parseClusterKeys(text)).not.toThrow(/s3cret/);
    }
    expect(() => createSealer([], systemRandom)).toThrow(RangeError);
    expect(() => createSealer([Buffer.alloc(31)], systemRandom)).toThrow(RangeError);
  });
});
