/** The operators between two values. The type checker has seen to it that both sides fit. */
import { Complaint, type Evaluation, madeText, spend, textSteps, type Value } from './evaluation.js';

type Operator = (values: readonly Value[], evaluation: Evaluation) => Value;

const numbers =
  (use: (a: number, b: number) => number): Operator =>
  ([a, b]) => {
    // `+ 0`: there is no negative zero among whole numbers.
    const result = use(a as number, b as number) + 0;
    if (!Number.isSafeInteger(result)) throw new Complaint('the number becomes too large');
    return result;
  };

function nonZero(value: number): number {
  if (value === 0) throw new Complaint('division by zero');
  return value;
}

/** Pays for both texts. */
const comparing =
  (use: (a: string, b: string) => boolean): Operator =>
  ([a, b], evaluation) => {
    if (typeof a === 'string') spend(evaluation, textSteps(Math.min(a.length, (b as string).length)));
    return use(a as string, b as string);
  };

function isEqual(a: Value, b: Value, evaluation: Evaluation): boolean {
  if (typeof a === 'string' && a.length === (b as string).length) spend(evaluation, textSteps(a.length) - 1);
  if (a === b) return true;
  if (typeof a !== 'object' || typeof b !== 'object') return false;
  if (a.length !== b.length) return false;
  return a.every((item, index) => {
    spend(evaluation, 1);
    return isEqual(item, b[index]!, evaluation);
  });
}

const add = numbers((a, b) => a + b);

function plus(values: readonly Value[], evaluation: Evaluation): Value {
  const [a, b] = values;
  if (typeof a === 'number') return add(values, evaluation);
  if (typeof a === 'string') {
    spend(evaluation, textSteps(a.length + (b as string).length));
    return madeText(a + (b as string));
  }
  const [left, right] = [a as readonly Value[], b as readonly Value[]];
  spend(evaluation, left.length + right.length);
  return [...left, ...right];
}

function isIn([item, list]: readonly Value[], evaluation: Evaluation): boolean {
  return (list as readonly Value[]).some((other) => {
    spend(evaluation, 1);
    return isEqual(item!, other, evaluation);
  });
}

export const binaryOperators: Record<string, Operator> = {
  '==': ([a, b], evaluation) => isEqual(a!, b!, evaluation),
  '!=': ([a, b], evaluation) => !isEqual(a!, b!, evaluation),
  '<': comparing((a, b) => a < b),
  '<=': comparing((a, b) => a <= b),
  '>': comparing((a, b) => a > b),
  '>=': comparing((a, b) => a >= b),
  '+': plus,
  '-': numbers((a, b) => a - b),
  '*': numbers((a, b) => a * b),
  '/': numbers((a, b) => Math.trunc(a / nonZero(b))),
  '%': numbers((a, b) => a % nonZero(b)),
  in: isIn,
};
