/**
 * Makes a checked tree into closures that count their steps. Constants are worked out here. What has no function of the host below it never meets a promise.
 * `&&`, `||` and `?:` look only at what they need, from left to right.
 */
import { ExpressionError, type FactName } from './contract.js';
import { type Answer, after, Complaint, type Evaluation, newEvaluation, spend, type Value } from './evaluation.js';
import { factReader } from './facts.js';
import { type CheckedNode, findFunction, type Locate } from './language.js';
import { binaryOperators } from './operators.js';

export type Run = (evaluation: Evaluation) => Answer;

export interface Compiled {
  run: Run;
  constant: Value | undefined;
  mayWait: boolean;
}

export interface Scope {
  variables: ReadonlySet<string>;
  /** Loop variables by slot. */
  loops: ReadonlyMap<string, number>;
  locate: Locate;
}

const constantOf = (value: Value): Compiled => ({
  run: (evaluation) => {
    spend(evaluation, 1);
    return value;
  },
  constant: value,
  mayWait: false,
});

/** Throws ExpressionError. */
export function compileTree(node: CheckedNode, scope: Scope): Compiled {
  switch (node.op) {
    case 'value':
      return literal(node, node.args, scope);
    case 'id':
      return variable(node.args, node, scope);
    case 'list':
      return combine(node, node.args, scope, (items) => items);
    case '[]':
      return combine(node, node.args, scope, ([list, index]) => element(list as readonly Value[], index as number));
    case '!_':
      return combine(node, [node.args], scope, ([value]) => !value);
    case '-_':
      return combine(node, [node.args], scope, ([value]) => 0 - (value as number));
    case '?:':
      return conditional(node.args, scope);
    case '&&':
      return shortCircuit(node.args, scope, false);
    case '||':
      return shortCircuit(node.args, scope, true);
    case 'call':
      return call(node, node.args[0], node.args[1], scope);
    case 'rcall':
      return loop(node, node.args, scope) ?? call(node, node.args[0], [node.args[1], ...node.args[2]], scope);
    default: {
      const operator = Object.hasOwn(binaryOperators, node.op) ? binaryOperators[node.op] : undefined;
      if (!operator) throw refused(node, scope, node.op === 'map' ? 'there are no maps here' : 'there are no fields here');
      return combine(node, node.args as readonly CheckedNode[], scope, operator);
    }
  }
}

function refused(node: CheckedNode, scope: Scope, reason: string): ExpressionError {
  return new ExpressionError(reason, scope.locate(node.start));
}

function literal(node: CheckedNode, value: unknown, scope: Scope): Compiled {
  if (typeof value === 'string' || typeof value === 'boolean') return constantOf(value);
  if (typeof value === 'bigint') {
    const whole = Number(value);
    if (Number.isSafeInteger(whole)) return constantOf(whole);
    throw refused(node, scope, `the number is beyond ${Number.MAX_SAFE_INTEGER}`);
  }
  throw refused(node, scope, 'there are only whole numbers, texts in quotes, true, false and lists');
}

function variable(name: string, node: CheckedNode, scope: Scope): Compiled {
  const slot = scope.loops.get(name);
  if (slot !== undefined) {
    return {
      run: (evaluation) => {
        spend(evaluation, 1);
        return evaluation.slots[slot]!;
      },
      constant: undefined,
      mayWait: false,
    };
  }
  if (!scope.variables.has(name)) throw refused(node, scope, `there is no variable '${name}' (a text has quotes: '${name}')`);
  const read = factReader(name as FactName);
  return {
    run: (evaluation) => {
      spend(evaluation, 1);
      return read(evaluation.facts);
    },
    constant: undefined,
    mayWait: false,
  };
}

function element(list: readonly Value[], index: number): Value {
  const found = list[index];
  if (found === undefined) throw new Complaint(`the list has ${list.length} elements: there is none at ${index}`);
  return found;
}

type Combine = (values: readonly Value[], evaluation: Evaluation) => Answer;

/** A node that needs all of its children. */
function combine(
  node: CheckedNode,
  children: readonly CheckedNode[],
  scope: Scope,
  use: Combine,
  options: { asksHost?: boolean; prepare?: (constants: readonly (Value | undefined)[]) => Combine } = {},
): Compiled {
  const compiled = children.map((child) => compileTree(child, scope));
  const constants = compiled.map(({ constant }) => constant);
  const locate = () => scope.locate(node.start);
  const act = options.prepare ? located(() => options.prepare!(constants), locate) : use;
  const mayWait = options.asksHost === true || compiled.some((child) => child.mayWait);
  const runs = compiled.map(({ run }) => run);
  const run = placed(mayWait ? waitingRun(runs, act) : promptRun(runs, act), locate);
  if (options.asksHost || constants.includes(undefined)) return { run, constant: undefined, mayWait };
  return constantOf(run(newEvaluation({}, undefined)) as Value);
}

function promptRun(runs: readonly Run[], use: Combine): Run {
  const [first, second] = runs;
  if (runs.length === 1)
    return (evaluation) => {
      spend(evaluation, 1);
      return use([first!(evaluation) as Value], evaluation);
    };
  if (runs.length === 2)
    return (evaluation) => {
      spend(evaluation, 1);
      return use([first!(evaluation) as Value, second!(evaluation) as Value], evaluation);
    };
  return (evaluation) => {
    spend(evaluation, 1);
    const values: Value[] = [];
    for (const run of runs) values.push(run(evaluation) as Value);
    return use(values, evaluation);
  };
}

/** One child after the other, so that loop variables and counters mean the same each time. */
function waitingRun(runs: readonly Run[], use: Combine): Run {
  const collect = (evaluation: Evaluation, values: Value[]): Answer => {
    for (let i = values.length; i < runs.length; i++) {
      const value = runs[i]!(evaluation);
      if (value instanceof Promise) {
        return value.then((settled) => {
          values.push(settled);
          return collect(evaluation, values);
        });
      }
      values.push(value);
    }
    return use(values, evaluation);
  };
  return (evaluation) => {
    spend(evaluation, 1);
    return collect(evaluation, []);
  };
}

/** Gives complaints their position. */
function placed(run: Run, locate: () => ReturnType<Locate>): Run {
  return (evaluation) => {
    let answer: Answer;
    try {
      answer = run(evaluation);
    } catch (error) {
      throw withPosition(error, locate);
    }
    if (!(answer instanceof Promise)) return answer;
    return answer.catch((error: unknown) => {
      throw withPosition(error, locate);
    });
  };
}

function located<T>(make: () => T, locate: () => ReturnType<Locate>): T {
  try {
    return make();
  } catch (error) {
    throw withPosition(error, locate);
  }
}

function withPosition(error: unknown, locate: () => ReturnType<Locate>): unknown {
  if (!(error instanceof Complaint)) return error;
  return new ExpressionError(error.message, locate(), { cause: error.cause });
}

function call(node: CheckedNode, name: string, children: readonly CheckedNode[], scope: Scope): Compiled {
  const definition = findFunction(name, children.length);
  if (!definition) throw refused(node, scope, `there is no function '${name}'`);
  const { call: use, prepare, asksHost } = definition;
  return combine(node, children, scope, use, { ...(asksHost && { asksHost }), ...(prepare && { prepare }) });
}

function conditional(parts: readonly CheckedNode[], scope: Scope): Compiled {
  const [test, left, right] = parts.map((part) => compileTree(part, scope)) as [Compiled, Compiled, Compiled];
  if (test.constant !== undefined) return test.constant === true ? left : right;
  return {
    run: (evaluation) => {
      spend(evaluation, 1);
      return after(test.run(evaluation), (value) => (value === true ? left : right).run(evaluation));
    },
    constant: undefined,
    mayWait: test.mayWait || left.mayWait || right.mayWait,
  };
}

/** `decisive`: the value of the first operand that makes the second one unnecessary. */
function shortCircuit(parts: readonly CheckedNode[], scope: Scope, decisive: boolean): Compiled {
  const [left, right] = parts.map((part) => compileTree(part, scope)) as [Compiled, Compiled];
  if (left.constant !== undefined) return left.constant === decisive ? left : right;
  return {
    run: (evaluation) => {
      spend(evaluation, 1);
      return after(left.run(evaluation), (value) => (value === decisive ? decisive : right.run(evaluation)));
    },
    constant: undefined,
    mayWait: left.mayWait || right.mayWait,
  };
}

/** What a loop makes of the answers to its body: `take` says whether to go on. */
interface Collecting {
  take(answer: Value | undefined, item: Value): boolean;
  result(): Value;
}

function collecting(name: string): Collecting {
  const found: Value[] = [];
  let count = 0;
  let isDecided = false;
  switch (name) {
    case 'map':
      return { take: (answer) => answer === undefined || found.push(answer) > 0, result: () => found };
    case 'filter':
      return { take: (answer, item) => answer !== true || found.push(item) > 0, result: () => found };
    case 'all':
      return { take: (answer) => !(isDecided = answer !== true), result: () => !isDecided };
    case 'exists':
      return { take: (answer) => !(isDecided = answer === true), result: () => isDecided };
    default:
      return { take: (answer) => (answer === true ? ++count : count) <= 1, result: () => count === 1 };
  }
}

const loopNames = new Set(['all', 'exists', 'exists_one', 'filter', 'map']);

function loop(
  node: CheckedNode,
  [name, receiver, args]: readonly [string, CheckedNode, readonly CheckedNode[]],
  scope: Scope,
): Compiled | undefined {
  const [item, ...bodies] = args;
  if (!loopNames.has(name) || item?.op !== 'id') return undefined;
  const over = compileTree(receiver, scope);
  const slot = scope.loops.size;
  // A name that is used again hides the outer one; slots are counted by nesting all the same.
  const loops = new Map(scope.loops);
  if (loops.has(item.args)) loops.set(` ${slot}`, slot);
  loops.set(item.args, slot);
  const inner = bodies.map((body) => compileTree(body, { ...scope, loops }));
  const body = inner.length === 2 ? filteredBody(inner as [Compiled, Compiled]) : inner[0]!.run;
  const each = (evaluation: Evaluation, list: readonly Value[], from: number, into: Collecting): Answer => {
    for (let i = from; i < list.length; i++) {
      spend(evaluation, 1);
      evaluation.slots[slot] = list[i]!;
      const answer = body(evaluation);
      if (answer instanceof Promise) {
        return answer.then((settled) => (into.take(settled, list[i]!) ? each(evaluation, list, i + 1, into) : into.result()));
      }
      if (!into.take(answer, list[i]!)) break;
    }
    return into.result();
  };
  const run: Run = (evaluation) => {
    spend(evaluation, 1);
    return after(over.run(evaluation), (list) => each(evaluation, list as readonly Value[], 0, collecting(name)));
  };
  return {
    run: placed(run, () => scope.locate(node.start)),
    constant: undefined,
    mayWait: over.mayWait || inner.some(({ mayWait }) => mayWait),
  };
}

/** `map(x, condition, value)`: undefined for what is left out. */
function filteredBody([test, value]: [Compiled, Compiled]): Run {
  return (evaluation) =>
    after(test.run(evaluation), (isIn) => (isIn === true ? value.run(evaluation) : (undefined as unknown as Value)));
}
