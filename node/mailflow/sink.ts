/**
 * Takes one message's bytes to the queue: trace fields in front, the client's bytes untouched behind them, streamed into a blob; then one
 * transaction, then the 250.
 */
import { isAscii } from 'node:buffer';
import { findHeader, formatDate, mailboxesOf, parseAddressList, rawToUnicode } from '../../protocols/message/index.js';
import { type Reply, reply } from '../../protocols/smtp/grammar/index.js';
import type { BodyFacts, MailCommand, MessageSink, SessionInfo } from '../../protocols/smtp/server/handler.js';
import type { BlobWriter, PreparedBlob } from '../../store/blobs/contract.js';
import type { HistoryRecord } from '../../store/queue/history-contract.js';
import type { ClaimedDestination, NewQueueMessage, QueueId } from '../../store/queue/index.js';
import { groupByDomain } from './destinations.js';
import { dropped } from './drop-sink.js';
import { copyWithFront } from './edited-content.js';
import type { Enqueue } from './enqueue.js';
import { HeaderScan } from './header-scan.js';
import { messagesTotal } from './metrics.js';
import { replies, replyOfError } from './replies.js';
import { wantsSuccessReport } from './retry-schedule.js';
import type { MailflowSettings } from './settings.js';
import type { ContentRules } from './stages/content-rules.js';
import type { ContentScript } from './stages/content-script.js';
import type { StageRoom } from './stages/stage-room.js';
import type { Transaction } from './stages/state.js';
import { receivedField, returnPathField } from './trace-fields.js';
import type { AcceptedRecipient, ReceiverDependencies } from './types.js';

/** Messages up to this size are handed to the delivering side in memory, so that it does not read them again. */
const maxFreshBytes = 64 * 1024;

const noBytes = Buffer.alloc(0);
/** It begins with a trace line of ours, which names its queue id. */
const receivedMail = { isUnique: true };

/** Of a message's history. */
const maxListedRecipients = 100;

const protocols = { mx: 'smtp', submission: 'submission', lmtp: 'lmtp' } as const;

/** A transaction whose body begins. */
export interface Incoming {
  session: SessionInfo;
  transaction: Transaction;
  recipients: readonly AcceptedRecipient[];
  rules: ContentRules;
  /** Asked when the message is there. */
  room: Pick<StageRoom, 'content' | 'contentScript' | 'queueName'>;
}

export class QueueingSink implements MessageSink {
  readonly #d: ReceiverDependencies;
  readonly #toQueue: Enqueue;
  readonly #incoming: Incoming;
  readonly #session: SessionInfo;
  readonly #mail: MailCommand;
  /** The reverse-path as it is used. */
  readonly #sender: string;
  /** Those of the transaction, until a script sends it elsewhere. */
  #recipients: readonly AcceptedRecipient[];
  readonly #script: ContentScript | undefined;
  readonly #rules: ContentRules;
  /** As they were when the message began. */
  readonly #settings: MailflowSettings;
  readonly #id: QueueId;
  readonly #receivedAtMs: number;
  #blob: BlobWriter;
  readonly #scan: HeaderScan;
  readonly #returnPath: string;
  /** What is put in front of the client's bytes. */
  #front = noBytes;
  #isHeaderDone = false;
  /** Whatever the client declared. */
  #isEightBit = false;
  #refusal: Reply | undefined;
  /** Of the client's. */
  #bytesTaken = 0;
  #fromField: string | undefined;
  #messageId: string | undefined;
  /** All bytes so far, as long as they are few. */
  #fresh: Buffer[] | undefined = [];
  #freshBytes = 0;

  constructor(d: ReceiverDependencies, enqueue: Enqueue, incoming: Incoming) {
    this.#d = d;
    this.#toQueue = enqueue;
    this.#incoming = incoming;
    const { session, transaction, recipients, rules } = incoming;
    this.#session = session;
    this.#mail = transaction.mail;
    this.#sender = transaction.sender;
    this.#recipients = recipients;
    this.#script = incoming.room.contentScript(session, transaction);
    this.#rules = rules;
    this.#settings = d.settings();
    this.#id = d.queue.newId();
    this.#receivedAtMs = d.clock.nowMs();
    this.#blob = d.blobs.writer(receivedMail);
    this.#scan = new HeaderScan(this.#settings.maxHeaderBytes);
    this.#returnPath = rules.addsReturnPath ? returnPathField(this.#sender) : '';
  }

  write(chunk: Buffer): void | Promise<void> {
    if (this.#refusal) return undefined;
    this.#bytesTaken += chunk.length;
    const { maxBytes } = this.#rules;
    if (maxBytes !== undefined && this.#bytesTaken > maxBytes) {
      this.#refusal = replies.messageTooLarge;
      return undefined;
    }
    this.#script?.take(chunk);
    if (this.#isHeaderDone) return this.#put(chunk);
    const progress = this.#scan.push(chunk);
    if (progress === 'more') return undefined;
    if (progress === 'too-large') {
      this.#refusal = replies.headerTooLarge;
      return undefined;
    }
    return this.#putHeader();
  }

  async finish(_facts: BodyFacts): Promise<Reply> {
    let blob: PreparedBlob | undefined;
    try {
      if (!this.#isHeaderDone && !this.#refusal) {
        this.#scan.end();
        await this.#putHeader();
      }
      if (!this.#refusal) this.#refusal = await this.#fromFieldProblem();
      if (!this.#refusal) {
        const { room, session, transaction } = this.#incoming;
        this.#refusal = await room.content(session, transaction, this.#bytesTaken);
      }
      const header = this.#script && !this.#refusal ? await this.#rule(this.#script) : undefined;
      if (this.#refusal) return await this.#refuse(this.#refusal);
      if (this.#recipients.length === 0) return await this.#drop();
      blob = header ? await this.#edited(header) : await this.#blob.finish();
      return await this.#enqueue(blob);
    } catch (error) {
      this.#d.logger.error({ queueId: this.#id, err: error }, 'message not accepted');
      messagesTotal.inc({ event: 'refused' });
      await this.#blob.abort().catch(() => {});
      return replyOfError(error);
    }
  }

  async abort(reason: string): Promise<void> {
    this.#d.logger.debug({ queueId: this.#id, reason }, 'message abandoned');
    await this.#blob.abort();
  }

  async #refuse(refusal: Reply): Promise<Reply> {
    await this.#blob.abort();
    messagesTotal.inc({ event: 'refused' });
    const { mode, remoteAddress } = this.#session;
    this.#d.logger.info(
      { queueId: this.#id, mode, remoteAddress, from: this.#sender, code: refusal.code, text: refusal.text },
      'message refused',
    );
    return refusal;
  }

  /** Asks the script what becomes of the message; answers the client's header where it was edited. */
  async #rule(script: ContentScript): Promise<Buffer | undefined> {
    const { refusal, recipients, header } = await script.rule(this.#scan.header(), this.#bytesTaken, this.#recipients);
    this.#refusal = refusal;
    this.#recipients = recipients;
    return header;
  }

  async #drop(): Promise<Reply> {
    await this.#blob.abort();
    return dropped(this.#session, this.#id, this.#bytesTaken);
  }

  /** The same message with another header of the client's. */
  async #edited(header: Buffer): Promise<PreparedBlob> {
    const front = Buffer.concat([this.#front, header]);
    const frontBytes = this.#front.length + this.#scan.header().length;
    this.#isEightBit ||= !isAscii(header);
    this.#messageId = findHeader(header, { headerStart: 0, headerEnd: header.length }, 'message-id') ?? this.#messageId;
    const written = this.#blob;
    const writer = this.#d.blobs.writer(receivedMail);
    const bytes = this.#bytes();
    if (!bytes) {
      const first = await written.finish();
      // From here on the purge looks after what was written.
      this.#blob = writer;
      return copyWithFront(this.#d, first, writer, { front, frontBytes, queueId: this.#id });
    }
    this.#blob = writer;
    await written.abort();
    this.#fresh = [Buffer.concat([front, bytes.subarray(frontBytes)])];
    await writer.write(this.#fresh[0]!);
    return writer.finish();
  }

  #put(chunk: Buffer): void | Promise<void> {
    this.#isEightBit ||= !isAscii(chunk);
    this.#freshBytes += chunk.length;
    if (this.#freshBytes > maxFreshBytes) this.#fresh = undefined;
    else this.#fresh?.push(chunk);
    return this.#blob.write(chunk);
  }

  /** The header is complete: judges it, then writes the trace fields, what is missing, and the chunks that were held back. */
  #putHeader(): void | Promise<void> {
    this.#isHeaderDone = true;
    const { chunks } = this.#scan;
    if (chunks.length === 0) return this.#putFront('');
    const facts = this.#scan.facts();
    const { maxReceivedFields, addsDate, addsMessageId } = this.#rules;
    const isSubmission = this.#session.mode === 'submission';
    if (facts.receivedFields > maxReceivedFields) this.#refusal = replies.loop;
    else if (facts.startsFolded) this.#refusal = replies.malformedHeader;
    else if (isSubmission && facts.from.length > 1) this.#refusal = replies.severalFrom;
    if (this.#refusal) return undefined;
    this.#messageId = facts.messageId;
    let added = '';
    // RFC 6409 8: a submission server may add what a client left out; others when they are told to.
    if (addsDate && !facts.hasDate) added += `Date: ${formatDate(this.#receivedAtMs)}\r\n`;
    if (addsMessageId && !facts.hasMessageId) {
      this.#messageId = `<${this.#id}@${this.#settings.hostname}>`;
      added += `Message-ID: ${this.#messageId}\r\n`;
    }
    if (isSubmission) {
      this.#fromField = facts.from[0];
      if (facts.from.length === 0 && this.#mail.address !== '') added += `From: <${this.#mail.address}>\r\n`;
    }
    const waits = [this.#putFront(added)];
    for (const chunk of chunks) waits.push(this.#put(chunk));
    const promises = waits.filter((wait) => wait !== undefined);
    return promises.length > 0 ? Promise.all(promises).then(() => {}) : undefined;
  }

  #putFront(added: string): void | Promise<void> {
    this.#front = Buffer.from(this.#prefix(added));
    return this.#put(this.#front);
  }

  #prefix(added: string): string {
    if (!this.#rules.addsReceived) return this.#returnPath + added;
    const { greetingName, remoteAddress, remoteName, mode, extended, secure, principal, tls, forwarded } = this.#session;
    const { hostname } = this.#settings;
    const received = receivedField({
      hostname,
      from: this.#sender,
      greetingName,
      remoteAddress,
      remoteName,
      mode,
      isExtended: extended,
      isSecure: secure,
      isAuthenticated: principal !== undefined,
      onlyRecipient: this.#recipients.length === 1 ? this.#recipients[0]!.recipient.address : undefined,
      isUtf8: this.#mail.parameters.smtpUtf8,
      tls,
      forwarded,
      queueId: this.#id,
      nowMs: this.#receivedAtMs,
    });
    return this.#returnPath + received + added;
  }

  /** A user must not write under somebody else's name either. */
  async #fromFieldProblem(): Promise<Reply | undefined> {
    const { mode, principal } = this.#session;
    const { directory } = this.#d;
    if (mode !== 'submission' || !this.#rules.mustMatchFromField || !principal || this.#fromField === undefined) return undefined;
    for (const { local, domain } of mailboxesOf(parseAddressList(rawToUnicode(this.#fromField), 32))) {
      if (!(await directory.maySendAs(principal.accountId, `${local}@${domain}`))) return replies.fromNotYours;
    }
    return undefined;
  }

  async #enqueue(blob: PreparedBlob): Promise<Reply> {
    const accepted = this.#d.history && this.#historyRecord();
    if (!(await this.#toMailbox(blob, accepted))) {
      const message = await this.#message(blob);
      this.#handOver(await this.#toQueue(message, accepted), blob, message);
    }
    this.#noteAccepted(blob);
    return reply(250, '2.0.0', `Ok: queued as ${this.#id}`);
  }

  /**
   * The short way, where it is open: one local recipient who wants no report of success, now, and all bytes still in memory. They must be unlike any others,
   * which the Received field makes them (`deliver-direct.ts`).
   */
  async #toMailbox(blob: PreparedBlob, accepted: HistoryRecord | undefined): Promise<boolean> {
    const { direct } = this.#d;
    const [only] = this.#recipients;
    if (!direct || !only?.isLocal || this.#recipients.length !== 1 || wantsSuccessReport(only.recipient)) return false;
    if (!this.#rules.addsReceived || this.#incoming.transaction.options.notBeforeSeconds !== undefined) return false;
    const bytes = this.#bytes();
    if (!bytes) return false;
    const { address } = only.recipient;
    return direct({
      queueId: this.#id,
      address,
      blob,
      bytes,
      receivedAtMs: this.#receivedAtMs,
      ...(accepted && { accepted }),
    });
  }

  #historyRecord(): HistoryRecord {
    const { mode, remoteAddress, greetingName, principal, tls, forwarded } = this.#session;
    const { checks } = this.#incoming.transaction;
    return {
      atMs: this.#receivedAtMs,
      nodeId: this.#d.nodeId ?? '',
      event: {
        kind: 'accepted',
        from: this.#sender,
        recipients: this.#recipients.slice(0, maxListedRecipients).map(({ recipient }) => recipient.address),
        recipientCount: this.#recipients.length,
        sizeBytes: this.#bytesTaken,
        protocol: protocols[mode],
        remoteAddress,
        helo: greetingName,
        ...(principal && { login: principal.login }),
        ...(tls && { tls: `${tls.protocol} ${tls.cipher}` }),
        ...(this.#messageId !== undefined && { messageId: this.#messageId }),
        checks: forwarded?.address === undefined ? checks : { ...checks, 'forwarded-for': forwarded.address },
      },
    };
  }

  /** The whole content, as long as it is small. */
  #bytes(): Buffer | undefined {
    return this.#fresh && (this.#fresh.length === 1 ? this.#fresh[0]! : Buffer.concat(this.#fresh));
  }

  #noteAccepted(blob: PreparedBlob): void {
    const { logger } = this.#d;
    messagesTotal.inc({ event: 'accepted' });
    const { remoteAddress, mode, id: session, forwarded } = this.#session;
    logger.info(
      {
        queueId: this.#id,
        session,
        mode,
        remoteAddress,
        from: this.#sender,
        ...(forwarded && { forwarded }),
        recipients: this.#recipients.length,
        to: this.#recipients[0]?.recipient.address,
        sizeBytes: blob.sizeBytes,
      },
      'message accepted',
    );
  }

  #handOver(claimed: readonly ClaimedDestination[], blob: PreparedBlob, message: NewQueueMessage): void {
    const { queue, desk } = this.#d;
    const bytes = this.#bytes();
    const fresh = bytes && { blob, bytes };
    if (desk && claimed.length > 0) desk.take(claimed.map((one) => ({ claimed: one, fresh })));
    const recipientsClaimed = claimed.reduce((sum, { destination }) => sum + destination.recipients.length, 0);
    const recipientsTotal = message.destinations.reduce((sum, { recipients }) => sum + recipients.length, 0);
    if (recipientsClaimed < recipientsTotal) queue.announceDue();
  }

  async #message(blob: PreparedBlob): Promise<NewQueueMessage> {
    const settings = this.#settings;
    const { parameters } = this.#mail;
    const { room, session, transaction } = this.#incoming;
    const { mode, remoteAddress, greetingName, principal } = session;
    const { priority, notBeforeSeconds, deliverBy } = transaction.options;
    const lifetimeSeconds = this.#sender === '' ? settings.reportLifetimeSeconds : settings.messageLifetimeSeconds;
    const queueName = await room.queueName(session, transaction, this.#bytesTaken);
    // What is kept back for a while has its time from then on.
    const startsAtMs = Math.max(this.#receivedAtMs, (notBeforeSeconds ?? 0) * 1000);
    return {
      id: this.#id,
      blob,
      relayOffsetBytes: Buffer.byteLength(this.#returnPath),
      from: this.#sender,
      receivedAtMs: this.#receivedAtMs,
      expiresAtMs: startsAtMs + lifetimeSeconds * 1000,
      ret: parameters.ret,
      envid: parameters.envelopeId,
      isUtf8: parameters.smtpUtf8,
      body: parameters.body === 'BINARYMIME' ? 'BINARYMIME' : this.#isEightBit ? '8BITMIME' : '7BIT',
      priority,
      source: { protocol: protocols[mode], remoteAddress, helo: greetingName, accountId: principal?.accountId },
      destinations: groupByDomain(this.#recipients),
      ...(parameters.requireTls && { requiresTls: true }),
      ...(deliverBy && { deliverBy }),
      ...(notBeforeSeconds !== undefined && { notBeforeSeconds }),
      ...(queueName !== undefined && { queueName }),
      ...(transaction.countedUnder.size > 0 && { countedUnder: [...transaction.countedUnder] }),
    };
  }
}
