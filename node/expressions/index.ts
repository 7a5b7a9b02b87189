/** Expressions in settings. */
export {
  ExpressionError,
  type ExpressionHost,
  type ExpressionPosition,
  type ExpressionSource,
  type ExpressionType,
  type ExpressionValues,
  expressionLimits,
  type FactName,
  type StageExpression,
  type StageFacts,
  type StageOptions,
  stageVariables,
} from './contract.js';
export {
  type CompiledStage,
  compiledSetting,
  createStageEvaluator,
  onceConstant,
  type StageContext,
  type StageDeclaration,
  type StageEvaluator,
  type StageSchema,
  stageSetting,
} from './setting.js';
export { type CompiledExpression, compileStage } from './stage.js';
