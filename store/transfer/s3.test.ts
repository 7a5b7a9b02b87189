import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { S3mini } from 's3mini';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { silentLogger, systemClock, systemRandom } from '../../ops/telemetry/index.js';
import { machineHasSwift, SwiftServer } from '../../test-cluster/harness/swift.js';
import {
  BackupDamaged,
  parseS3Url,
  restoreBackup,
  s3FromEnvironment,
  s3Sink,
  s3Source,
  verifyBackup,
  writeBackup,
} from './index.js';
import type { S3Place } from './s3.js';
import { emptyStore, furnish, memorySource, openHouse, restoredRows } from './test-bench.js';

it('takes its place from the address and the environment', () => {
  expect(parseS3Url('s3://bucket/a/b.backup')).toEqual({ bucket: 'bucket', key: 'a/b.backup' });
  for (const wrong of ['s3://bucket', 's3://bucket/', 's3:///key', 'file', 's3://B/k']) expect(parseS3Url(wrong)).toBeUndefined();
  expect(() => s3FromEnvironment({})).toThrow(/AWS_ACCESS_KEY_ID/);
  const keys = { AWS_ACCESS_KEY_ID: 'id', AWS_SECRET_ACCESS_KEY: 'secret' };
  expect(s3FromEnvironment({ ...keys, AWS_REGION: 'eu-1' }).endpoint).toBe('https://s3.eu-1.amazonaws.com');
  expect(s3FromEnvironment({ ...keys, AWS_ENDPOINT_URL_S3: 'http://127.0.0.1:1' })).toMatchObject({
    endpoint: 'http://127.0.0.1:1',
    region: 'us-east-1',
  });
});

it.each([
  ['tells of its failure in the body of a 200 only', '<Error><Code>InternalError</Code></Error>', 0, /did not join its parts/],
  ['has joined less than was sent', completed('<ETag>"e-1"</ETag>'), 99, /has 99 bytes after 100 were sent/],
  ['has joined all', completed('<ETag>"e-1"</ETag>'), 100, undefined],
])('a service that %s', async (_, answer, heldBytes, refusal) => {
  let isJoined = false;
  const server = createServer((request, response) => {
    request.resume().on('end', () => {
      const upload = '<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>';
      if (request.method === 'HEAD') response.writeHead(isJoined ? 200 : 404, { 'content-length': heldBytes }).end();
      else if (request.method === 'PUT') response.writeHead(200, { etag: '"p"' }).end();
      else if (request.method !== 'POST') response.writeHead(204).end();
      else {
        isJoined = request.url!.includes('uploadId');
        response.writeHead(200, { 'content-type': 'application/xml' }).end(isJoined ? answer : upload);
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  try {
    const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const sink = await s3Sink({ endpoint, region: 'r', accessKeyId: 'a', secretAccessKey: 'b' }, 'bucket', 'key');
    await sink.write(Buffer.alloc(100));
    if (refusal) await expect(sink.finish()).rejects.toThrow(refusal);
    else await sink.finish();
  } finally {
    server.closeAllConnections();
    server.close();
  }
});

function completed(etag: string): string {
  return `<CompleteMultipartUploadResult><Key>key</Key>${etag}</CompleteMultipartUploadResult>`;
}

describe.runIf(machineHasSwift())('a backup on S3', () => {
  let swift: SwiftServer;
  let place: S3Place;
  beforeAll(async () => {
    swift = await SwiftServer.start();
    const { endpoint, region, accessKeyId, secretAccessKey } = swift;
    await new S3mini({ endpoint: `${endpoint}/backups`, region, accessKeyId, secretAccessKey }).createBucket();
    place = { endpoint, region, accessKeyId, secretAccessKey };
  });
  afterAll(() => swift?.stop());

  it('is written in parts, seen when it is whole, verified and restored', async () => {
    const house = openHouse(emptyStore());
    // Random bytes: more than one part after compression.
    await furnish(house, 3, 6_000_000);
    const parts = { clock: systemClock, random: systemRandom };
    const sink = await s3Sink(place, 'backups', 'night/one.backup');
    const written = await writeBackup({ ...parts, from: { store: house.kv }, sink, software: 'test' });
    expect(written.fileBytes).toBeGreaterThan(9_000_000);
    const source = s3Source(place, 'backups', 'night/one.backup');
    expect(await source.sizeBytes()).toBe(written.fileBytes);
    expect((await verifyBackup({ source })).totals!.keys).toBe(written.keys);
    const target = emptyStore();
    await restoreBackup({ ...parts, source, target, logger: silentLogger });
    expect(await restoredRows(target)).toEqual(await restoredRows(house.kv));
    await expect(s3Sink(place, 'backups', 'night/one.backup')).rejects.toThrow(/exists already/);
  });

  it('that is broken off is not there, and one that is not there says so', async () => {
    const sink = await s3Sink(place, 'backups', 'broken');
    await sink.write(Buffer.alloc(9_000_000));
    await sink.abort();
    await expect(verifyBackup({ source: s3Source(place, 'backups', 'broken') })).rejects.toThrow(/there is no|can't read/);
    await expect(s3Sink({ ...place, secretAccessKey: 'wrong' }, 'backups', 'x')).rejects.toThrow(/can't write s3:\/\/backups\/x/);
    await expect(verifyBackup({ source: memorySource(Buffer.alloc(100)) })).rejects.toBeInstanceOf(BackupDamaged);
  });
});
