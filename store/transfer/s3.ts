/** Backups on S3-compatible storage: written as a multipart upload, of which nothing is to be seen before it is complete. */
import { type S3Config, S3mini, type UploadPart } from 's3mini';
import { TransferRefused } from './contract.js';
import type { BackupSink, BackupSource } from './places.js';

export interface S3Place {
  /** Without the bucket: `https://s3.example.net`. */
  endpoint: string;
  region: string;
  accessKeyId: string;
  secretAccessKey: string;
}

/** S3 takes parts from 5 MiB on, and 10,000 of them: they grow, so that a backup may have terabytes. */
const firstPartBytes = 8 * 1024 * 1024;
const partsPerSize = 1_000;
const maxPartBytes = 256 * 1024 * 1024;
const partAttempts = 4;

/** Bucket and key of `s3://bucket/key`; undefined for what is none. */
export function parseS3Url(text: string): { bucket: string; key: string } | undefined {
  const [, bucket, key] = /^s3:\/\/([a-z0-9][a-z0-9.-]{1,62})\/(.+)$/.exec(text) ?? [];
  return bucket !== undefined && key !== undefined ? { bucket, key } : undefined;
}

/** From the variables that S3 tools share. Throws `TransferRefused` with the names of those that are missing. */
export function s3FromEnvironment(environment: NodeJS.ProcessEnv): S3Place {
  const endpoint = environment['AWS_ENDPOINT_URL_S3'] ?? environment['AWS_ENDPOINT_URL'];
  const region = environment['AWS_REGION'] ?? environment['AWS_DEFAULT_REGION'] ?? 'us-east-1';
  const accessKeyId = environment['AWS_ACCESS_KEY_ID'];
  const secretAccessKey = environment['AWS_SECRET_ACCESS_KEY'];
  if (!accessKeyId || !secretAccessKey) {
    throw new TransferRefused('S3 needs AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, other than at Amazon, AWS_ENDPOINT_URL_S3');
  }
  return { endpoint: endpoint ?? `https://s3.${region}.amazonaws.com`, region, accessKeyId, secretAccessKey };
}

function client({ endpoint, region, accessKeyId, secretAccessKey }: S3Place, bucket: string): S3mini {
  const config: S3Config = { endpoint: `${endpoint.replace(/\/+$/, '')}/${bucket}`, region, accessKeyId, secretAccessKey };
  return new S3mini(config);
}

function refusal(what: string): (error: unknown) => never {
  return (error) => {
    throw new TransferRefused(`${what}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
  };
}

/** Refuses to write over an object that is there. */
export async function s3Sink(place: S3Place, bucket: string, key: string): Promise<BackupSink> {
  const s3 = client(place, bucket);
  const name = `s3://${bucket}/${key}`;
  const failed = refusal(`can't write ${name}`);
  if ((await s3.objectExists(key).catch(failed)) === true) throw new TransferRefused(`${name} exists already`);
  const uploadId = await s3.getMultipartUploadId(key, 'application/octet-stream').catch(failed);
  const parts: UploadPart[] = [];
  let gathered: Uint8Array[] = [];
  let bytes = 0;
  let sentBytes = 0;
  const partBytes = () => Math.min(maxPartBytes, firstPartBytes * 2 ** Math.floor(parts.length / partsPerSize));
  const flush = async () => {
    const body = Buffer.concat(gathered);
    gathered = [];
    bytes = 0;
    for (let attempt = 1; ; attempt++) {
      try {
        parts.push(await s3.uploadPart(key, uploadId, body, parts.length + 1));
        sentBytes += body.length;
        return;
      } catch (error) {
        if (attempt === partAttempts) failed(error);
      }
    }
  };
  return {
    name,
    async write(chunk) {
      // The caller may use its memory again.
      gathered.push(Buffer.from(chunk));
      bytes += chunk.length;
      if (bytes >= partBytes()) await flush();
    },
    async finish() {
      if (bytes > 0 || parts.length === 0) await flush();
      const { etag } = await s3.completeMultipartUpload(key, uploadId, parts).catch(failed);
      // A service that began to answer 200 can tell of its failure only in the body.
      if (!etag) failed('the service did not join its parts');
      const found = await s3.getContentLength(key).catch(failed);
      if (found !== sentBytes) failed(`the object has ${found} bytes after ${sentBytes} were sent`);
    },
    abort: async () => void (await s3.abortMultipartUpload(key, uploadId).catch(() => undefined)),
  };
}

export function s3Source(place: S3Place, bucket: string, key: string): BackupSource {
  const s3 = client(place, bucket);
  const name = `s3://${bucket}/${key}`;
  const failed = refusal(`can't read ${name}`);
  return {
    name,
    isRepeatable: true,
    async *open() {
      const response = await s3.getObjectResponse(key).catch(failed);
      if (!response?.body) throw new TransferRefused(`there is no ${name}`);
      try {
        for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) yield chunk;
      } catch (error) {
        failed(error);
      }
    },
    sizeBytes: () => s3.getContentLength(key).catch(() => undefined),
  };
}
