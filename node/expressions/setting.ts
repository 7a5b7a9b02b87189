/**
 * Stage settings in the schemas of `node/settings/schemas/`: what is written is kept and checked when it is saved; whoever obeys it compiles it once per
 * change and asks for its value, which is there whatever happens: an expression that fails gives way to the default, is logged and counted.
 */
import { z } from 'zod';
import { type Clock, counter, type Logger } from '../../ops/telemetry/index.js';
import {
  ExpressionError,
  type ExpressionHost,
  type ExpressionSource,
  type ExpressionType,
  type ExpressionValues,
  expressionLimits,
  type StageFacts,
  type StageOptions,
} from './contract.js';
import { type CompiledExpression, compileStage } from './stage.js';

// `setting`: its path in the settings, such as smtp.greeting; as many as there are stage settings.
const failures = counter('starling_expression_failures_total', 'Expressions in settings that could not be evaluated', [
  'setting',
]);

const logPauseMs = 60_000;

/**
 * For the description of a setting that was a constant in releases before: a node of such a release that finds an expression there keeps the last contents of
 * the whole section that it can read.
 */
export const onceConstant = 'an expression only when every node has a release that knows it may be one';

export interface StageDeclaration<T extends ExpressionType> extends StageOptions {
  /** As it would be written. A text is an expression. Must not ask the host unless there is a `fallback`. */
  default: ExpressionSource;
  description: string;
  /** Of `int`. Constants beyond are refused when saving, results are brought into the range. */
  min?: number;
  max?: number;
  /** Of `string` (and each of `strings`). Constants that are not among them are refused when saving; a result that is not is a failure. Default: `words`. */
  choices?: readonly string[];
  /** Used when an expression fails, instead of the default. For decisions that must fail closed. */
  fallback?: ExpressionValues[T];
}

/** A zod schema whose output is the source as it was written. `z.infer` is ExpressionSource. */
export type StageSchema<T extends ExpressionType> = z.ZodDefault<z.ZodType<ExpressionSource, ExpressionSource>> & {
  readonly stageType?: T;
};

interface Declared {
  type: ExpressionType;
  declaration: StageDeclaration<ExpressionType>;
  defaultExpression: CompiledExpression<ExpressionType>;
  compiled: { byIdentity: WeakMap<object, CompiledStage<ExpressionType>>; byValue: Map<unknown, CompiledStage<ExpressionType>> };
}

/** A setting ready for use: the compiled source with what its declaration says. */
export interface CompiledStage<T extends ExpressionType> {
  readonly expression: CompiledExpression<T>;
  readonly declaration: StageDeclaration<T>;
}

const declared = new WeakMap<object, Declared>();

const literal = z.union([z.string().max(expressionLimits.maxSourceBytes), z.number(), z.boolean()]);
// biome-ignore lint/suspicious/noThenProperty: that is its name in the settings, and it is never a function.
const choice = z.strictObject({ if: z.string(), then: literal });
const branch = z.union([choice, z.strictObject({ else: literal })], { error: 'an alternative is {if, then} or {else}' });

/**
 * Declares a stage setting. A list without `else` ends with `otherwise`, or with the default where that is no list.
 * Throws ExpressionError for a default that would itself be refused.
 */
export function stageSetting<T extends ExpressionType>(type: T, stage: StageDeclaration<T>): StageSchema<T> {
  const otherwise =
    stage.otherwise ?? (typeof stage.default === 'object' ? undefined : (stage.default as string | number | boolean));
  const choices = stage.choices ?? stage.words;
  const declaration: StageDeclaration<T> = {
    ...stage,
    ...(otherwise !== undefined && { otherwise }),
    ...(choices && { choices }),
  };
  const schema = z
    .union([literal, z.array(branch).min(1).max(expressionLimits.maxBranches)], {
      error: 'an expression, or a list of {if, then} that ends with {else}',
    })
    .superRefine((source, context) => {
      try {
        checkedStage(source, type, declaration);
      } catch (error) {
        if (!(error instanceof ExpressionError)) throw error;
        context.addIssue({ code: 'custom', message: error.message, path: placePath(error.position?.place) });
      }
    })
    .default(stage.default as never)
    .describe(stage.description) as unknown as StageSchema<T>;
  const { expression: defaultExpression } = checkedStage(stage.default, type, declaration);
  if (defaultExpression.mayWait && stage.fallback === undefined)
    throw new ExpressionError('a default that asks the host needs a fallback');
  declared.set(schema, {
    type,
    declaration: declaration as unknown as Declared['declaration'],
    defaultExpression,
    compiled: { byIdentity: new WeakMap(), byValue: new Map() },
  });
  return schema;
}

/** `[2].if` → 2, 'if': issues name the path down to the text. */
function placePath(place: string | undefined): (string | number)[] {
  const [, index, key] = /^\[(\d+)\](?:\.(\w+))?$/.exec(place ?? '') ?? [];
  if (index === undefined) return [];
  return key === undefined ? [Number(index)] : [Number(index), key];
}

function checkedStage<T extends ExpressionType>(
  source: ExpressionSource,
  type: T,
  declaration: StageDeclaration<T>,
): CompiledStage<T> {
  const expression = compileStage(source, type, declaration);
  for (const { constant, position } of expression.outcomes) {
    const problem = constant === undefined ? undefined : problemWith(constant, declaration);
    if (problem !== undefined) throw new ExpressionError(problem, position);
  }
  return { expression, declaration };
}

function problemWith(value: unknown, { min, max, choices }: StageDeclaration<ExpressionType>): string | undefined {
  if (typeof value === 'number') {
    if (min !== undefined && value < min) return `${value} is below ${min}`;
    if (max !== undefined && value > max) return `${value} is above ${max}`;
  }
  return choices && strange(value, choices);
}

function strange(value: unknown, choices: readonly string[]): string | undefined {
  const stranger = (Array.isArray(value) ? value : [value]).find((item) => !choices.includes(item as string));
  return stranger === undefined ? undefined : `'${String(stranger).slice(0, 60)}' is none of ${choices.join(', ')}`;
}

function declarationOf<T extends ExpressionType>(schema: StageSchema<T>): Declared {
  const found = declared.get(schema);
  if (!found) throw new TypeError('not a schema that stageSetting made (or it was wrapped afterwards)');
  return found;
}

/**
 * Sources that stay the same between reads of the settings are strings and numbers as well: those are kept by their value. More than all lists of rules that
 * share one schema hold together, or each evaluation would compile anew.
 */
const maxKeptByValue = 256;

/** The compiled source; once for each source. Throws ExpressionError for one that this release refuses. */
export function compiledSetting<T extends ExpressionType>(schema: StageSchema<T>, source: ExpressionSource): CompiledStage<T> {
  const { type, declaration, compiled } = declarationOf(schema);
  const isObject = typeof source === 'object';
  const kept = isObject ? compiled.byIdentity.get(source) : compiled.byValue.get(source);
  if (kept) return kept as unknown as CompiledStage<T>;
  const made = checkedStage(source, type, declaration);
  if (isObject) {
    compiled.byIdentity.set(source, made);
  } else {
    if (compiled.byValue.size >= maxKeptByValue) compiled.byValue.clear();
    compiled.byValue.set(source, made);
  }
  return made as unknown as CompiledStage<T>;
}

export interface StageContext {
  logger: Logger;
  clock: Clock;
  /** Who is asked by functions such as `is_local_domain`. */
  host?: ExpressionHost;
}

/** Asks for the values of stage settings; one per node. */
export interface StageEvaluator {
  /**
   * The value of `source` (what the settings hold under the schema) for these facts. Never throws and never rejects: a failing expression gives the
   * setting's fallback or default. `setting` is its path, for log and metric.
   */
  evaluateStage<T extends ExpressionType>(
    setting: string,
    schema: StageSchema<T>,
    source: ExpressionSource,
    facts: Partial<StageFacts>,
  ): ExpressionValues[T] | Promise<ExpressionValues[T]>;
}

export function createStageEvaluator({ logger, clock, host }: StageContext): StageEvaluator {
  const silentUntilMs = new Map<string, number>();

  function failed<T extends ExpressionType>(
    setting: string,
    schema: StageSchema<T>,
    facts: Partial<StageFacts>,
    error: unknown,
  ): ExpressionValues[T] {
    failures.inc({ setting });
    const nowMs = clock.monotonicMs();
    if (nowMs >= (silentUntilMs.get(setting) ?? Number.NEGATIVE_INFINITY)) {
      silentUntilMs.set(setting, nowMs + logPauseMs);
      const reason = error instanceof Error ? error.message : String(error);
      logger.warn({ setting, reason }, 'an expression in the settings failed; its default is used');
    }
    return safeValue(declarationOf(schema), facts) as ExpressionValues[T];
  }

  return {
    evaluateStage(setting, schema, source, facts) {
      try {
        const { expression, declaration } = compiledSetting(schema, source);
        if (expression.constant !== undefined) return expression.constant;
        const value = expression.evaluate(facts, host);
        if (!(value instanceof Promise)) return bounded(value, declaration);
        return value.then((settled) => bounded(settled, declaration)).catch((error) => failed(setting, schema, facts, error));
      } catch (error) {
        return failed(setting, schema, facts, error);
      }
    },
  };
}

function bounded<V>(value: V, { min, max, choices }: Pick<StageDeclaration<ExpressionType>, 'min' | 'max' | 'choices'>): V {
  if (typeof value === 'number')
    return Math.min(Math.max(value, min ?? Number.NEGATIVE_INFINITY), max ?? Number.POSITIVE_INFINITY) as V;
  const problem = choices && strange(value, choices);
  if (problem !== undefined) throw new ExpressionError(problem);
  return value;
}

const emptyOf: { readonly [T in ExpressionType]: ExpressionValues[T] } = { bool: false, int: 0, string: '', strings: [] };

function safeValue({ type, declaration, defaultExpression }: Declared, facts: Partial<StageFacts>): unknown {
  if (declaration.fallback !== undefined) return declaration.fallback;
  try {
    return bounded(defaultExpression.evaluate(facts) as ExpressionValues[ExpressionType], declaration);
  } catch {
    // The default depends on facts and fails for these: the empty value, as near to the range as can be.
    return declaration.choices?.[0] ?? bounded(emptyOf[type], { ...declaration, choices: undefined } as never);
  }
}
