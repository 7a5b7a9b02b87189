import { describe, expect, it } from 'vitest';
import { describeStoreAddress, parseStoreAddress } from './address.js';

describe('a store address', () => {
  it.each([
    ['embedded:/var/lib/starling/store', { backend: 'embedded', directory: '/var/lib/starling/store' }],
    ['foundationdb:/etc/foundationdb/fdb.cluster', { backend: 'foundationdb', clusterFile: '/etc/foundationdb/fdb.cluster' }],
    ['postgres://a:b@h1:1,h2:2/db', { backend: 'postgres', url: 'postgres://a:b@h1:1,h2:2/db' }],
    ['postgresql://h/db', { backend: 'postgres', url: 'postgresql://h/db' }],
  ])('%s', (text, address) => {
    expect(parseStoreAddress(text)).toEqual(address);
  });

  it('refuses others without quoting them', () => {
    for (const text of ['', 'embedded:', 'mysql://root:s3cret@h/db', '/var/lib'])
      expect(() => parseStoreAddress(text), text).toThrow(
        /^a store is embedded:DIRECTORY, postgres:\/\/… or foundationdb:CLUSTERFILE$/,
      );
  });

  it.each([
    ['postgres://a:s3cr:et@h1:1,h2:2/db', 'postgres://a:***@h1:1,h2:2/db'],
    ['postgres://a:p@ss@h/db', 'postgres://a:***@h/db'],
    ['postgres://a@h/db?password=s3cret&sslmode=require', 'postgres://a@h/db?password=***&sslmode=require'],
    ['postgres://h:5432/db', 'postgres://h:5432/db'],
  ])('hides the password of %s', (url, shown) => {
    expect(describeStoreAddress({ backend: 'postgres', url })).toBe(shown);
  });
});
