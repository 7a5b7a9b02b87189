/** How compiled commands follow one another: sequences and `if` (RFC 5228 3.1), without waiting where nothing has to be waited for. */
import type { Action, Flow, MaybePromise, Position, Run, Test } from './contract.js';
import { isPromise } from './maybe.js';
import { toRunError } from './run-errors.js';

/** Tests whose answer is known when the script is compiled. */
export const always: Test = () => true;
export const never: Test = () => false;
export const nothing: Action = () => undefined;

type Result = MaybePromise<Flow>;

/** Runs one after the other until one gives a flow. Errors get the place of the command that they come from. */
export function sequence(actions: readonly Action[], places: readonly Position[]): Action {
  const runFrom = (run: Run, start: number): Result => {
    let i = start;
    try {
      for (; i < actions.length; i++) {
        run.spend(1);
        const flow = actions[i]!(run);
        if (flow === undefined) continue;
        return isPromise(flow) ? goOn(run, i, flow) : flow;
      }
    } catch (error) {
      throw toRunError(error, places[i]);
    }
    return undefined;
  };
  const goOn = async (run: Run, i: number, pending: Promise<Flow>): Promise<Flow> => {
    let flow: Flow;
    try {
      flow = await pending;
    } catch (error) {
      throw toRunError(error, places[i]);
    }
    return flow === undefined ? runFrom(run, i + 1) : flow;
  };
  if (actions.length === 0) return nothing;
  return (run) => runFrom(run, 0);
}

export interface Branch {
  test: Test;
  block: Action;
}

/** The block of the first test that holds. */
export function choice(branches: readonly Branch[]): Action {
  const runFrom = (run: Run, start: number): Result => {
    for (let i = start; i < branches.length; i++) {
      const branch = branches[i]!;
      const holds = branch.test(run);
      if (isPromise(holds)) return holds.then((answer) => (answer ? branch.block(run) : runFrom(run, i + 1)));
      if (holds) return branch.block(run);
    }
    return undefined;
  };
  return (run) => runFrom(run, 0);
}

/** A test that is counted each time. */
export function counted(test: Test): Test {
  if (test === always || test === never) return test;
  return (run) => {
    run.spend(1);
    return test(run);
  };
}

/** Whether all (`decidedBy` false) or any (true) of the tests hold: they are asked left to right until one decides. */
export function combination(tests: readonly Test[], decidedBy: boolean): Test {
  const askFrom = (run: Run, start: number): MaybePromise<boolean> => {
    for (let i = start; i < tests.length; i++) {
      const holds = tests[i]!(run);
      if (isPromise(holds)) return holds.then((answer) => (answer === decidedBy ? decidedBy : askFrom(run, i + 1)));
      if (holds === decidedBy) return decidedBy;
    }
    return !decidedBy;
  };
  return (run) => askFrom(run, 0);
}
