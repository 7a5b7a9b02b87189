/** Scripts and the stages that name them, as the settings have them. */
import type { z } from 'zod';
import type { SettingsProblem } from '../../store/settings/index.js';
import {
  compiledSetting,
  ExpressionError,
  type ExpressionSource,
  type StageExpression,
  type StageSchema,
} from '../expressions/index.js';
import { type ScriptStage, type ScriptStages, scriptStages } from '../mailflow/index.js';
import { accept as acceptSchema } from './schemas/accept.js';
import type { scripts as scriptsSchema } from './schemas/scripts.js';
import { compileScript, scriptProblem } from './script-check.js';

interface ScriptSettings {
  readonly accept: Readonly<z.output<typeof acceptSchema>>;
  readonly scripts: Readonly<z.output<typeof scriptsSchema>>;
}

const schemaOf = (stage: ScriptStage): StageSchema<'string'> => acceptSchema.shape[stage].unwrap().shape.script;

/** All that the setting may come to, as far as it is told without mail; undefined: it depends on something. */
function namesIn(stage: ScriptStage, source: ExpressionSource): (string | undefined)[] {
  try {
    const { outcomes } = compiledSetting(schemaOf(stage), source).expression;
    return outcomes.map(({ constant }) => constant as string | undefined);
  } catch (error) {
    if (error instanceof ExpressionError) return []; // It is refused for itself.
    throw error;
  }
}

/** A rule over both sections: what a stage names is there, and may run at it. */
export function scriptProblems({ accept, scripts }: ScriptSettings): SettingsProblem[] {
  return scriptStages.flatMap((stage) => {
    const path = `accept.${stage}.script`;
    const names = new Set(namesIn(stage, accept[stage].script));
    return [...names].flatMap((name) => {
      if (!name) return [];
      const text = Object.hasOwn(scripts.sieve, name) ? scripts.sieve[name] : undefined;
      if (text === undefined) return [{ path, message: `there is no script '${name.slice(0, 64)}' in the section scripts` }];
      const problem = scriptProblem(name, text, stage);
      return problem === undefined ? [] : [{ path, message: problem }];
    });
  });
}

/**
 * Undefined where no stage has a script. What a stage is known to name was compiled for it when it was saved; what an expression makes of mail is compiled
 * for any stage, and its verdict is held against the stage's rules when it is there.
 * @param changed the stage's setting as expression; undefined where it is as by default.
 */
export function scriptStagesOf(
  { accept, scripts }: ScriptSettings,
  changed: (path: string, schema: StageSchema<'string'>, source: ExpressionSource) => StageExpression<'string'> | undefined,
): ScriptStages | undefined {
  const at: ScriptStages['at'] = {};
  /** Judged for the stage when they were saved. */
  const known: Partial<Record<ScriptStage, readonly (string | undefined)[]>> = {};
  for (const stage of scriptStages) {
    const expression = changed(`accept.${stage}.script`, schemaOf(stage), accept[stage].script);
    if (!expression) continue;
    at[stage] = expression;
    known[stage] = namesIn(stage, accept[stage].script);
  }
  if (Object.keys(at).length === 0) return undefined;
  const { sieve, onFailure, maxSeenBytes, maxSteps } = scripts;
  const textOf = (name: string) => (Object.hasOwn(sieve, name) ? sieve[name] : undefined);
  return {
    at,
    onFailure,
    maxSeenBytes,
    textOf,
    compiled(stage, name) {
      const text = textOf(name);
      return text === undefined ? undefined : compileScript(text, known[stage]?.includes(name) ? stage : undefined, maxSteps);
    },
  };
}
