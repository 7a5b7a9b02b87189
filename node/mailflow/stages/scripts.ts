/**
 * Operators' Sieve scripts at work: one room for each set of settings. A script sees what expressions see at its stage, decides, and leaves variables to the
 * later stages of its session or transaction. One that fails puts mail off, or is left aside, as `onFailure` says.
 */
import type { Clock } from '../../../ops/telemetry/index.js';
import {
  SieveError,
  type SieveInput,
  type SieveMessage,
  type SieveOutcome,
  SieveRunError,
} from '../../../protocols/sieve/index.js';
import type { Reply } from '../../../protocols/smtp/grammar/index.js';
import type { RecipientCommand, SessionInfo } from '../../../protocols/smtp/server/handler.js';
import type { Lookups } from '../../../store/lookups/contract.js';
import type { Asker } from './ask.js';
import type { ScriptStage, ScriptStages } from './contract.js';
import type { Facts } from './facts.js';
import { stageScripts } from './metrics.js';
import { refusalOf, refusals } from './refusal.js';
import { envelopeOf, environmentOf } from './script-facts.js';
import { maxScriptMs, unfitting } from './script-rules.js';
import { stateOf, type Transaction } from './state.js';

/** What a script has decided of a client, a sender, a recipient or a message. */
export interface ScriptVerdict {
  /** For who tells what has become of it. */
  script: string;
  refusal?: Reply;
  /** Whether it stays as it is; without it, `redirects` and a refusal it is thrown away. */
  isKept: boolean;
  /** Who gets the mail besides, or instead; as the script has written them. */
  redirects: readonly string[];
  edited?: NonNullable<SieveOutcome['editedFields']>;
}

/** What a stage knows besides its facts. */
export interface ScriptSubject {
  transaction?: Transaction;
  recipients?: readonly string[];
  commands?: readonly RecipientCommand[];
  message?: SieveMessage;
}

export interface ScriptDependencies {
  asker: Asker;
  clock: Clock;
  lookups?: Pick<Lookups, 'get'>;
}

const logPauseMs = 60_000;
/** More checks than this are not told apart any more. */
const maxCheckCharacters = 200;
/** A script's refusal has so many lines at most. */
const maxReplyLines = 20;

/** RFC 6134 2.1: ours are `lookup:NAME`, or a tag URI (RFC 4151) whose last part is the name. */
const listForm = /^(?:lookup:|tag:[^:]{1,200}:)([a-z0-9-]{1,64})$/i;

export class ScriptRoom {
  readonly #silentUntilMs = new Map<string, number>();

  constructor(
    readonly scripts: ScriptStages,
    private readonly d: ScriptDependencies,
  ) {}

  has(stage: ScriptStage): boolean {
    return this.scripts.at[stage] !== undefined;
  }

  /** Undefined where no script is to run, or one that has failed is passed over. */
  async run(
    stage: ScriptStage,
    session: SessionInfo,
    facts: () => Facts,
    subject: ScriptSubject,
  ): Promise<ScriptVerdict | undefined> {
    const expression = this.scripts.at[stage];
    const name = expression && (await this.d.asker.ask(expression, facts));
    if (!name) return undefined;
    if (this.scripts.textOf(name) === undefined) {
      // An expression may make it of what a stranger says: it must be no label and no key.
      const missing = new Error(`there is no script '${name.slice(0, 100)}'`);
      return this.failed(stage, '(none)', session, subject.transaction, missing);
    }
    try {
      const outcome = await this.#outcome(stage, name, session, facts(), subject);
      const verdict = verdictOf(stage, name, outcome);
      keepVariables(session, subject.transaction, outcome);
      this.#count(stage, verdict, session, subject.transaction);
      return verdict;
    } catch (error) {
      return this.failed(stage, name, session, subject.transaction, error);
    }
  }

  /** What a script wants can't be done. Answers what is to be obeyed instead. */
  failed(
    stage: ScriptStage,
    script: string,
    session: SessionInfo,
    transaction: Transaction | undefined,
    error: unknown,
  ): ScriptVerdict | undefined {
    stageScripts.inc({ stage, script, result: 'failed' });
    note(session, transaction, script, `${stage} failed`);
    this.#log(stage, script, session, error);
    if (this.scripts.onFailure === 'accept') return undefined;
    const refusal = stage === 'connect' ? { ...refusals.undecided, code: 421 } : refusals.undecided;
    return { script, isKept: false, redirects: [], refusal };
  }

  async #outcome(
    stage: ScriptStage,
    name: string,
    session: SessionInfo,
    facts: Facts,
    { transaction, recipients = [], commands = [], message }: ScriptSubject,
  ): Promise<SieveOutcome> {
    const script = this.scripts.compiled(stage, name);
    if (!script) throw new Error('there is no such script');
    const state = stateOf(session);
    const { clock, lookups } = this.d;
    const nowMs = clock.nowMs();
    const input: Omit<SieveInput, 'signal'> = {
      envelope: envelopeOf(session, transaction, recipients, commands, nowMs),
      ...(message && { message }),
      environment: environmentOf(stage, session, facts, transaction?.checks ?? state.checks),
      variables: transaction?.scriptVariables ?? state.scriptVariables,
      host: {
        include: (included, location) => (location === 'global' ? this.scripts.textOf(included) : undefined),
        isListName: (list) => listForm.test(list),
        isInList: (list, values) => isInList(lookups, list, values),
      },
      nowMs,
    };
    const outcome = await withinTime(clock, (signal) => script.run({ ...input, signal }));
    const problem = unfitting(stage, outcome.actions, outcome.editedFields !== undefined);
    if (problem !== undefined) throw new Error(problem);
    return outcome;
  }

  #count(stage: ScriptStage, verdict: ScriptVerdict, session: SessionInfo, transaction: Transaction | undefined): void {
    const { script } = verdict;
    const result = resultOf(verdict);
    stageScripts.inc({ stage, script, result });
    note(session, transaction, script, `${stage} ${result}`);
  }

  #log(stage: ScriptStage, script: string, session: SessionInfo, error: unknown): void {
    const key = `${stage} ${script}`;
    const nowMs = this.d.clock.monotonicMs();
    if (nowMs < (this.#silentUntilMs.get(key) ?? Number.NEGATIVE_INFINITY)) return;
    this.#silentUntilMs.set(key, nowMs + logPauseMs);
    const at = error instanceof SieveRunError || error instanceof SieveError ? error.at : undefined;
    const { onFailure } = this.scripts;
    session.logger.error({ stage, script, ...at, onFailure, err: error }, 'a script for incoming mail has failed');
  }
}

function verdictOf(stage: ScriptStage, script: string, { actions, keepsImplicitly, editedFields }: SieveOutcome): ScriptVerdict {
  const verdict: ScriptVerdict = {
    script,
    isKept: keepsImplicitly || actions.some(({ kind }) => kind === 'keep'),
    redirects: actions.flatMap((action) => (action.kind === 'redirect' ? [action.address] : [])),
    ...(editedFields && { edited: editedFields }),
  };
  const reject = actions.find(({ kind }) => kind === 'reject');
  if (reject?.kind !== 'reject') return verdict;
  return { ...verdict, isKept: false, refusal: rejection(reject.reason, refusals[stage]) };
}

/** A reason of several lines is a reply of several lines. */
function rejection(reason: string, otherwise: Reply): Reply {
  const refusal = refusalOf(reason, otherwise);
  if (!refusal) return otherwise;
  const lines = [refusal.text].flat().flatMap((text) => text.split(/[\r\n]+/).filter((line) => line.trim() !== ''));
  return lines.length > 1 ? { ...refusal, text: lines.slice(0, maxReplyLines) } : refusal;
}

function resultOf({ refusal, isKept, redirects, edited }: ScriptVerdict): string {
  if (refusal) return refusal.code >= 500 ? 'refused' : 'deferred';
  if (redirects.length > 0) return 'redirected';
  if (!isKept) return 'discarded';
  return edited ? 'edited' : 'kept';
}

/** For the history of the message, or of all messages of the session. Several recipients may have several results. */
function note(session: SessionInfo, transaction: Transaction | undefined, script: string, result: string): void {
  const checks = transaction?.checks ?? stateOf(session).checks;
  const name = `script:${script}`;
  const before = checks[name];
  if (before === undefined) checks[name] = result;
  else if (!before.split(', ').includes(result) && before.length < maxCheckCharacters) checks[name] = `${before}, ${result}`;
}

function keepVariables(session: SessionInfo, transaction: Transaction | undefined, { variables }: SieveOutcome): void {
  if (transaction) transaction.scriptVariables = variables;
  else stateOf(session).scriptVariables = variables;
}

async function isInList(lookups: ScriptDependencies['lookups'], list: string, values: readonly string[]): Promise<boolean> {
  const name = listForm.exec(list)?.[1]?.toLowerCase();
  if (name === undefined || !lookups)
    throw new SieveRunError(`there is no list ${list.slice(0, 100)}: they are called lookup:NAME`);
  for (const value of values) if ((await lookups.get(name, value)) !== undefined) return true;
  return false;
}

/** What comes too late is not waited for. */
function withinTime<T>(clock: Clock, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const timeUp = new AbortController();
  return new Promise((resolve, reject) => {
    const timer = clock.setTimer(maxScriptMs, () => {
      timeUp.abort();
      reject(new SieveRunError(`it took longer than ${maxScriptMs} ms`));
    });
    work(timeUp.signal)
      .then(resolve, reject)
      .finally(() => timer.cancel());
  });
}
