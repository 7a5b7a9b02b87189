import { describe, expect, it } from 'vitest';
import { silentLogger, systemClock, systemRandom } from '../../ops/telemetry/index.js';
import type { DeliveryJob } from '../mailflow/types.js';
import { DeliveryLanes } from './delivery-lanes.js';
import { defaultRunnerLimits } from './queue-runner.js';

const remoteJob = (queueId: string): DeliveryJob =>
  ({
    claimed: {
      message: { id: queueId, sizeBytes: 10 },
      destination: { queueId, domain: `${queueId}.test`, part: 0, isLocal: false },
    },
  }) as unknown as DeliveryJob;

describe('delivery lanes', () => {
  it('end many deliveries by one signal, and Node does not take their listeners for a leak', async () => {
    const warnings: Error[] = [];
    const onWarning = (warning: Error) => warnings.push(warning);
    process.on('warning', onWarning);
    const lanes = new DeliveryLanes({
      clock: systemClock,
      random: systemRandom,
      logger: silentLogger,
      limits: defaultRunnerLimits,
      deliver: (_job, signal) =>
        new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason), { once: true })),
      onFault: async () => {},
      mayStart: () => true,
      onDone: () => {},
    });
    for (let at = 0; at < 30; at++) lanes.add(remoteJob(`q${at}`));
    lanes.pump();
    expect(lanes.running).toBe(30);
    lanes.abort();
    await lanes.idle();
    await new Promise((resolve) => setImmediate(resolve));
    process.off('warning', onWarning);
    expect(warnings).toEqual([]);
  });
});
