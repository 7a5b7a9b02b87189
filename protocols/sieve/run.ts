/** One run of a script: its budget, its variables, what it has decided so far. Nothing of it outlives the run. */
import { type Part, parseMessage } from '../message/index.js';
import { addAction } from './actions.js';
import {
  type Action,
  type Flow,
  type MaybePromise,
  type ParsedMessage,
  type SieveAction,
  SieveError,
  type SieveInput,
  type SieveLimits,
  type SieveOutcome,
  SieveRunError,
} from './contract.js';
import { ScriptHeader } from './header.js';
import { after, isPromise } from './maybe.js';
import { toRunError } from './run-errors.js';
import type { IncludingRun } from './scope.js';

/** What one script of a run sees of variables (RFC 6609 3.4: each has its own). */
interface Scope {
  /** As `include` calls it; '' for the one that is run. */
  key: string;
  variables: Map<string, string>;
  globalNames?: Set<string>;
  matches: readonly string[];
}

const globalPrefix = 'global.';
/** Finding the parts of a message takes about a hundredth of what comparing its bytes would. */
const parsedBytesPerStep = 10_000;

export class SieveRun implements IncludingRun {
  readonly input: SieveInput;
  readonly limits: SieveLimits;
  readonly header: ScriptHeader;
  readonly actions: SieveAction[] = [];
  readonly seenIds: SieveOutcome['seenIds'] = [];
  isImplicitKeepCancelled = false;
  flags: string[] = [];
  part: Part | undefined;

  readonly #compile: (text: string) => Action;
  readonly #signal: AbortSignal | undefined;
  readonly #globals: Map<string, string>;
  readonly #scopes: Scope[] = [{ key: '', variables: new Map(), matches: [] }];
  readonly #included = new Set<string>();
  #scope = this.#scopes[0]!;
  #variables = 0;
  #includes = 0;
  #steps = 0;
  #structure?: MaybePromise<ParsedMessage | undefined>;

  /** @param compile of included scripts; throws SieveError */
  constructor(input: SieveInput, limits: SieveLimits, compile: (text: string) => Action) {
    this.input = input;
    this.limits = limits;
    this.header = new ScriptHeader(input.message?.fields ?? [], limits);
    this.#compile = compile;
    this.#signal = input.signal;
    this.#globals = new Map(input.variables ? Object.entries(input.variables) : undefined);
  }

  spend(steps: number): void {
    this.#steps += steps;
    if (this.#steps > this.limits.maxSteps) throw new SieveRunError('the script has taken too many steps');
    if (this.#signal?.aborted) throw abortError(this.#signal);
  }

  act(action: SieveAction): void {
    addAction(this.actions, action, this.limits);
  }

  structure(): MaybePromise<ParsedMessage | undefined> {
    this.#structure ??= this.input.message
      ? after(this.input.message.bytes(this.limits.maxMessageBytes), (bytes) => {
          this.spend(Math.ceil(bytes.length / parsedBytesPerStep));
          return { bytes, root: parseMessage(bytes) };
        })
      : undefined;
    return this.#structure;
  }

  // ---- variables ----

  variable(name: string): string | undefined {
    const first = name.charCodeAt(0);
    if (first >= 0x30 && first <= 0x39) return this.#scope.matches[Number(name)];
    if (name.startsWith(globalPrefix)) return this.#globals.get(name.slice(globalPrefix.length));
    return this.#mapOf(name).get(name);
  }

  /** Values that are too long are cut between two characters (RFC 5229 6). */
  setVariable(name: string, value: string): void {
    const key = name.startsWith(globalPrefix) ? name.slice(globalPrefix.length) : name;
    const variables = key === name ? this.#mapOf(name) : this.#globals;
    if (!variables.has(key) && ++this.#variables > this.limits.maxVariables) {
      throw new SieveRunError(`there are too many variables: at most ${this.limits.maxVariables}`);
    }
    variables.set(key, withinBytes(value, this.limits.maxVariableBytes));
  }

  setMatches(values: readonly string[]): void {
    this.#scope.matches = values;
  }

  declareGlobal(names: readonly string[]): void {
    const scope = this.#scope;
    scope.globalNames ??= new Set();
    for (const name of names) {
      // RFC 6609 3.4.2: a name is local or global, not one after the other.
      if (scope.variables.has(name))
        throw new SieveRunError(`the variable '${name}' can't be made global: it has been set before`);
      scope.globalNames.add(name);
    }
  }

  #mapOf(name: string): Map<string, string> {
    return this.#scope.globalNames?.has(name) ? this.#globals : this.#scope.variables;
  }

  // ---- included scripts ----

  wasIncluded(key: string): boolean {
    return this.#included.has(key);
  }

  include(key: string, text: string): MaybePromise<Flow> {
    // RFC 6609 3.1: a script that includes itself, also through others, is an error.
    if (this.#scopes.some((scope) => scope.key === key)) throw new SieveRunError(`the script '${key}' includes itself`);
    if (this.#scopes.length > this.limits.maxIncludeDepth) {
      throw new SieveRunError(`scripts include one another too deeply: at most ${this.limits.maxIncludeDepth} levels`);
    }
    if (++this.#includes > this.limits.maxIncludes) {
      throw new SieveRunError(`too many scripts are included: at most ${this.limits.maxIncludes}`);
    }
    this.#included.add(key);
    const main = this.#compileIncluded(key, text);
    this.#scope = { key, variables: new Map(), matches: [] };
    this.#scopes.push(this.#scope);
    try {
      const flow = main(this);
      if (!isPromise(flow)) return this.#leave(flow);
      return flow.then(
        (value) => this.#leave(value),
        (error) => {
          throw inIncluded(key, error);
        },
      );
    } catch (error) {
      throw inIncluded(key, error);
    }
  }

  #compileIncluded(key: string, text: string): Action {
    try {
      return this.#compile(text);
    } catch (error) {
      if (!(error instanceof SieveError)) throw error;
      throw inIncluded(key, new SieveRunError(error.message, error.at, { cause: error }));
    }
  }

  /** RFC 6609 3.2: `return` ends only the included script, `stop` all of them. */
  #leave(flow: Flow): Flow {
    this.#scopes.pop();
    this.#scope = this.#scopes[this.#scopes.length - 1]!;
    return flow === 'return' ? undefined : flow;
  }

  // ---- the run as a whole ----

  /** @throws SieveRunError, whatever goes wrong. */
  async complete(main: Action): Promise<SieveOutcome> {
    try {
      this.spend(0);
      const flow = main(this);
      if (isPromise(flow)) await untilAborted(flow, this.#signal);
    } catch (error) {
      throw toRunError(error);
    }
    const editedFields = this.header.edited();
    return {
      actions: this.actions,
      keepsImplicitly: !this.isImplicitKeepCancelled,
      flags: this.flags,
      ...(editedFields && { editedFields }),
      seenIds: this.seenIds,
      variables: Object.fromEntries(this.#globals),
      steps: this.#steps,
    };
  }
}

/** The place is one in the included script: it becomes a part of the message, and the error's place that of the `include`. */
function inIncluded(key: string, error: unknown): SieveRunError {
  const { message, at, cause } = toRunError(error);
  const place = at ? `, line ${at.line}, column ${at.column}` : '';
  return new SieveRunError(`in the included script '${key}'${place}: ${message}`, undefined, { cause });
}

/** What a script waits for may never come. */
async function untilAborted(pending: Promise<unknown>, signal: AbortSignal | undefined): Promise<void> {
  if (!signal) {
    await pending;
    return;
  }
  let abort = () => {};
  const aborted = new Promise<never>((_, reject) => {
    abort = () => reject(abortError(signal));
  });
  signal.addEventListener('abort', abort, { once: true });
  if (signal.aborted) abort();
  try {
    await Promise.race([pending, aborted]);
  } finally {
    signal.removeEventListener('abort', abort);
    pending.catch(() => {});
  }
}

function abortError(signal: AbortSignal): SieveRunError {
  return new SieveRunError('the run was ended from outside', undefined, { cause: signal.reason });
}

function withinBytes(value: string, maxBytes: number): string {
  if (value.length * 3 <= maxBytes) return value;
  const bytes = Buffer.from(value);
  if (bytes.length <= maxBytes) return value;
  let end = maxBytes;
  while (end > 0 && (bytes[end]! & 0xc0) === 0x80) end--;
  return bytes.toString('utf8', 0, end);
}
