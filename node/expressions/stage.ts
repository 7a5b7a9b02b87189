/** Compiles what a setting holds: a literal, one expression, or a list of `{if, then}` that ends with `{else}`. */
import {
  ExpressionError,
  type ExpressionHost,
  type ExpressionPosition,
  type ExpressionSource,
  type ExpressionType,
  type ExpressionValues,
  expressionLimits,
  type StageExpression,
  type StageFacts,
  type StageOptions,
} from './contract.js';
import { type Answer, Complaint, type Evaluation, newEvaluation, spend, type Value } from './evaluation.js';
import { isFactName } from './facts.js';
import { locator, parseChecked } from './language.js';
import { type Compiled, compileTree, type Run } from './tree.js';

/** One of the values that a setting may come to. */
export interface Outcome {
  position: ExpressionPosition;
  /** Undefined when it depends on something. */
  constant: Value | undefined;
}

export interface CompiledExpression<T extends ExpressionType> extends StageExpression<T> {
  /** For checks of constants: all that the setting may come to. */
  readonly outcomes: readonly Outcome[];
}

/**
 * Compiles a stage setting. Throws ExpressionError with place, position and reason: for what can't be parsed, has the wrong type, asks for variables that have no
 * value at this stage, or holds a constant that no function takes.
 */
export function compileStage<T extends ExpressionType>(
  source: ExpressionSource,
  type: T,
  options: StageOptions,
): CompiledExpression<T> {
  const isList = typeof source === 'object';
  const { compiled, outcomes } = isList ? compileList(source, type, options) : compileEntry(source, type, options, undefined);
  return {
    type,
    constant: compiled.constant as ExpressionValues[T] | undefined,
    mayWait: compiled.mayWait,
    outcomes,
    evaluate: evaluator(compiled) as StageExpression<T>['evaluate'],
  };
}

interface Entry {
  compiled: Compiled;
  outcomes: Outcome[];
}

function compileEntry(
  source: string | number | boolean,
  type: ExpressionType,
  options: StageOptions,
  place: string | undefined,
): Entry {
  const locate = locator(typeof source === 'string' ? source : '', place);
  const compiled = typeof source === 'string' ? compileValue(source, type, options, place) : literal(source, type, locate(0));
  return { compiled, outcomes: [{ position: locate(0), constant: compiled.constant }] };
}

const isWord = (source: string) => /^[a-z]\w*$/i.test(source);

/** A word that stands for itself, or an expression. */
function compileValue(source: string, type: ExpressionType, options: StageOptions, place: string | undefined): Compiled {
  const { words } = options;
  if (words?.includes(source)) return { run: () => source, constant: source, mayWait: false };
  // Whoever writes a wrong word wants to know the right ones, not that there is no such variable.
  if (words && isWord(source) && !isFactName(source))
    throw new ExpressionError(`'${source.slice(0, 60)}' is none of ${words.join(', ')}`, locator(source, place)(0));
  return compileText(source, type, options, place);
}

function compileText(source: string, type: ExpressionType, options: StageOptions, place: string | undefined): Compiled {
  const locate = locator(source, place);
  const tree = parseChecked(source, type, options.variables, locate);
  return compileTree(tree, { variables: new Set(options.variables), loops: new Map(), locate });
}

function literal(value: number | boolean, type: ExpressionType, position: ExpressionPosition): Compiled {
  if (type === 'string' || type === 'strings')
    throw new ExpressionError(`an expression is wanted here, in quotes, not ${value}`, position);
  if (typeof value !== (type === 'int' ? 'number' : 'boolean'))
    throw new ExpressionError(`${value} is no ${type === 'int' ? 'whole number' : 'true or false'}`, position);
  if (typeof value === 'number' && !Number.isSafeInteger(value))
    throw new ExpressionError(`${value} is no whole number`, position);
  return { run: () => value, constant: value, mayWait: false };
}

type Branches = Extract<ExpressionSource, readonly unknown[]>;

function compileList(source: Branches, type: ExpressionType, options: StageOptions): Entry {
  if (source.length > expressionLimits.maxBranches)
    throw new ExpressionError(
      `more than ${expressionLimits.maxBranches} alternatives`,
      start(`[${expressionLimits.maxBranches}]`),
    );
  const branches: { test: Compiled; value: Compiled }[] = [];
  const outcomes: Outcome[] = [];
  let last: Entry | undefined;
  for (const [index, branch] of source.entries()) {
    if (last) throw new ExpressionError('nothing may come after else', start(`[${index}]`));
    if ('else' in branch) {
      last = compileEntry(branch.else, type, options, `[${index}].else`);
      continue;
    }
    const test = compileText(branch.if, 'bool', options, `[${index}].if`);
    const then = compileEntry(branch.then, type, options, `[${index}].then`);
    branches.push({ test, value: then.compiled });
    outcomes.push(...then.outcomes);
  }
  last ??= ending(source, type, options);
  outcomes.push(...last.outcomes);
  return { compiled: folded(branches, last.compiled), outcomes };
}

const start = (place: string): ExpressionPosition => ({ place, offset: 0, line: 1, column: 1 });

function ending(source: Branches, type: ExpressionType, options: StageOptions): Entry {
  if (options.otherwise === undefined)
    throw new ExpressionError('the list has to end with {else} here', start(`[${source.length}]`));
  return compileEntry(options.otherwise, type, options, 'otherwise');
}

/** Alternatives that can't be chosen are dropped. */
function folded(branches: { test: Compiled; value: Compiled }[], end: Compiled): Compiled {
  let last = end;
  const open: { test: Run; value: Run }[] = [];
  let mayWait = false;
  for (const { test, value } of branches) {
    if (test.constant === false) continue;
    if (test.constant === true) {
      last = value;
      break;
    }
    open.push({ test: test.run, value: value.run });
    mayWait ||= test.mayWait || value.mayWait;
  }
  if (open.length === 0) return last;
  const from = (evaluation: Evaluation, first: number): Answer => {
    for (let i = first; i < open.length; i++) {
      spend(evaluation, 1);
      const { test, value } = open[i]!;
      const answer = test(evaluation);
      if (answer instanceof Promise)
        return answer.then((settled) => (settled === true ? value(evaluation) : from(evaluation, i + 1)));
      if (answer === true) return value(evaluation);
    }
    return last.run(evaluation);
  };
  return { run: (evaluation) => from(evaluation, 0), constant: undefined, mayWait: mayWait || last.mayWait };
}

function evaluator({ run, constant }: Compiled): (facts: Partial<StageFacts>, host?: ExpressionHost) => Answer {
  if (constant !== undefined) return () => constant;
  return (facts, host) => {
    const evaluation = newEvaluation(facts, host);
    let answer: Answer;
    try {
      answer = run(evaluation);
    } catch (error) {
      throw asExpressionError(error);
    }
    return answer instanceof Promise ? limited(answer, evaluation) : answer;
  };
}

/** Waits for at most `maxWaitMs`; what goes on behind has no steps left. */
function limited(answer: Promise<Value>, evaluation: Evaluation): Promise<Value> {
  return new Promise<Value>((resolve, reject) => {
    const timer = evaluation.host!.clock.setTimer(
      expressionLimits.maxWaitMs,
      () => {
        evaluation.stepsLeft = -1;
        reject(new ExpressionError(`no answer within ${expressionLimits.maxWaitMs} ms`));
      },
      { background: true },
    );
    answer.then(resolve, (error: unknown) => reject(asExpressionError(error))).finally(() => timer.cancel());
  });
}

function asExpressionError(error: unknown): unknown {
  return error instanceof Complaint ? new ExpressionError(error.message, undefined, { cause: error.cause }) : error;
}
