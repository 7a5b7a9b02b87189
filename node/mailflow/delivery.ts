/** Delivery of claimed destinations, local and remote, put together. */
import type { Clock, Logger, Random } from '../../ops/telemetry/index.js';
import type { Resolver } from '../../protocols/dns/index.js';
import { SmtpClient } from '../../protocols/smtp/client/client.js';
import type { ConnectOptions } from '../../protocols/smtp/client/contract.js';
import type { BlobStore } from '../../store/blobs/contract.js';
import type { Directory } from '../../store/directory/contract.js';
import type { KvStore } from '../../store/kv/contract.js';
import type { OpenMailStore } from '../../store/mail/index.js';
import { type ClaimedDestination, NotAttempted, type Queue } from '../../store/queue/index.js';
import type { OutgoingConnection } from './connection-pool.js';
import { createLocalDelivery } from './deliver-local.js';
import { createRemoteDelivery, type RemoteDeliveryDependencies } from './deliver-remote.js';
import type { DestinationPacer } from './outbound/contract.js';
import type { MailflowSettings } from './settings.js';
import { createSettle, isPending, verdictWithoutAttempt } from './settle.js';
import type { DeliveryJob, DeliveryReply, RecipientVerdict } from './types.js';

/** What a node may hand in for deliveries to other servers. */
type RemoteOptions = Pick<
  RemoteDeliveryDependencies,
  'host' | 'nodeId' | 'limits' | 'destinations' | 'tlsPolicy' | 'ownEndpoints'
>;

export interface DeliveryDependencies extends RemoteOptions {
  kv: KvStore;
  blobs: BlobStore;
  queue: Queue;
  mail: Pick<OpenMailStore, 'openWriter' | 'announce' | 'announcePerhaps' | 'mailboxByPath' | 'ensureAccount' | 'gate'>;
  directory: Pick<Directory, 'resolve' | 'principalById' | 'isLocalDomain'>;
  resolver: Resolver;
  clock: Clock;
  random: Random;
  logger: Logger;
  /** What holds now; read once for what must fit together. */
  settings: () => MailflowSettings;
  /** Default: `SmtpClient.connect`. */
  connect?: (options: ConnectOptions) => Promise<OutgoingConnection>;
  /** Whether this node may hand messages to other servers; asked just before each is complete. Default: always. */
  maySend?: () => boolean;
}

export interface Delivery {
  /** Delivers one claimed destination as far as it gets now, and saves. Throws ClaimLost, KvError, or what `signal` was aborted with. */
  deliver(job: DeliveryJob, signal: AbortSignal): Promise<void>;
  /** After an error that nobody foresaw: an attempt that failed for now, so that the message's time still ends. */
  putOff(job: DeliveryJob, error: unknown): Promise<void>;
  /** How many deliveries to a domain may run side by side on this node: adapts to what they meet. */
  readonly pacer: DestinationPacer;
  /** Closes idle connections. */
  close(): void;
}

const internalError: DeliveryReply = { code: 451, enhanced: '4.3.0', text: 'Internal error, delivery will be tried again' };

export function createDelivery(dependencies: DeliveryDependencies): Delivery {
  const settle = createSettle(dependencies);
  const connect = dependencies.connect ?? ((options: ConnectOptions) => SmtpClient.connect(options));
  const local = createLocalDelivery({ ...dependencies, settle });
  const remote = createRemoteDelivery({ ...dependencies, settle, connect, deliverLocal: local });
  async function settleAll(claimed: ClaimedDestination, said: Omit<RecipientVerdict, 'address'>, isUnattempted: boolean) {
    const kind = claimed.destination.isLocal ? 'local' : 'remote';
    const pending = claimed.destination.recipients.filter(isPending);
    const verdicts = pending.map(({ address }) => ({ address, ...said }));
    await settle({ claimed, verdicts, kind, isUnattempted });
  }

  return {
    deliver(job, signal) {
      const ended = verdictWithoutAttempt(job.claimed, dependencies.clock.nowMs());
      if (ended) return settleAll(job.claimed, ended, true);
      return job.claimed.destination.isLocal ? local(job) : remote.deliver(job, signal);
    },
    putOff({ claimed }, error) {
      if (error instanceof NotAttempted) return settleAll(claimed, { verdict: error.verdict, reply: error.reply }, true);
      return settleAll(claimed, { verdict: 'deferred', reply: internalError }, false);
    },
    pacer: remote.pacer,
    close: () => remote.close(),
  };
}
