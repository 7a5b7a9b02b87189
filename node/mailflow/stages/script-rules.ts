/** What scripts may do at each stage: extensions, commands, limits. For whoever compiles them (`node/settings/scripts.ts`) and for the verdicts. */
import type { CompileOptions, SieveAction, SieveLimits } from '../../../protocols/sieve/index.js';
import type { ScriptStage } from './contract.js';

/** All that decides, tests or remembers. What files, answers or notifies is for a user's own script, at delivery. */
const common = [
  'body',
  'comparator-i;ascii-casemap',
  'comparator-i;ascii-numeric',
  'comparator-i;octet',
  'comparator-i;unicode-casemap',
  'copy',
  'date',
  'encoded-character',
  'envelope',
  'envelope-deliverby',
  'envelope-dsn',
  'ereject',
  'environment',
  'extlists',
  'foreverypart',
  'ihave',
  'include',
  'index',
  'mime',
  'regex',
  'reject',
  'relational',
  'subaddress',
  'variables',
];

const withEditing: ReadonlySet<string> = new Set([...common, 'editheader']);
const withoutEditing: ReadonlySet<string> = new Set(common);

const noMessage = 'there is no mail yet that could be thrown away';
const noRecipient = 'there is no recipient yet that could be replaced';

const beforeMail = new Map([
  ['discard', noMessage],
  ['redirect', noRecipient],
]);

/** Command → why it is none of this stage's. */
const withheldAt: Readonly<Record<ScriptStage, ReadonlyMap<string, string>>> = {
  connect: beforeMail,
  ehlo: beforeMail,
  auth: beforeMail,
  mail: new Map([['redirect', noRecipient]]),
  rcpt: new Map(),
  data: new Map(),
};

export const scriptLimits = {
  maxScriptBytes: 65_536,
  maxIncludes: 16,
  maxRedirects: 8,
  maxActions: 16,
  maxAddedFields: 32,
} as const satisfies Partial<SieveLimits>;

/** A run that waits (for a look-up list) longer than this has failed. */
export const maxScriptMs = 3_000;

/** A run is one piece of work for the event loop, unless it asks somebody: so many steps, and so much of a message, take few milliseconds of one core. */
export const [defaultMaxSteps, defaultMaxSeenBytes] = [25_000, 65_536];

/** @param stage undefined: wherever it may be run; what does not belong there is found out when it is. */
export function scriptOptions(stage: ScriptStage | undefined, maxSteps = defaultMaxSteps): CompileOptions {
  const isAfterData = stage === undefined || stage === 'data';
  return {
    extensions: isAfterData ? withEditing : withoutEditing,
    ...(stage && { withheld: withheldAt[stage] }),
    limits: { ...scriptLimits, maxSteps },
  };
}

/** Why an outcome can't be obeyed at this stage; undefined: it can. */
export function unfitting(stage: ScriptStage, actions: readonly SieveAction[], isHeaderEdited: boolean): string | undefined {
  for (const { kind } of actions) {
    const reason = withheldAt[stage].get(kind);
    if (reason !== undefined) return `${kind} is not for this stage: ${reason}`;
    if (!understood.has(kind)) return `${kind} is for scripts of users`;
  }
  return isHeaderEdited && stage !== 'data' ? 'there is no header yet that could be edited' : undefined;
}

const understood: ReadonlySet<SieveAction['kind']> = new Set(['keep', 'redirect', 'discard', 'reject']);
