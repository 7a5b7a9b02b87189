/** Operations on the store as a whole that may run within a node. Copying, saving and restoring are done beside it: `node/cli/commands/store.ts`. */
import type { Finding } from '../../store/transfer/index.js';
import { type Operation, OperationRefused } from './operation.js';

const lineOf = ({ area, where, problem, state }: Finding) =>
  `${area} ${where}: ${problem}${state === 'mendable' ? ' (--repair mends it)' : ''}`;

export const storeOperations: Record<string, Operation> = {
  'store check': {
    usage: '[--deep] [--repair]',
    summary:
      'look for what is missing, left over or counted wrong; --deep reads every byte, --repair mends what can lose nothing',
    run: async ({ stores, onProgress, signal }, { flags }) => {
      const { kv, blobs, clock } = stores;
      // Loaded when it is done: a command for a running node never needs it.
      const [{ checkStore, TransferInterrupted, TransferRefused }, { createLogger }] = await Promise.all([
        import('../../store/transfer/index.js'),
        import('../../ops/telemetry/index.js'),
      ]);
      try {
        const result = await checkStore({
          kv,
          blobs,
          clock,
          logger: createLogger({ level: 'warn' }),
          deep: flags.deep === true,
          repair: flags.repair === true,
          onProgress,
          signal,
        });
        const { findings, differences, ...counts } = result;
        if (differences === 0) return { ...counts, differences };
        const standing = findings.filter(({ state }) => state !== 'mended').map(lineOf);
        const more = differences > standing.length ? [`and ${differences - standing.length} more`] : [];
        throw new OperationRefused(`${differences} differences:\n${[...standing, ...more].join('\n')}`);
      } catch (error) {
        if (error instanceof TransferRefused || error instanceof TransferInterrupted) {
          throw new OperationRefused(error.message, { cause: error });
        }
        throw error;
      }
    },
  },
};
