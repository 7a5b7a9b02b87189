/**
 * What one evaluation carries: facts, host, the steps that are left. Everything that an expression does is paid for in steps before it is done, so that no
 * expression over no text, however hostile, costs more than `expressionLimits.maxSteps`.
 */
import { type ExpressionHost, expressionLimits, type StageFacts } from './contract.js';

export type Value = boolean | number | string | readonly Value[];
/** A promise only where a function of the host was called. */
export type Answer = Value | Promise<Value>;

export interface Evaluation {
  readonly facts: Partial<StageFacts>;
  readonly host: ExpressionHost | undefined;
  /** Loop variables, by slot. */
  readonly slots: Value[];
  stepsLeft: number;
}

export function newEvaluation(facts: Partial<StageFacts>, host: ExpressionHost | undefined): Evaluation {
  return { facts, host, slots: [], stepsLeft: expressionLimits.maxSteps };
}

/** What a function complains about; whoever called it adds the position. */
export class Complaint extends Error {
  override readonly name = 'Complaint';
}

export function spend(evaluation: Evaluation, steps: number): void {
  evaluation.stepsLeft -= steps;
  // So that not even NaN lets it go on.
  if (!(evaluation.stepsLeft >= 0)) throw new Complaint(`it takes more than ${expressionLimits.maxSteps} steps`);
}

/** Steps of looking at that many characters. */
export const textSteps = (length: number) => (length >> 6) + 1;

/** A text that was put together; throws when it is too long. */
export function madeText(text: string): string {
  if (text.length > expressionLimits.maxStringLength)
    throw new Complaint(`a text would be longer than ${expressionLimits.maxStringLength} characters`);
  return text;
}

export function after(value: Answer, next: (value: Value) => Answer): Answer {
  return value instanceof Promise ? value.then(next) : next(value);
}
