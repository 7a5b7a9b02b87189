/** What is wrong with an installation is said in a sentence. Needs neither the client library nor a server. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { afterAll, describe, expect, it } from 'vitest';
import { silentLogger, systemClock, systemRandom } from '../../../ops/telemetry/index.js';
import { KvError } from '../contract.js';
import { parseClusterFile } from './cluster-file.js';
import { type FailedStep, toKvError } from './errors.js';
import { type FoundationDbStoreOptions, openFoundationDbStore } from './index.js';

const directory = mkdtempSync(join(tmpdir(), 'fdb-installation-'));
afterAll(() => rmSync(directory, { recursive: true }));

const good = join(directory, 'fdb.cluster');
writeFileSync(good, 'test:abc123@127.0.0.1:1\n');

async function failure(options: Partial<FoundationDbStoreOptions>): Promise<KvError> {
  const all = { clusterFile: good, logger: silentLogger, clock: systemClock, random: systemRandom, ...options };
  const error = await openFoundationDbStore(all).then(
    () => undefined,
    (reason) => reason,
  );
  expect(error).toBeInstanceOf(KvError);
  return error as KvError;
}

describe('an installation that is not complete', () => {
  it('a missing client library is named, with what to install', async () => {
    const error = await failure({ clientLibrary: join(directory, 'libfdb_c.so') });
    expect([error.code, error.reason]).toEqual(['unavailable', 'io']);
    expect(error.message).toMatch(/client library can't be loaded .*libfdb_c\.so.*install the package foundationdb-clients/);
  });

  it('and again: the failure is not remembered', async () => {
    const error = await failure({ clientLibrary: join(directory, 'other.so') });
    expect(error.message).toMatch(/other\.so/);
  });

  it('a file that is no library is named', async () => {
    const text = join(directory, 'text.so');
    writeFileSync(text, 'not a library');
    expect((await failure({ clientLibrary: text })).message).toMatch(/text\.so/);
  });

  it('a missing cluster file is named', async () => {
    const error = await failure({ clusterFile: join(directory, 'none') });
    expect([error.code, error.reason]).toEqual(['unavailable', 'io']);
    expect(error.message).toMatch(/none can't be used: there is no such file/);
  });

  it('a cluster file that is a directory, too long a path, or nonsense is named', async () => {
    expect((await failure({ clusterFile: directory })).message).toMatch(/can't be read \(EISDIR\)/);
    expect((await failure({ clusterFile: `/${'a'.repeat(1100)}` })).message).toMatch(/longer than 1023 bytes/);
    const nonsense = join(directory, 'nonsense');
    writeFileSync(nonsense, 'nonsense\n');
    expect((await failure({ clusterFile: nonsense })).message).toMatch(/description:id@host:port/);
  });

  it('refuses to work in a worker thread', async () => {
    const code = `
      const { parentPort, workerData } = require('node:worker_threads');
      import(workerData.tsx).then(async ({ tsImport }) => {
        const { startClient } = await tsImport(workerData.client, workerData.client);
        await startClient({}).then(() => parentPort.postMessage('started'), (error) => parentPort.postMessage(error.message));
      }).catch((error) => parentPort.postMessage(String(error)));`;
    const workerData = { tsx: import.meta.resolve('tsx/esm/api'), client: new URL('./client.ts', import.meta.url).href };
    const worker = new Worker(code, { eval: true, workerData });
    const message = await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
    await worker.terminate();
    expect(message).toMatch(/main thread only/);
  });
});

describe('the cluster file', () => {
  const parse = (text: string) => parseClusterFile(text, 'f');

  it('takes comments, several coordinators, TLS, IPv6 and host names', () => {
    expect(parse('# ours\n\nmail:Ab12@10.0.0.1:4500,10.0.0.2:4500:tls,[::1]:4501,db-1.example.org:4500 # end\n')).toEqual({
      name: 'mail:Ab12',
      coordinators: ['10.0.0.1:4500', '10.0.0.2:4500:tls', '[::1]:4501', 'db-1.example.org:4500'],
    });
  });

  it.each([
    '',
    '# only this',
    'a:b',
    'a:b@',
    '@1.2.3.4:4500',
    'a b:c@1.2.3.4:1',
    'a:b@1.2.3.4',
    'a:b@1.2.3.4:0',
    'a:b@1.2.3.4:70000',
    'a:b@1.2.3.4:1,',
  ])('refuses %j', (text) => expect(() => parse(text)).toThrow(KvError));
});

describe('error numbers', () => {
  const predicates = {
    mayHaveCommitted: (code: number) => code === 1021 || code === 1039,
    isRetryable: (code: number) => [1007, 1009, 1020, 1021, 1037, 1039, 1213].includes(code),
  };
  const mapped = (code: number, step: FailedStep = 'commit') =>
    toKvError(Object.assign(new Error('x'), { code }), step, predicates);

  it.each([
    [1020, 'conflict', undefined],
    [1007, 'too-old', undefined],
    [1009, 'too-old', undefined],
    [1037, 'too-old', undefined],
    [1213, 'too-old', undefined],
    [1021, 'commit-unknown', undefined],
    [1039, 'commit-unknown', undefined],
    [1025, 'commit-unknown', undefined],
    [1101, 'commit-unknown', undefined],
    [1031, 'unavailable', 'outage'],
    [1032, 'unavailable', 'outage'],
    [1038, 'unavailable', 'outage'],
    [1510, 'unavailable', 'io'],
    [2101, 'too-large', undefined],
    [2102, 'too-large', undefined],
    [2103, 'too-large', undefined],
  ])('%d is %s', (number, code, reason) => {
    const error = mapped(number);
    expect(error).toBeInstanceOf(KvError);
    expect(error).toMatchObject({ code, reason });
    expect((error as KvError).message).toContain(String(number));
  });

  it('only a commit can be unknown', () => {
    expect(mapped(1039, 'read')).toMatchObject({ code: 'too-old' });
    expect(mapped(1101, 'read')).toMatchObject({ code: 'unavailable' });
  });

  it('leaves other errors and mistakes of the caller as they are', () => {
    const own = new Error('own');
    expect(toKvError(own, 'read', predicates)).toBe(own);
    expect(mapped(2004)).not.toBeInstanceOf(KvError);
  });
});
