/** Stages where nothing was set. */
import type { ExpressionType, ExpressionValues, StageExpression } from '../../expressions/contract.js';
import type { AcceptStages } from './contract.js';

/** An expression that always answers the same. */
export function constantly<T extends ExpressionType>(type: T, constant: ExpressionValues[T]): StageExpression<T> {
  return { type, constant, mayWait: false, evaluate: () => constant };
}

/** What depends on nothing but being logged in, without a compiler. */
const ifLoggedIn = (then: number, otherwise: number): StageExpression<'int'> => ({
  type: 'int',
  constant: undefined,
  mayWait: false,
  evaluate: ({ authenticated_as }) => (authenticated_as ? then : otherwise),
});

/** Mail is taken for local domains from everybody and for others from those who have logged in; nothing is counted, looked up or rewritten. */
export const defaultStages: AcceptStages = {
  policy: {},
  connect: {},
  ehlo: {},
  auth: {},
  mail: {
    minPriority: constantly('int', -9),
    // RFC 6710 5.1: who is not known may not push ahead of others.
    maxPriority: ifLoggedIn(9, 0),
  },
  rcpt: {},
  data: {},
  rates: { connect: [], auth: [], mail: [], rcpt: [], data: [] },
  concurrency: { connect: [], auth: [] },
  isKnownClient: () => false,
  quotas: [],
};
