/** Operations on bans by address. */
import { durationSeconds, isoTime, operatorOf, textFlag } from './flags.js';
import { type Operation, OperationRefused } from './operation.js';

/** What is no network is an answer, not a failure. */
async function orRefuse<T>(run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    if (error instanceof RangeError) throw new OperationRefused(error.message, { cause: error });
    throw error;
  }
}

export const banOperations: Record<string, Operation> = {
  'ban list': {
    usage: '',
    summary: 'banned addresses and networks',
    run: async (context) =>
      (await context.stores.bans.list()).map(({ network, reason, note, bannedAtMs, untilMs }) => ({
        network,
        reason,
        since: isoTime(bannedAtMs),
        until: untilMs === undefined ? null : isoTime(untilMs),
        note,
      })),
  },
  'ban add': {
    usage: 'NETWORK [--for TIME] [--note TEXT]',
    summary: 'turn away an address or network (CIDR) on every node, until it is lifted or for so long',
    run: async (context, args) => {
      const network = args.positionals[0]!;
      const lasts = textFlag(args.flags['for']);
      const untilMs = lasts === undefined ? undefined : context.stores.clock.nowMs() + durationSeconds(lasts, '--for') * 1_000;
      const note = textFlag(args.flags['note']) ?? `by ${operatorOf(args)}`;
      await orRefuse(async () =>
        context.stores.bans.add({ network, reason: 'operator', note, ...(untilMs !== undefined && { untilMs }) }),
      );
      return { banned: network, until: untilMs === undefined ? null : isoTime(untilMs) };
    },
  },
  'ban lift': {
    usage: 'NETWORK',
    summary: 'let a banned address or network in again',
    run: async (context, { positionals }) => {
      const network = positionals[0]!;
      if (await orRefuse(async () => context.stores.bans.lift(network))) return { lifted: network };
      throw new OperationRefused(`${network} is not banned`);
    },
  },
};
