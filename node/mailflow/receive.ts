/**
 * Accepts mail: the node's side of SMTP, submission and LMTP sessions. Decides who may send what to whom; the body goes through `sink.ts`. A message is
 * acknowledged after the transaction that queued it, never before.
 */
import type { Reply } from '../../protocols/smtp/grammar/index.js';
import type {
  Envelope,
  MailCommand,
  MessageSink,
  RecipientCommand,
  SessionInfo,
  SmtpHandler,
} from '../../protocols/smtp/server/handler.js';
import type { LocalTarget } from '../../store/directory/contract.js';
import { domainOfAddress } from './addresses.js';
import { createEnqueue } from './enqueue.js';
import { replies } from './replies.js';
import { QueueingSink } from './sink.js';
import type { AcceptedRecipient, ReceiverDependencies } from './types.js';

export interface Receiver {
  readonly handler: SmtpHandler;
  start(): void;
  /** Refuses new messages with 421 and waits for those whose body has begun, at most until `deadlineMs` (monotonic clock). */
  drain(deadlineMs: number): Promise<void>;
  stop(): void;
}

/** Per recipient; RCPT must stay far from the transaction limit of 10 MB. */
const maxEnvelopeBytes = 6_000_000;

/** What a transaction has resolved so far; one per session, made anew with each MAIL. */
interface Transaction {
  mail: MailCommand;
  recipients: Map<RecipientCommand, AcceptedRecipient>;
  envelopeBytes: number;
}

export function createReceiver(dependencies: ReceiverDependencies): Receiver {
  const { directory, clock } = dependencies;
  const enqueue = createEnqueue(dependencies);
  const transactions = new WeakMap<SessionInfo, Transaction>();
  const open = new Set<Promise<unknown>>();
  let isDraining = false;

  const handler: SmtpHandler = {
    authBackend: dependencies.authBackend,

    greet: () => (isDraining ? closing() : undefined),

    mailFrom(session, mail) {
      if (isDraining) return closing();
      transactions.set(session, { mail, recipients: new Map(), envelopeBytes: 0 });
      if (session.mode !== 'submission') return undefined;
      const { principal } = session;
      if (!principal) return replies.authenticationRequired;
      if (!dependencies.settings().senderMustMatch || mail.address === '') return undefined;
      return directory
        .maySendAs(principal.accountId, mail.address)
        .then((isTheirs) => (isTheirs ? undefined : replies.senderNotYours));
    },

    async rcptTo(session, mail, command) {
      let transaction = transactions.get(session);
      if (transaction?.mail !== mail)
        transactions.set(session, (transaction = { mail, recipients: new Map(), envelopeBytes: 0 }));
      const cost = command.address.length * 2 + (command.parameters.originalRecipient?.address.length ?? 0) * 2 + 200;
      if (
        transaction.recipients.size >= dependencies.settings().maxRecipientsPerMessage ||
        transaction.envelopeBytes + cost > maxEnvelopeBytes
      ) {
        return replies.tooManyRecipients;
      }
      const accepted = await acceptRecipient(dependencies, session, mail, command);
      if ('code' in accepted) return accepted;
      transaction.recipients.set(command, accepted);
      transaction.envelopeBytes += cost;
      return undefined;
    },

    async data(session, envelope) {
      if (isDraining) return closing();
      const recipients = await acceptedOf(dependencies, transactions.get(session), session, envelope);
      if ('code' in recipients) return recipients;
      return trackedSink(new QueueingSink(dependencies, enqueue, session, envelope.mail, recipients));
    },

    reset: (session) => void transactions.delete(session),
    closed: (session) => void transactions.delete(session),
  };

  /** A drain waits for sinks that are open. */
  function trackedSink(sink: MessageSink): MessageSink {
    let leave!: () => void;
    const ended = new Promise<void>((resolve) => {
      leave = resolve;
    });
    open.add(ended);
    const done = () => {
      open.delete(ended);
      leave();
    };
    return {
      write: (chunk) => sink.write(chunk),
      async finish(facts) {
        try {
          return await sink.finish(facts);
        } finally {
          done();
        }
      },
      async abort(reason) {
        try {
          await sink.abort(reason);
        } finally {
          done();
        }
      },
    };
  }

  return {
    handler,
    start() {
      isDraining = false;
    },
    async drain(deadlineMs) {
      isDraining = true;
      const remainingMs = deadlineMs - clock.monotonicMs();
      if (open.size === 0 || remainingMs <= 0) return;
      const timeUp = new AbortController();
      const late = clock.sleep(remainingMs, timeUp.signal).catch(() => {});
      await Promise.race([Promise.allSettled(open), late]);
      timeUp.abort();
    },
    stop() {
      isDraining = true;
    },
  };
}

function closing(): Reply {
  return { ...replies.draining, close: true };
}

/** Where a recipient's mail goes, or why it is refused. */
async function acceptRecipient(
  { directory, settings: read, mail: mailStore }: ReceiverDependencies,
  session: SessionInfo,
  mail: MailCommand,
  command: RecipientCommand,
): Promise<AcceptedRecipient | Reply> {
  const settings = read();
  // RFC 5321 4.5.1: <Postmaster> is always accepted.
  const isBarePostmaster = command.address.toLowerCase() === 'postmaster';
  let address = isBarePostmaster ? settings.postmasterAddress : command.address;
  let resolution = await directory.resolve(address);
  if (resolution.kind === 'unknown' && /^postmaster@/i.test(address)) {
    address = settings.postmasterAddress;
    resolution = await directory.resolve(address);
  }
  const domain = domainOfAddress(address);
  if (domain === '') return replies.badDomain;
  switch (resolution.kind) {
    case 'unknown':
      return replies.unknownRecipient;
    case 'disabled':
      return replies.disabledRecipient;
    case 'relay':
      if (!session.principal) return replies.relayDenied;
      return accepted(command, address, domain, false);
    default: {
      const [only, ...others] = resolution.targets;
      const isOneMailbox = only !== undefined && others.length === 0 && resolution.remote.length === 0;
      if (isOneMailbox && (await isFull(directory, mailStore, only, mail.parameters.sizeBytes ?? 0))) {
        return settings.fullMailboxReply === 'permanent' ? replies.fullPermanent : replies.fullTemporary;
      }
      return accepted(command, address, domain, true);
    }
  }
}

function accepted(command: RecipientCommand, address: string, domain: string, isLocal: boolean): AcceptedRecipient {
  const { notify, originalRecipient } = command.parameters;
  const recipient: AcceptedRecipient['recipient'] = { address };
  if (notify) recipient.notify = notify;
  if (originalRecipient) recipient.orcpt = `${originalRecipient.type};${originalRecipient.address}`;
  return { domain, isLocal, recipient };
}

async function isFull(
  directory: ReceiverDependencies['directory'],
  mail: ReceiverDependencies['mail'],
  target: LocalTarget,
  sizeBytes: number,
): Promise<boolean> {
  const limitBytes = (await directory.principalById(target.accountId))?.quotaLimitBytes;
  if (limitBytes === undefined) return false;
  const { usedBytes } = await mail.usage(target.accountId);
  return usedBytes + sizeBytes > limitBytes || usedBytes >= limitBytes;
}

/** The recipients of the envelope as they were accepted; those that this handler did not see at RCPT are resolved now. */
async function acceptedOf(
  dependencies: ReceiverDependencies,
  transaction: Transaction | undefined,
  session: SessionInfo,
  envelope: Envelope,
): Promise<AcceptedRecipient[] | Reply> {
  const list: AcceptedRecipient[] = [];
  for (const command of envelope.recipients) {
    const known = transaction?.mail === envelope.mail ? transaction.recipients.get(command) : undefined;
    const resolved = known ?? (await acceptRecipient(dependencies, session, envelope.mail, command));
    if ('code' in resolved) return resolved;
    list.push(resolved);
  }
  return list;
}
