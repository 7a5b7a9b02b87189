import { describe, expect, it } from 'vitest';
import { systemRandom } from '../ops/telemetry/index.js';
import { openMemoryStore } from '../store/kv/index.js';
import { createSealer } from '../store/settings/index.js';
import { installationSecret, resealInstallationSecrets, sealedInstallationSecret } from './installation.js';
import { StartError } from './start-error.js';

const [oldKey, newKey] = [systemRandom.bytes(32), systemRandom.bytes(32)];
const sealer = (...keys: Buffer[]) => createSealer(keys, systemRandom);

describe('secrets of an installation', () => {
  it('are made once, each by its name', async () => {
    const kv = openMemoryStore();
    const made = await Promise.all([1, 2, 3].map(() => installationSecret(kv, 'a', systemRandom)));
    expect(new Set(made.map((secret) => secret.toString('hex'))).size).toBe(1);
    expect(made[0]).toHaveLength(32);
    expect(await installationSecret(kv, 'b', systemRandom)).not.toEqual(made[0]);
  });

  it('that are sealed lie in the store unreadable, and open for all nodes alike', async () => {
    const kv = openMemoryStore();
    const made = await Promise.all([1, 2, 3].map(() => sealedInstallationSecret(kv, 'gossip', sealer(oldKey), systemRandom)));
    expect(new Set(made.map((secret) => secret.toString('hex'))).size).toBe(1);
    const rows = await kv.read((reads) => reads.getRange(Buffer.of(0), Buffer.of(255)));
    expect(rows).toHaveLength(1);
    expect(rows[0]!.value.includes(made[0]!)).toBe(false);
    const wrong = sealedInstallationSecret(kv, 'gossip', sealer(newKey), systemRandom);
    await expect(wrong).rejects.toBeInstanceOf(StartError);
    await expect(wrong).rejects.toThrow(/secret for gossip can't be opened/);
  });

  it('stay the same when the cluster key is changed', async () => {
    const kv = openMemoryStore();
    const before = await sealedInstallationSecret(kv, 'gossip', sealer(oldKey), systemRandom);
    expect(await resealInstallationSecrets(kv, sealer(oldKey))).toBe(0);
    // Both keys are known for a while; then the old one goes.
    expect(await sealedInstallationSecret(kv, 'gossip', sealer(newKey, oldKey), systemRandom)).toEqual(before);
    expect(await resealInstallationSecrets(kv, sealer(newKey, oldKey))).toBe(1);
    expect(await resealInstallationSecrets(kv, sealer(newKey, oldKey))).toBe(0);
    expect(await sealedInstallationSecret(kv, 'gossip', sealer(newKey), systemRandom)).toEqual(before);
  });
});
