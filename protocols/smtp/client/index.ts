export { SmtpClient } from './client.js';
export { defaultClientTimeouts } from './connect.js';
export * from './contract.js';
export {
  type Destination,
  type DestinationFailure,
  type DestinationHost,
  type DestinationOptions,
  type HostAddresses,
  resolveDestination,
} from './destination.js';
