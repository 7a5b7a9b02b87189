/** How the content of one message is treated: asked when its body begins, so that the sink need not wait in the middle of it. */

import type { SmtpMode } from '../../../protocols/smtp/server/handler.js';
import type { ExpressionType, ExpressionValues, StageExpression } from '../../expressions/contract.js';
import type { MailflowSettings } from '../settings.js';
import type { Asker } from './ask.js';
import type { AcceptStages } from './contract.js';
import type { Facts } from './facts.js';
import { isPromise, type MaybePromise } from './maybe.js';

export interface ContentRules {
  /** Of the client's bytes; undefined: the session's limit alone. */
  maxBytes?: number;
  maxReceivedFields: number;
  addsReturnPath: boolean;
  addsReceived: boolean;
  addsDate: boolean;
  addsMessageId: boolean;
  mustMatchFromField: boolean;
}

type DataStage = AcceptStages['data'];

/** RFC 6409 8: a submission server may add what a client left out; others leave it as it is. */
export function defaultRules(settings: MailflowSettings, mode: SmtpMode): ContentRules {
  const isSubmission = mode === 'submission';
  return {
    maxReceivedFields: settings.maxReceivedFields,
    addsReturnPath: true,
    addsReceived: true,
    addsDate: isSubmission,
    addsMessageId: isSubmission,
    mustMatchFromField: settings.fromFieldMustMatch,
  };
}

export function contentRules(
  stage: DataStage,
  asker: Asker,
  settings: MailflowSettings,
  mode: SmtpMode,
  facts: () => Facts,
): MaybePromise<ContentRules> {
  const rules = defaultRules(settings, mode);
  const waits: Promise<void>[] = [];
  function take<T extends ExpressionType>(
    expression: StageExpression<T> | undefined,
    put: (value: ExpressionValues[T]) => void,
  ): void {
    if (!expression) return;
    const answer: MaybePromise<ExpressionValues[T]> = asker.ask(expression, facts);
    if (isPromise(answer as MaybePromise<unknown>)) waits.push((answer as Promise<ExpressionValues[T]>).then(put));
    else put(answer as ExpressionValues[T]);
  }
  take(stage.maxBytes, (value) => {
    if (value > 0) rules.maxBytes = value;
  });
  take(stage.maxReceivedFields, (value) => {
    rules.maxReceivedFields = Math.max(1, value);
  });
  take(stage.addsReturnPath, (value) => {
    rules.addsReturnPath = value;
  });
  take(stage.addsReceived, (value) => {
    rules.addsReceived = value;
  });
  take(stage.addsDate, (value) => {
    rules.addsDate = value;
  });
  take(stage.addsMessageId, (value) => {
    rules.addsMessageId = value;
  });
  take(stage.mustMatchFromField, (value) => {
    rules.mustMatchFromField = value;
  });
  return waits.length === 0 ? rules : Promise.all(waits).then(() => rules);
}
