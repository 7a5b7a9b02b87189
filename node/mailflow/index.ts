/** The way of a message, as the rest of the node sees it. */
export { createDirectDelivery } from './deliver-direct.js';
export { createDelivery, type Delivery, type DeliveryDependencies } from './delivery.js';
export { createReceiver, type Receiver } from './receive.js';
export { defaultMailflowSettings, type MailflowSettings, type RelayHost } from './settings.js';
export type { DeliverDirect, DeliveryDesk, DeliveryJob, ReceiverDependencies } from './types.js';
