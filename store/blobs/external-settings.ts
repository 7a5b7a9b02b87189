/**
 * The cluster-wide settings that say where large blobs are kept, and what a blob store is made of from them.
 */
import { z } from 'zod';
import type { ExternalBlobOptions } from './external.js';
import { minPartBytes } from './s3.js';

const maxThresholdBytes = 8 * 1024 * 1024;

const filesSettings = z.strictObject({
  directory: z
    .string()
    .regex(/^\/[^\0]*$/, 'must be an absolute path')
    .describe('Directory that all nodes share; made at first use, and mounted from then on.'),
});

const s3Settings = z.strictObject({
  endpoint: z
    .url({ protocol: /^https?$/ })
    .refine((url) => !/[?#@]/.test(url), 'must be just a scheme, a host, a port and a path')
    .describe('Address of the service, without the bucket, which is addressed as part of the path.'),
  region: z
    .string()
    .regex(/^[A-Za-z0-9-]{1,64}$/)
    .default('us-east-1'),
  bucket: z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{1,62}$/, 'must be the name of a bucket'),
  prefix: z
    .string()
    .regex(/^([A-Za-z0-9._-][A-Za-z0-9._/-]{0,199})?$/, 'may have letters, digits and ._/- and must not begin with /')
    .default('')
    .describe('Put before each object’s name, e.g. mail/.'),
  accessKeyId: z.string().max(256).optional().describe('Default: the environment’s AWS_ACCESS_KEY_ID.'),
  secretAccessKey: z.string().max(1024).optional().describe('Default: the environment’s AWS_SECRET_ACCESS_KEY.'),
  partBytes: z
    .int()
    .min(minPartBytes)
    .max(64 * 1024 * 1024)
    .default(minPartBytes)
    .describe('Stored bytes per part of an upload; about three parts are in memory per upload.'),
  requestTimeoutMs: z.int().min(1_000).max(300_000).default(30_000),
  maxAttempts: z.int().min(1).max(10).default(5),
});

/** What is set up stays readable when `storage` changes; only remove `files` or `s3` when no blob lies there any more. */
export const blobStorageSettings = z
  .strictObject({
    storage: z.enum(['store', 'files', 's3']).default('store').describe('Where new large blobs go.'),
    externalThresholdBytes: z
      .int()
      .min(0)
      .max(maxThresholdBytes)
      .default(1024 * 1024)
      .describe('Content longer than this goes to files or S3; shorter content stays in the store.'),
    files: filesSettings.optional(),
    s3: s3Settings.optional(),
  })
  .superRefine((settings, context) => {
    const { storage } = settings;
    if (storage !== 'store' && !settings[storage])
      context.addIssue({ code: 'custom', path: [storage], message: `storage is ${storage}, so ${storage} must be set up` });
  });

export type BlobStorageSettings = z.infer<typeof blobStorageSettings>;

/** Paths of values that are sealed where settings are kept and never shown. */
export const secretPaths: readonly string[] = ['s3.secretAccessKey'];

/**
 * The `external` option of `createBlobStore`. Credentials that the settings lack are taken from `environment`. Throws RangeError when S3 is set up and there
 * are none.
 */
export function externalFromSettings(
  settings: BlobStorageSettings,
  environment: Readonly<Record<string, string | undefined>>,
): ExternalBlobOptions {
  const { storage, externalThresholdBytes, files, s3 } = settings;
  const options: ExternalBlobOptions = { thresholdBytes: externalThresholdBytes };
  if (storage !== 'store') options.writeTo = storage;
  if (files) options.files = { directory: files.directory };
  if (s3) {
    // A pair from one place: an id of one account with another's secret can only confuse.
    const own = s3.accessKeyId && s3.secretAccessKey ? s3 : undefined;
    const accessKeyId = own?.accessKeyId ?? environment['AWS_ACCESS_KEY_ID'];
    const secretAccessKey = own?.secretAccessKey ?? environment['AWS_SECRET_ACCESS_KEY'];
    if (!accessKeyId || !secretAccessKey)
      throw new RangeError(
        'S3 needs an access key id and a secret, in the settings or in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY',
      );
    options.s3 = { ...s3, accessKeyId, secretAccessKey };
  }
  return options;
}
