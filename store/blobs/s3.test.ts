import { createHash, randomBytes } from 'node:crypto';
import { Writable } from 'node:stream';
import { pino } from 'pino';
import { S3mini } from 's3mini';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { machineHasSwift, SwiftServer } from '../../test-cluster/harness/swift.js';
import { MemoryDatabase } from '../kv/index.js';
import { blobConformance, smallExternal, smallLimits } from './conformance.suite.js';
import type { ExternalBlobOptions, S3Options } from './external.js';
import {
  type Bench,
  gather,
  keyCounts,
  linkTo,
  objectsOf,
  openBench,
  purgeFully,
  textOf,
  unlinkFrom,
  upload,
} from './test-bench.js';
import { FaultProxy, type SeenRequest } from './test-fault-proxy.js';

// A service of five processes on a busy machine.
vi.setConfig({ testTimeout: 120_000 });
const hasSwift = machineHasSwift();
const bucket = 'mail';
let swift: SwiftServer;
let proxy: FaultProxy;
let count = 0;

/** Straight to the service, past the proxy. */
const direct = () =>
  new S3mini({
    accessKeyId: swift.accessKeyId,
    secretAccessKey: swift.secretAccessKey,
    region: swift.region,
    endpoint: `${swift.endpoint}/${bucket}`,
  });

const s3Options = (changes: Partial<S3Options> = {}): S3Options => ({
  endpoint: proxy.endpoint,
  region: swift.region,
  bucket,
  prefix: `${count++}/`,
  accessKeyId: swift.accessKeyId,
  secretAccessKey: swift.secretAccessKey,
  requestTimeoutMs: 20_000,
  maxAttempts: 2,
  ...changes,
});

beforeAll(async () => {
  if (!hasSwift) return;
  swift = await SwiftServer.start();
  proxy = await FaultProxy.start(swift.endpoint);
  await direct().createBucket();
});

afterAll(async () => {
  await proxy?.stop();
  await swift?.stop();
});

if (hasSwift) {
  blobConformance(
    'S3',
    async () => {
      const s3 = s3Options();
      return {
        place: 's3',
        database: new MemoryDatabase(),
        external: { writeTo: 's3', s3, ...smallExternal },
        away() {
          proxy.fault = () => ({ kind: 'refuse' });
        },
        back() {
          proxy.fault = undefined;
        },
        full() {
          proxy.fault = ({ method }) =>
            method === 'PUT' ? { kind: 'answer', status: 507, code: 'InsufficientStorage' } : undefined;
        },
        async damage(_bench, storageId, change) {
          const key = s3.prefix + storageId;
          const bytes = change(Buffer.from((await direct().getObjectArrayBuffer(key)) ?? new ArrayBuffer(0)));
          if (bytes) await direct().putObject(key, bytes);
          else await direct().deleteObject(key);
        },
        async close() {
          proxy.fault = undefined;
        },
      };
    },
    { canBeFull: true, isSlow: true, races: { runs: 2, rounds: 3 }, longBytes: 5_500_000 },
  );
}

describe.runIf(hasSwift)('requests to S3', () => {
  let bench: Bench;
  let external: ExternalBlobOptions;
  const open = (changes: Partial<S3Options> = {}) => {
    external = { writeTo: 's3', s3: s3Options({ maxAttempts: 4, ...changes }), ...smallExternal };
    bench = openBench({ ...smallLimits, external });
  };
  beforeEach(() => {
    open();
    proxy.seen.length = 0;
  });
  afterEach(() => {
    proxy.fault = undefined;
  });

  const isPart = ({ method, path }: SeenRequest) => method === 'PUT' && path.includes('partNumber=');
  const isPut = (request: SeenRequest) =>
    request.method === 'PUT' && !isPart(request) && !request.path.endsWith('starling-blobs');
  const isCreate = ({ method, path }: SeenRequest) => method === 'POST' && path.includes('uploads');
  const isComplete = (request: SeenRequest) => request.method === 'POST' && !isCreate(request);
  const isGet = ({ method, path }: SeenRequest) => method === 'GET' && /\/[0-9a-f]{32}$/.test(path);

  const roundTrip = async (content: Buffer) => {
    const blob = await upload(bench.blobs, content, 100_000);
    await linkTo(bench.kv, bench.blobs, blob, 'q');
    expect((await bench.blobs.read(blob.id)).equals(content)).toBe(true);
    const objects = await objectsOf(bench.blobs);
    expect(objects).toHaveLength(1);
    expect(objects[0]!.isComplete).toBe(true);
    await unlinkFrom(bench.kv, bench.blobs, blob.id, 'q');
    await purgeFully(bench);
    expect(await objectsOf(bench.blobs)).toEqual([]);
    expect(await keyCounts(bench.kv)).toEqual({});
  };

  const idOf = (content: Buffer) => createHash('sha256').update(content).digest('hex');
  const short = randomBytes(50_000);
  /** One part and a little. */
  const long = randomBytes(5_500_000);
  const passing = [
    ['a refused connection', { kind: 'refuse' }],
    ['a lost answer', { kind: 'lose-answer' }],
    ['503 SlowDown', { kind: 'answer', status: 503, code: 'SlowDown' }],
  ] as const;
  for (const [what, fault] of passing) {
    it(`survive ${what} at a PUT, at each step of a multipart upload, and at a GET`, async () => {
      proxy.failOnce([isPut, isGet], fault);
      await roundTrip(short);
      proxy.failOnce([isCreate, isPart, isComplete, isGet], fault);
      await roundTrip(long);
    });
  }

  for (const [status, code] of [
    [429, 'TooManyRequests'],
    [500, 'InternalError'],
    [502, 'BadGateway'],
  ] as const) {
    it(`survive ${status} ${code}`, async () => {
      proxy.failOnce([isPut, isGet], { kind: 'answer', status, code });
      await roundTrip(short);
    });
  }

  it('that were changed under way are refused by the service and sent again', async () => {
    proxy.failOnce([isPut], { kind: 'flip' });
    await roundTrip(short);
    proxy.failOnce([isPart], { kind: 'flip' });
    await roundTrip(long);
  });

  it('take a 200 that tells of a failure for one', async () => {
    proxy.failOnce([isComplete], { kind: 'answer', status: 200, code: 'InternalError' });
    await roundTrip(long);
  });

  it('whose answer breaks off go on where it stopped', async () => {
    const blob = await upload(bench.blobs, long, 100_000);
    await linkTo(bench.kv, bench.blobs, blob, 'q');
    let cuts = 0;
    proxy.fault = (request) => (isGet(request) && cuts++ < 5 ? { kind: 'cut', afterBytes: 934_567 } : undefined);
    expect((await gather(bench.blobs.stream(blob.id))).equals(long)).toBe(true);
    expect(cuts).toBeGreaterThan(5);
    proxy.fault = (request) => (isGet(request) ? { kind: 'cut', afterBytes: 0 } : undefined);
    await expect(bench.blobs.read(blob.id)).rejects.toMatchObject({ code: 'unavailable', reason: 'outage' });
  });

  it('fetch no more than the frames that a range touches', async () => {
    const content = randomBytes(400_000);
    const blob = await upload(bench.blobs, content);
    await linkTo(bench.kv, bench.blobs, blob, 'q');
    proxy.seen.length = 0;
    let servedBytes = 0;
    proxy.fault = (request) => {
      if (isGet(request)) servedBytes++;
      return undefined;
    };
    expect((await bench.blobs.read(blob.id, { start: 200_500, end: 203_000 })).equals(content.subarray(200_500, 203_000))).toBe(
      true,
    );
    expect(servedBytes).toBe(1);
    expect(proxy.seen).toHaveLength(1);
    // Three frames of 1,009 stored bytes: a cut behind them is not noticed.
    proxy.failOnce([isGet], { kind: 'cut', afterBytes: 3 * 1_009 });
    expect((await bench.blobs.read(blob.id, { start: 200_500, end: 203_000 })).equals(content.subarray(200_500, 203_000))).toBe(
      true,
    );
  });

  it('that get no answer end in time, and the service is unavailable', async () => {
    open({ requestTimeoutMs: 100, maxAttempts: 2 });
    await bench.blobs.check();
    proxy.fault = () => ({ kind: 'hang' });
    await expect(upload(bench.blobs, short)).rejects.toMatchObject({ code: 'unavailable', reason: 'outage' });
    await expect(bench.blobs.check()).rejects.toMatchObject({ code: 'unavailable' });
  });

  it('leave incomplete uploads of a dead process to the purge', async () => {
    const writer = bench.blobs.writer();
    for (let start = 0; start < long.length; start += 100_000) await writer.write(long.subarray(start, start + 100_000));
    // The process is gone: neither finish nor abort.
    const deadline = performance.now() + 20_000;
    const unfinished = async () => (await objectsOf(bench.blobs)).filter(({ isComplete }) => !isComplete);
    while ((await unfinished()).length === 0 && performance.now() < deadline) await bench.clock.sleep(50);
    expect(await unfinished()).toHaveLength(1);
    await purgeFully(bench, 86_400);
    expect(await objectsOf(bench.blobs)).toEqual([]);
    expect(await keyCounts(bench.kv)).toEqual({});
  });

  it('that a process dies over leave nothing, whichever it was', async () => {
    for (const [content, steps] of [
      [short, 3],
      [long, 6],
    ] as const) {
      for (let step = 0; step < steps; step++) {
        open({ maxAttempts: 1 });
        await bench.blobs.check();
        let isDead = false;
        let requests = 0;
        proxy.fault = () => {
          if (isDead) return { kind: 'refuse' };
          isDead = requests++ === step;
          return isDead ? { kind: 'lose-answer' } : undefined;
        };
        const life = async () => {
          const blob = await upload(bench.blobs, content, 1_000_000);
          await linkTo(bench.kv, bench.blobs, blob, 'q');
        };
        // Nobody aborts: the process is gone.
        await life().catch(() => {});
        proxy.fault = undefined;
        if ((await keyCounts(bench.kv))['head']) {
          expect((await bench.blobs.read(idOf(content))).equals(content)).toBe(true);
          await unlinkFrom(bench.kv, bench.blobs, idOf(content), 'q');
        }
        await purgeFully(bench, 86_400);
        expect(await objectsOf(bench.blobs)).toEqual([]);
        expect(await keyCounts(bench.kv)).toEqual({});
      }
    }
  });

  it('delete again what they could not delete', async () => {
    const blob = await upload(bench.blobs, short);
    await linkTo(bench.kv, bench.blobs, blob, 'q');
    await unlinkFrom(bench.kv, bench.blobs, blob.id, 'q');
    proxy.fault = ({ method }) => (method === 'DELETE' ? { kind: 'answer', status: 403, code: 'AccessDenied' } : undefined);
    await purgeFully(bench);
    expect(await keyCounts(bench.kv)).toEqual({ upload: 1 });
    expect(await objectsOf(bench.blobs)).toHaveLength(1);
    proxy.fault = undefined;
    await purgeFully(bench);
    expect(await keyCounts(bench.kv)).toEqual({});
    expect(await objectsOf(bench.blobs)).toEqual([]);
  });

  it('to a missing bucket, a strange one or with wrong credentials are unavailable, and never show a credential', async () => {
    let logged = '';
    const sink = new Writable({
      write(chunk, _encoding, done) {
        logged += chunk;
        done();
      },
    });
    const logger = pino({ level: 'trace' }, sink);
    const secretAccessKey = 'not-the-right-secret';
    for (const changes of [{ bucket: 'nowhere' }, { secretAccessKey }, { accessKeyId: 'starling:nobody' }]) {
      const { blobs } = openBench({ ...smallLimits, logger, external: { ...external, s3: s3Options(changes) } });
      const error = await upload(blobs, short).catch((thrown) => thrown);
      expect(error).toMatchObject({ code: 'unavailable', reason: 'outage' });
      logger.error({ err: error }, 'a failed upload');
      expect(await blobs.check().catch((thrown) => thrown)).toMatchObject({ code: 'unavailable' });
    }
    expect(logged).toContain('SignatureDoesNotMatch');
    expect(logged).not.toContain(secretAccessKey);
    expect(logged).not.toContain(swift.secretAccessKey);
    expect(logged).not.toContain('Signature=');
    const blob = await upload(bench.blobs, short);
    await linkTo(bench.kv, bench.blobs, blob, 'q');
    const stranger = openBench({ ...smallLimits, external });
    await expect(upload(stranger.blobs, short)).rejects.toThrow('another installation');
  });

  it('to another bucket than the one with the blobs do not make them missing', async () => {
    const database = new MemoryDatabase();
    const first = openBench({ ...smallLimits, database, external });
    const blob = await upload(first.blobs, short);
    await linkTo(first.kv, first.blobs, blob, 'q');
    const moved = openBench({ ...smallLimits, database, external: { ...external, s3: s3Options() } });
    await expect(moved.blobs.read(blob.id)).rejects.toMatchObject({ code: 'unavailable' });
    expect((await first.blobs.read(blob.id)).equals(short)).toBe(true);
  });
});

describe.runIf(hasSwift)('files and S3 together', () => {
  it('are both read, whatever is written to, and purged where the bytes are', async () => {
    const { mkdtemp, rm } = await import('node:fs/promises');
    const { tmpdir } = await import('node:os');
    const directory = await mkdtemp(`${tmpdir()}/blob-both-`);
    try {
      const database = new MemoryDatabase();
      const both = { files: { directory }, s3: s3Options(), ...smallExternal };
      const onFiles = openBench({ ...smallLimits, database, external: { ...both, writeTo: 'files' } });
      const onS3 = openBench({ ...smallLimits, database, external: { ...both, writeTo: 's3' }, handClock: onFiles.clock });
      const [one, two] = [textOf(50_000, 'one'), randomBytes(50_000)];
      const blobs = [await upload(onFiles.blobs, one), await upload(onS3.blobs, two)];
      await linkTo(onFiles.kv, onFiles.blobs, blobs[0]!, 'q');
      await linkTo(onS3.kv, onS3.blobs, blobs[1]!, 'q');
      // The same content again, under the other setting: the first bytes stay.
      await linkTo(onS3.kv, onS3.blobs, await upload(onS3.blobs, one), 'again');
      for (const bench of [onFiles, onS3]) {
        expect((await bench.blobs.read(blobs[0]!.id)).equals(one)).toBe(true);
        expect((await bench.blobs.read(blobs[1]!.id)).equals(two)).toBe(true);
      }
      await purgeFully(onFiles);
      expect(await objectsOf(onFiles.blobs)).toHaveLength(2);
      for (const blob of blobs) for (const queueId of ['q', 'again']) await unlinkFrom(onS3.kv, onS3.blobs, blob.id, queueId);
      await purgeFully(onS3);
      expect(await objectsOf(onFiles.blobs)).toEqual([]);
      expect(await keyCounts(onFiles.kv)).toEqual({});
    } finally {
      await rm(directory, { recursive: true });
    }
  });
});
