/** Who lives in the simulated installation, and how its mail flows: as by default, with waits that fit into a run. */
import { defaultMailflowSettings, type MailflowSettings } from '../../node/mailflow/index.js';

export const localDomain = 'example.test';
export const users = ['ada', 'ben', 'cleo', 'dora'].map((name) => `${name}@${localDomain}`);

export const simulatedSettings: MailflowSettings = {
  ...defaultMailflowSettings(`mx.${localDomain}`, users[0]!),
  retryDelaysSeconds: [1, 2, 4],
  maxRemoteDeliverySeconds: 60,
};
