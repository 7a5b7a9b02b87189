/**
 * Accepts mail: the node's side of SMTP, submission and LMTP sessions. Decides who may send what to whom, by the directory and by what operators have set for
 * the stages (`stages/`); the body goes through `sink.ts`. A message is acknowledged after the transaction that queued it, never before.
 */
import type { Reply } from '../../protocols/smtp/grammar/index.js';
import type {
  Envelope,
  MailCommand,
  MaybePromise,
  MessageSink,
  RecipientCommand,
  SessionInfo,
  SmtpHandler,
} from '../../protocols/smtp/server/handler.js';
import { DropSink } from './drop-sink.js';
import { createEnqueue } from './enqueue.js';
import { replies } from './replies.js';
import { QueueingSink } from './sink.js';
import { routeAdmitted } from './stages/admitted.js';
import { Asker } from './stages/ask.js';
import { Blocklists } from './stages/blocklists.js';
import { defaultStages } from './stages/defaults.js';
import { after } from './stages/maybe.js';
import { Screening } from './stages/screening.js';
import { StageRoom } from './stages/stage-room.js';
import { newTransaction, stateOf, type Transaction } from './stages/state.js';
import { expand, verify } from './stages/verify.js';
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

export function createReceiver(dependencies: ReceiverDependencies): Receiver {
  const { clock } = dependencies;
  const reception = new Reception(dependencies);
  const open = new Set<Promise<unknown>>();
  let isDraining = false;

  const handler: SmtpHandler = {
    authBackend: dependencies.authBackend,
    policy: (session) => reception.room().policy(session),
    greet: (session) => (isDraining ? closing() : reception.greet(session)),
    ehlo: (session, name) => (reception.room().does.ehlo ? reception.room().ehlo(session, name) : undefined),
    authenticated: (session, principal) =>
      reception.room().does.auth ? reception.room().authenticated(session, principal) : undefined,
    mailFrom: (session, mail) => (isDraining ? closing() : reception.mailFrom(session, mail)),
    rcptTo: (session, mail, command) => reception.rcptTo(session, mail, command),
    async data(session, envelope) {
      if (isDraining) return closing();
      const sink = await reception.sink(session, envelope);
      return 'code' in sink ? sink : trackedSink(sink);
    },
    vrfy: (session, argument) => verify(dependencies.directory, session, argument),
    expn: (session, argument) => expand(dependencies.directory, session, argument),
    reset: (session) => {
      stateOf(session).transaction = undefined;
    },
    closed: (session) => stateOf(session).close(),
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

/** One session's steps, from its greeting to the sink of its message. */
class Reception {
  readonly #d: ReceiverDependencies;
  readonly #enqueue;
  readonly #asker: Asker;
  readonly #screening: Screening;
  #room: StageRoom | undefined;

  constructor(dependencies: ReceiverDependencies) {
    this.#d = dependencies;
    this.#enqueue = createEnqueue(dependencies);
    const { clock, logger, host, resolver, limits, bans, lookups, isOwnAddress } = dependencies;
    this.#asker = new Asker({ clock, logger, ...(host && { host }) });
    this.#screening = new Screening({
      asker: this.#asker,
      nowMs: () => clock.nowMs(),
      ...(resolver && { blocklists: new Blocklists({ resolver, clock, logger }) }),
      ...(limits && { greylist: limits.greylist }),
      ...(bans && { bans }),
      ...(lookups && { lookups }),
      ...(isOwnAddress && { isOwnAddress }),
    });
  }

  /** By what is set now. */
  room(): StageRoom {
    const stages = this.#d.stages?.() ?? defaultStages;
    if (this.#room?.stages !== stages) {
      this.#room = new StageRoom(stages, {
        asker: this.#asker,
        screening: this.#screening,
        receiver: this.#d,
        node: () => ({ nodeId: this.#d.nodeId ?? '', hostname: this.#d.settings().hostname }),
      });
    }
    return this.#room;
  }

  greet(session: SessionInfo): MaybePromise<Reply | undefined> {
    const room = this.room();
    if (session.local !== undefined) {
      // After XCLIENT: what the client before held is free, and the listener knew nothing of this one.
      stateOf(session).startOver();
      if (this.#d.bans?.find(session.remoteAddress)) return { ...replies.banned, close: true };
    }
    room.beginLook(session);
    return room.does.connect ? room.connect(session) : undefined;
  }

  mailFrom(session: SessionInfo, mail: MailCommand): MaybePromise<Reply | undefined> {
    const room = this.room();
    const state = stateOf(session);
    const transaction = newTransaction(mail, state.checks);
    state.transaction = transaction;
    if (session.mode !== 'submission') return room.mail(session, transaction);
    const { principal } = session;
    if (!principal) return replies.authenticationRequired;
    if (mail.address === '') return room.mail(session, transaction);
    return after(room.mustMatchSender(session, transaction), (mustMatch) => {
      if (!mustMatch) return room.mail(session, transaction);
      return this.#d.directory
        .maySendAs(principal.accountId, mail.address)
        .then((isTheirs) => (isTheirs ? room.mail(session, transaction) : replies.senderNotYours));
    });
  }

  #transactionOf(session: SessionInfo, mail: MailCommand): Transaction {
    const state = stateOf(session);
    if (state.transaction?.mail !== mail) state.transaction = newTransaction(mail, state.checks);
    return state.transaction;
  }

  async rcptTo(session: SessionInfo, mail: MailCommand, command: RecipientCommand): Promise<Reply | undefined> {
    const transaction = this.#transactionOf(session, mail);
    const cost = command.address.length * 2 + (command.parameters.originalRecipient?.address.length ?? 0) * 2 + 200;
    if (
      transaction.recipients.size >= this.#d.settings().maxRecipientsPerMessage ||
      transaction.envelopeBytes + cost > maxEnvelopeBytes
    ) {
      return replies.tooManyRecipients;
    }
    const accepted = await this.#acceptRecipient(session, transaction, command);
    if ('code' in accepted) return accepted;
    transaction.recipients.set(command, accepted);
    transaction.envelopeBytes += cost * (1 + (accepted.also?.length ?? 0));
    return undefined;
  }

  async #acceptRecipient(
    session: SessionInfo,
    transaction: Transaction,
    command: RecipientCommand,
  ): Promise<AcceptedRecipient | Reply> {
    const room = this.room();
    const { address } = command;
    const dropped: AcceptedRecipient = { domain: '', isLocal: true, recipient: { address }, isDropped: true };
    if (transaction.isDiscarded) return dropped;
    const admitted = room.does.rcpt ? await room.recipient(session, transaction, command) : { address, isDropped: false };
    if ('code' in admitted) return admitted;
    if (admitted.isDropped) return dropped;
    const routed = await routeAdmitted(this.#d, room, session, transaction, command, admitted);
    if ('code' in routed || !room.does.rcpt) return routed;
    return (await room.lastChecks(session, transaction, command)) ?? routed;
  }

  async sink(session: SessionInfo, envelope: Envelope): Promise<MessageSink | Reply> {
    const room = this.room();
    const transaction = this.#transactionOf(session, envelope.mail);
    const recipients: AcceptedRecipient[] = [];
    for (const command of envelope.recipients) {
      // Those that this handler did not see at RCPT are resolved now.
      const known = transaction.recipients.get(command) ?? (await this.#acceptRecipient(session, transaction, command));
      if ('code' in known) return known;
      if (!known.isDropped) recipients.push(known, ...(known.also ?? []));
    }
    if (recipients.length === 0) return new DropSink(session, this.#d.queue.newId());
    const ruling = room.data(session, transaction);
    const rules = ruling instanceof Promise ? await ruling : ruling;
    if ('code' in rules) return rules;
    const { sizeBytes = 0 } = envelope.mail.parameters;
    // RFC 1870 6.1: what was declared need not be sent to be refused.
    if (rules.maxBytes !== undefined && sizeBytes > rules.maxBytes) return replies.messageTooLarge;
    return new QueueingSink(this.#d, this.#enqueue, { session, transaction, recipients, rules, room });
  }
}
