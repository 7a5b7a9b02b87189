/** RFC 5230 `vacation`, with `:seconds` (RFC 6131) and `:fcc` (RFC 8580). The answer is sent, or not, by who runs the script. */
import { type CommandDefinition, SieveRunError, type Text } from '../contract.js';
import { addressIn, onOneLine } from './addresses.js';
import { fccOf, fccTags } from './fcc.js';

const secondsPerDay = 86_400;
const defaultDays = 7;
/** RFC 5230 4.1: what is out of bounds is taken as the bound. */
const maxSeconds = 365 * secondsPerDay;

export const vacation: CommandDefinition = {
  name: 'vacation',
  requires: ['vacation'],
  tags: {
    days: { value: 'number', group: 'time' },
    seconds: { value: 'number', group: 'time', requires: 'vacation-seconds' },
    subject: { value: 'string' },
    from: { value: 'string' },
    addresses: { value: 'strings' },
    mime: {},
    handle: { value: 'string' },
    ...fccTags,
  },
  positional: [{ name: 'reason', type: 'string' }],
  compile(arguments_, context) {
    const seconds = secondsOf(arguments_.number('days'), arguments_.number('seconds'));
    const [reason, subject, from, handle] = ['reason', 'subject', 'from', 'handle'].map((name) => arguments_.text(name));
    const addresses = arguments_.texts('addresses') ?? [];
    const isMime = arguments_.hasTag('mime');
    if (from?.constant !== undefined && addressIn(from.constant) === undefined) {
      context.fail(`'${from.constant.slice(0, 128)}' is no address of a mailbox`, from.at);
    }
    const fcc = fccOf(arguments_, context);
    return (run) => {
      const sender = from?.of(run);
      if (sender !== undefined && addressIn(sender) === undefined) noAddress(from!);
      run.act({
        kind: 'vacation',
        reason: reason!.of(run),
        seconds,
        ...(subject && { subject: onOneLine(subject.of(run)) }),
        ...(sender !== undefined && { from: sender }),
        addresses: addresses.map((text) => text.of(run)),
        isMime,
        ...(handle && { handle: handle.of(run) }),
        ...fcc(run),
      });
    };
  },
};

function secondsOf(days: number | undefined, seconds: number | undefined): number {
  const wanted = seconds ?? Math.max(days ?? defaultDays, 1) * secondsPerDay;
  return Math.min(wanted, maxSeconds);
}

function noAddress(text: Text): never {
  throw new SieveRunError("':from' has no address of a mailbox", text.at);
}
