/** The way of a message, as the rest of the node sees it. */
export { createDirectDelivery } from './deliver-direct.js';
export { createDelivery, type Delivery, type DeliveryDependencies } from './delivery.js';
export type { ListSettings, OutcomeSettings, RetrySchedule } from './outcome-settings.js';
export { createReceiver, type Receiver } from './receive.js';
export type { ReportTexts } from './report-texts.js';
export { nextDeadlineMs } from './retry-schedule.js';
export { allSchedules, deadlineSecondsOf } from './schedule-choice.js';
export { defaultMailflowSettings, type MailflowSettings, type RelayHost } from './settings.js';
export {
  type AcceptStages,
  countedStages,
  type PolicyStage,
  type ScriptStage,
  type ScriptStages,
  scriptStages,
} from './stages/contract.js';
export { type NetworkSet, networkSet } from './stages/networks.js';
export type { DeliverDirect, DeliveryDesk, DeliveryJob, ReceiverDependencies } from './types.js';
