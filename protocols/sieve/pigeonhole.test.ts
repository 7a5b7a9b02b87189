/** Pigeonhole as a second opinion: both engines take the same scripts, and decide the same. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type SieveAction, type SieveOutcome, SieveRunError } from './index.js';
import { type Decision, hasPigeonhole, Pigeonhole } from './test-pigeonhole.js';
import { decidedOtherwise, decisionMessages, decisionScripts } from './test-pigeonhole-decisions.js';
import { invalidScripts, refusedOnlyHere, takenOnlyHere, validScripts } from './test-pigeonhole-scripts.js';
import { compileFailure, runScript, sieveMessage } from './test-runs.js';

const withFlags = (flags: readonly string[] | undefined) =>
  flags?.length
    ? ` ${flags
        .map((flag) => flag.toLowerCase())
        .sort()
        .join(' ')}`
    : '';

/** As the second opinion is read. */
function describeAction(action: SieveAction): string {
  switch (action.kind) {
    case 'keep':
      return `store INBOX${withFlags(action.flags)}`;
    case 'fileinto':
      return `store ${action.mailbox}${action.creates ? ' create' : ''}${withFlags(action.flags)}`;
    case 'redirect':
      return `redirect ${action.address}`;
    case 'reject':
      return `reject ${action.reason}`;
    case 'vacation':
      return `vacation ${action.seconds} ${action.subject === undefined ? '' : `${action.subject}: `}${action.reason}`;
    case 'notify': {
      const [to = '', query = ''] = action.method.replace(/^mailto:/, '').split('?');
      const cc = [...query.matchAll(/cc=([^&]*)/g)].map((match) => match[1]!);
      return `notify ${[to, ...cc].map(decodeURIComponent).join(',')} ${action.importance ?? '2'}`;
    }
    case 'discard':
      return 'discard';
  }
}

function describeOutcome(outcome: SieveOutcome): Decision {
  const implicit = outcome.keepsImplicitly ? [`implicit store INBOX${withFlags(outcome.flags)}`] : [];
  const tracked = outcome.seenIds.map(() => 'track duplicate');
  return [...outcome.actions.map(describeAction), ...implicit, ...tracked].sort();
}

async function decide(script: string, message: string): Promise<Decision> {
  try {
    return describeOutcome(await runScript(script, { message: sieveMessage(message) }));
  } catch (error) {
    if (error instanceof SieveRunError) return ['failed'];
    throw error;
  }
}

const isThere = hasPigeonhole();

describe.skipIf(!isThere)('Pigeonhole agrees', () => {
  let pigeonhole: Pigeonhole;
  beforeAll(() => {
    pigeonhole = new Pigeonhole();
  });
  afterAll(() => pigeonhole.close());

  it.each(validScripts)('that this is valid: %j', (script) => {
    expect(compileFailure(script)).toBeUndefined();
    expect(pigeonhole.isValid(script)).toBe(true);
  });

  it.each(invalidScripts)('that this is invalid: %j', (script) => {
    expect(compileFailure(script)).toMatch(/^\d+:\d+ ./);
    expect(pigeonhole.isValid(script)).toBe(false);
  });

  it.each(decisionScripts)('what to do: %j', async (script) => {
    for (const [name, message] of Object.entries(decisionMessages)) {
      expect(await decide(script, message), name).toEqual(pigeonhole.decide(script, message));
    }
  });
});

describe.skipIf(!isThere)('Pigeonhole differs', () => {
  let pigeonhole: Pigeonhole;
  beforeAll(() => {
    pigeonhole = new Pigeonhole();
  });
  afterAll(() => pigeonhole.close());

  it.each(refusedOnlyHere)('$script: $reason', ({ script }) => {
    expect(compileFailure(script)).toBeDefined();
    expect(pigeonhole.isValid(script)).toBe(true);
  });

  it.each(takenOnlyHere)('$script: $reason', ({ script }) => {
    expect(compileFailure(script)).toBeUndefined();
    expect(pigeonhole.isValid(script)).toBe(false);
  });

  it.each(decidedOtherwise)('$script: $reason', async ({ script }) => {
    const all = Object.values(decisionMessages);
    const ours = await Promise.all(all.map((message) => decide(script, message)));
    expect(ours).not.toEqual(all.map((message) => pigeonhole.decide(script, message)));
  });
});
