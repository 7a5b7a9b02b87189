/**
 * Takes one message's bytes to the queue: trace fields in front, the client's bytes untouched behind them, streamed into a blob; then one
 * transaction, then the 250.
 */
import { isAscii } from 'node:buffer';
import { formatDate, mailboxesOf, parseAddressList, rawToUnicode } from '../../protocols/message/index.js';
import { type Reply, reply } from '../../protocols/smtp/grammar/index.js';
import type { BodyFacts, MailCommand, MessageSink, SessionInfo } from '../../protocols/smtp/server/handler.js';
import type { BlobWriter, PreparedBlob } from '../../store/blobs/contract.js';
import type { ClaimedDestination, NewQueueMessage, QueueId } from '../../store/queue/index.js';
import type { Enqueue } from './enqueue.js';
import { HeaderScan } from './header-scan.js';
import { messagesTotal } from './metrics.js';
import { replies, replyOfError } from './replies.js';
import { wantsSuccessReport } from './retry-schedule.js';
import type { MailflowSettings } from './settings.js';
import { receivedField, returnPathField } from './trace-fields.js';
import type { AcceptedRecipient, ReceiverDependencies } from './types.js';

/** Messages up to this size are handed to the delivering side in memory, so that it does not read them again. */
const maxFreshBytes = 64 * 1024;

const protocols = { mx: 'smtp', submission: 'submission', lmtp: 'lmtp' } as const;

export class QueueingSink implements MessageSink {
  readonly #d: ReceiverDependencies;
  readonly #toQueue: Enqueue;
  readonly #session: SessionInfo;
  readonly #mail: MailCommand;
  readonly #recipients: readonly AcceptedRecipient[];
  /** As they were when the message began. */
  readonly #settings: MailflowSettings;
  readonly #id: QueueId;
  readonly #receivedAtMs: number;
  readonly #blob: BlobWriter;
  readonly #scan: HeaderScan;
  readonly #returnPath: string;
  #isHeaderDone = false;
  /** Whatever the client declared. */
  #isEightBit = false;
  #refusal: Reply | undefined;
  /** All bytes so far, as long as they are few. */
  #fresh: Buffer[] | undefined = [];
  #freshBytes = 0;

  constructor(
    d: ReceiverDependencies,
    enqueue: Enqueue,
    session: SessionInfo,
    mail: MailCommand,
    recipients: readonly AcceptedRecipient[],
  ) {
    this.#d = d;
    this.#toQueue = enqueue;
    this.#session = session;
    this.#mail = mail;
    this.#recipients = recipients;
    this.#settings = d.settings();
    this.#id = d.queue.newId();
    this.#receivedAtMs = d.clock.nowMs();
    this.#blob = d.blobs.writer();
    this.#scan = new HeaderScan(this.#settings.maxHeaderBytes);
    this.#returnPath = returnPathField(mail.address);
  }

  write(chunk: Buffer): void | Promise<void> {
    if (this.#refusal) return undefined;
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
      if (this.#refusal) return await this.#refuse(this.#refusal);
      blob = await this.#blob.finish();
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
      { queueId: this.#id, mode, remoteAddress, from: this.#mail.address, code: refusal.code, text: refusal.text },
      'message refused',
    );
    return refusal;
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
    if (chunks.length === 0) return this.#put(Buffer.from(this.#prefix('')));
    const facts = this.#scan.facts();
    if (facts.receivedFields > this.#settings.maxReceivedFields) this.#refusal = replies.loop;
    else if (facts.startsFolded) this.#refusal = replies.malformedHeader;
    else if (this.#session.mode === 'submission' && facts.from.length > 1) this.#refusal = replies.severalFrom;
    if (this.#refusal) return undefined;
    let added = '';
    if (this.#session.mode === 'submission') {
      this.#fromField = facts.from[0];
      // RFC 6409 8: a submission server may add what a client left out.
      if (!facts.hasDate) added += `Date: ${formatDate(this.#receivedAtMs)}\r\n`;
      if (!facts.hasMessageId) added += `Message-ID: <${this.#id}@${this.#settings.hostname}>\r\n`;
      if (facts.from.length === 0 && this.#mail.address !== '') added += `From: <${this.#mail.address}>\r\n`;
    }
    const waits = [this.#put(Buffer.from(this.#prefix(added)))];
    for (const chunk of chunks) waits.push(this.#put(chunk));
    const promises = waits.filter((wait) => wait !== undefined);
    return promises.length > 0 ? Promise.all(promises).then(() => {}) : undefined;
  }

  #fromField: string | undefined;

  #prefix(added: string): string {
    const { greetingName, remoteAddress, mode, extended, secure, principal, tls } = this.#session;
    const { hostname } = this.#settings;
    const received = receivedField({
      hostname,
      from: this.#mail.address,
      greetingName,
      remoteAddress,
      mode,
      isExtended: extended,
      isSecure: secure,
      isAuthenticated: principal !== undefined,
      onlyRecipient: this.#recipients.length === 1 ? this.#recipients[0]!.recipient.address : undefined,
      isUtf8: this.#mail.parameters.smtpUtf8,
      tls,
      queueId: this.#id,
      nowMs: this.#receivedAtMs,
    });
    return this.#returnPath + received + added;
  }

  /** A user must not write under somebody else's name either. */
  async #fromFieldProblem(): Promise<Reply | undefined> {
    const { mode, principal } = this.#session;
    const { directory } = this.#d;
    if (mode !== 'submission' || !this.#settings.fromFieldMustMatch || !principal || this.#fromField === undefined)
      return undefined;
    for (const { local, domain } of mailboxesOf(parseAddressList(rawToUnicode(this.#fromField), 32))) {
      if (!(await directory.maySendAs(principal.accountId, `${local}@${domain}`))) return replies.fromNotYours;
    }
    return undefined;
  }

  async #enqueue(blob: PreparedBlob): Promise<Reply> {
    if (!(await this.#toMailbox(blob))) {
      const message = this.#message(blob);
      this.#handOver(await this.#toQueue(message), blob, message);
    }
    this.#noteAccepted(blob);
    return reply(250, '2.0.0', `Ok: queued as ${this.#id}`);
  }

  /** The short way, where it is open: one local recipient who wants no report of success, and all bytes still in memory. */
  async #toMailbox(blob: PreparedBlob): Promise<boolean> {
    const { direct } = this.#d;
    const [only] = this.#recipients;
    if (!direct || !only?.isLocal || this.#recipients.length !== 1 || wantsSuccessReport(only.recipient)) return false;
    const bytes = this.#bytes();
    if (!bytes) return false;
    return direct({ queueId: this.#id, address: only.recipient.address, blob, bytes, receivedAtMs: this.#receivedAtMs });
  }

  /** The whole content, as long as it is small. */
  #bytes(): Buffer | undefined {
    return this.#fresh && (this.#fresh.length === 1 ? this.#fresh[0]! : Buffer.concat(this.#fresh));
  }

  #noteAccepted(blob: PreparedBlob): void {
    const { logger } = this.#d;
    messagesTotal.inc({ event: 'accepted' });
    const { remoteAddress, mode, id: session } = this.#session;
    logger.info(
      {
        queueId: this.#id,
        session,
        mode,
        remoteAddress,
        from: this.#mail.address,
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

  #message(blob: PreparedBlob): NewQueueMessage {
    const settings = this.#settings;
    const { parameters, address: from } = this.#mail;
    const { mode, remoteAddress, greetingName, principal } = this.#session;
    const lifetimeSeconds = from === '' ? settings.reportLifetimeSeconds : settings.messageLifetimeSeconds;
    return {
      id: this.#id,
      blob,
      relayOffsetBytes: Buffer.byteLength(this.#returnPath),
      from,
      receivedAtMs: this.#receivedAtMs,
      expiresAtMs: this.#receivedAtMs + lifetimeSeconds * 1000,
      ret: parameters.ret,
      envid: parameters.envelopeId,
      isUtf8: parameters.smtpUtf8,
      body: parameters.body === 'BINARYMIME' ? 'BINARYMIME' : this.#isEightBit ? '8BITMIME' : '7BIT',
      priority: 0,
      source: { protocol: protocols[mode], remoteAddress, helo: greetingName, accountId: principal?.accountId },
      destinations: groupByDomain(this.#recipients),
    };
  }
}

/** One destination per domain; an address that was given twice is delivered once. */
function groupByDomain(recipients: readonly AcceptedRecipient[]): NewQueueMessage['destinations'] {
  const seen = new Set<string>();
  const byDomain = new Map<string, NewQueueMessage['destinations'][number]>();
  for (const { domain, isLocal, recipient } of recipients) {
    const same = isLocal ? recipient.address.toLowerCase() : recipient.address;
    if (seen.has(same)) continue;
    seen.add(same);
    let destination = byDomain.get(domain);
    if (!destination) byDomain.set(domain, (destination = { domain, isLocal, recipients: [] }));
    destination.recipients.push(recipient);
  }
  return [...byDomain.values()];
}
