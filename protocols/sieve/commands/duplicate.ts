/** RFC 7352: `duplicate`, whether the same was there before. The store of ids is the host's. */
import { createHash } from 'node:crypto';
import type { Run, TestDefinition } from '../contract.js';
import { stepsPerQuestion } from '../limits.js';
import { after } from '../maybe.js';

/** RFC 7352 3.1 leaves both to us. */
const defaultSeconds = 7 * 86_400;
const maxSeconds = 90 * 86_400;

export const duplicate: TestDefinition = {
  name: 'duplicate',
  tags: {
    handle: { value: 'string' },
    header: { value: 'string', group: 'id' },
    uniqueid: { value: 'string', group: 'id' },
    seconds: { value: 'number' },
    last: {},
  },
  compile(arguments_, context) {
    const handle = arguments_.text('handle');
    const uniqueId = arguments_.text('uniqueid');
    const header = arguments_.text('header');
    if (header?.constant !== undefined && !/^[!-9;-~]+$/.test(header.constant)) {
      context.fail('this is no name of a header field', header.at);
    }
    const seconds = Math.min(arguments_.number('seconds') ?? defaultSeconds, maxSeconds);
    const isLast = arguments_.hasTag('last');
    return (run) => {
      const value = uniqueId ? uniqueId.of(run) : firstValue(run, header?.of(run) ?? 'message-id');
      // RFC 7352 3.1: without the field, the message is a duplicate of nothing.
      if (value === undefined) return false;
      const id = trackedId(handle?.of(run), value);
      run.spend(stepsPerQuestion);
      return after(run.input.host?.wasSeen?.(id) ?? false, (wasSeen) => {
        // RFC 7352 3.1: only with `:last` does a duplicate start the time anew. What is noted now is seen by later runs only.
        if ((!wasSeen || isLast) && !run.seenIds.some((seen) => seen.id === id)) run.seenIds.push({ id, seconds });
        return wasSeen;
      });
    };
  },
};

function firstValue(run: Run, header: string): string | undefined {
  return run.header.values(header)[0]?.trim();
}

/** Of one length, whatever messages put into it. */
function trackedId(handle: string | undefined, value: string): string {
  const key = handle === undefined ? ['', value] : [`handle ${handle}`, value];
  return createHash('sha256').update(JSON.stringify(key)).digest('base64url');
}
