import { describe, expect, it } from 'vitest';
import { blobStorageSettings, externalFromSettings, secretPaths } from './external-settings.js';

const s3 = { endpoint: 'https://s3.example.test:9000/base', bucket: 'mail' };
const environment = { AWS_ACCESS_KEY_ID: 'from-environment', AWS_SECRET_ACCESS_KEY: 'its-secret' };

describe('settings of blob storage', () => {
  it('have defaults that change nothing', () => {
    const settings = blobStorageSettings.parse({});
    expect(settings).toEqual({ storage: 'store', externalThresholdBytes: 1_048_576 });
    expect(externalFromSettings(settings, {})).toEqual({ thresholdBytes: 1_048_576 });
  });

  it('write to one storage and read from all', () => {
    const settings = blobStorageSettings.parse({ storage: 's3', files: { directory: '/srv/blobs' }, s3 });
    const options = externalFromSettings(settings, environment);
    expect(options).toMatchObject({
      writeTo: 's3',
      files: { directory: '/srv/blobs' },
      s3: { ...s3, region: 'us-east-1', prefix: '', accessKeyId: 'from-environment', secretAccessKey: 'its-secret' },
    });
  });

  it('take both credentials from one place', () => {
    const own = blobStorageSettings.parse({ s3: { ...s3, accessKeyId: 'own', secretAccessKey: 'own-secret' } });
    expect(externalFromSettings(own, environment).s3).toMatchObject({ accessKeyId: 'own', secretAccessKey: 'own-secret' });
    const half = blobStorageSettings.parse({ s3: { ...s3, accessKeyId: 'own' } });
    expect(externalFromSettings(half, environment).s3).toMatchObject({
      accessKeyId: 'from-environment',
      secretAccessKey: 'its-secret',
    });
    expect(() => externalFromSettings(half, {})).toThrow('AWS_ACCESS_KEY_ID');
  });

  it('refuse what can not work', () => {
    const refused: unknown[] = [
      { storage: 'files' },
      { storage: 's3', files: { directory: '/srv' } },
      { files: { directory: 'relative' } },
      { s3: { ...s3, endpoint: 'ftp://host' } },
      { s3: { ...s3, endpoint: 'https://user:password@host' } },
      { s3: { ...s3, bucket: 'a/b' } },
      { s3: { ...s3, prefix: '/mail' } },
      { s3: { ...s3, prefix: "it's" } },
      { s3: { ...s3, partBytes: 1_000_000 } },
      { externalThresholdBytes: 100_000_000 },
      { storage: 'tape' },
      { unknown: 1 },
    ];
    for (const settings of refused) expect(blobStorageSettings.safeParse(settings).success, JSON.stringify(settings)).toBe(false);
  });

  it('name their secrets', () => {
    expect(secretPaths).toEqual(['s3.secretAccessKey']);
  });
});
