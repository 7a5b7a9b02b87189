import { chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { systemRandom } from '../../ops/telemetry/index.js';
import { checkConfig } from '../config/load.js';
import type { ConfigInput } from '../config/schema.js';
import { loadClusterKeys } from './cluster-key.js';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'starling-key-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const keyOf = (fill: number) => Buffer.alloc(32, fill).toString('base64');
const keyFile = (text: string, mode = 0o600) => {
  const file = join(folder, 'given.key');
  writeFileSync(file, text);
  chmodSync(file, mode);
  return file;
};

function load(input: ConfigInput = {}, more: { env?: NodeJS.ProcessEnv; isStoreSealed?: boolean } = {}) {
  const config = checkConfig({ data: join(folder, 'data'), ...input });
  return loadClusterKeys({ config, isStoreSealed: false, random: systemRandom, env: {}, ...more }).map((key) => key[0]);
}

const shared: ConfigInput = { store: { backend: 'foundationdb' } };

describe('the cluster key', () => {
  it('comes from the local file, a file of its own, the environment, in this order', () => {
    const env = { STARLING_CLUSTER_KEY: keyOf(1) };
    expect(load({ clusterKey: keyOf(2) }, { env })).toEqual([2]);
    expect(load({ clusterKeyFile: keyFile(`${keyOf(3)}\n${keyOf(4)}\n`) }, { env })).toEqual([3, 4]);
    expect(load(shared, { env })).toEqual([1]);
    expect(readdirSync(folder)).toEqual(['given.key']);
  });

  it('is made once beside an embedded store, for its user alone', () => {
    const file = join(folder, 'data', 'cluster.key');
    const made = load();
    expect(statSync(file).mode & 0o777).toBe(0o600);
    expect(Buffer.from(readFileSync(file, 'utf8'), 'base64')).toHaveLength(32);
    expect(load({}, { isStoreSealed: true })).toEqual(made);
    expect(readdirSync(join(folder, 'data'))).toEqual(['cluster.key']);
  });

  it('is not made where the store is sealed with another already', () => {
    expect(() => load({}, { isStoreSealed: true })).toThrow(/cluster\.key is not there, but the secrets/);
    expect(existsSync(join(folder, 'data'))).toBe(false);
  });

  it('must be given where nodes share the store', () => {
    expect(() => load(shared)).toThrow(
      /^nodes that share a store need the cluster key: make one with 'starling cluster-key'[^\n]+$/,
    );
    expect(() => load(shared, { env: { STARLING_CLUSTER_KEY: '' } })).toThrow(/need the cluster key/);
  });

  it('is refused when everybody on the machine may read it, is none, or can not be read; never quoted', () => {
    for (const mode of [0o644, 0o604, 0o602])
      expect(() => load({ clusterKeyFile: keyFile(keyOf(1), mode) })).toThrow(/open to everybody on this machine: chmod 600/);
    expect(load({ clusterKeyFile: keyFile(keyOf(1), 0o640) })).toEqual([1]);
    expect(() => load({ clusterKeyFile: keyFile('s3cret') })).toThrow(/given\.key is no cluster key: (?!.*s3cret)/);
    expect(() => load({ clusterKey: 's3cret' })).toThrow(/^clusterKey is no cluster key: (?!.*s3cret)/);
    expect(() => load({}, { env: { STARLING_CLUSTER_KEY: 's3cret' } })).toThrow(
      /^STARLING_CLUSTER_KEY is no cluster key: (?!.*s3cret)/,
    );
    expect(() => load({ clusterKeyFile: join(folder, 'absent') })).toThrow(/can't read the cluster key: ENOENT/);
  });
});
