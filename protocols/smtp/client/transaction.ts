/**
 * One message over an open connection: MAIL, RCPT, then BDAT or DATA; pipelined where the peer allows it (RFC 2920). Keeps, for each
 * recipient, the first thing that decided its fate.
 */
import { encodeXtext, formatRecipientParameters } from '../grammar/parameters.js';
import { domainOf } from '../grammar/path.js';
import type { ParsedReply } from '../grammar/reply.js';
import { BodyUnreadable, sendByChunks, sendByData } from './body.js';
import type {
  ClientStage,
  OutgoingMessage,
  OutgoingRecipient,
  RecipientOutcome,
  RecipientResult,
  SendResult,
} from './contract.js';
import { limitsOf } from './peer-limits.js';
import type { ReadyConnection } from './ready.js';
import { ConnectionLost } from './wire.js';
import { asciiAddress, assertOneLine, nonAscii } from './wire-address.js';

/** Something that decided the fate of recipients. */
export interface Decision {
  outcome: RecipientOutcome;
  code: number;
  enhanced: string;
  text: string;
  stage: ClientStage;
  wide: boolean;
}

interface Addressee {
  recipient: OutgoingRecipient;
  /** As written on the wire. */
  address: string;
  decision: Decision | undefined;
}

export class Transaction {
  /** The peer has a transaction open that was not finished. */
  needsReset = false;

  readonly #addressees: Addressee[];
  readonly #pipelining: boolean;
  readonly #chunking: boolean;
  readonly #dsn: boolean;
  #smtpUtf8 = false;
  #from: string;
  #stage: ClientStage = 'mail';
  #reusable = true;
  /** Seconds to tell the peer (BY=). */
  #bySeconds: number | undefined;

  constructor(
    private readonly connection: ReadyConnection,
    private readonly message: OutgoingMessage,
    private readonly options: { lmtp: boolean; resetFirst: boolean },
  ) {
    const { capabilities } = connection;
    this.#pipelining = capabilities.has('PIPELINING');
    this.#chunking = capabilities.has('CHUNKING');
    this.#dsn = capabilities.has('DSN');
    this.#from = message.from;
    this.#addressees = message.recipients.map((recipient) => ({ recipient, address: recipient.address, decision: undefined }));
    for (const address of [message.from, ...message.recipients.map((recipient) => recipient.address)]) assertOneLine(address);
  }

  async run(): Promise<SendResult> {
    this.#checkCapabilities();
    try {
      if (this.#open().length > 0) await this.#converse();
    } catch (error) {
      if (!(error instanceof ConnectionLost)) throw error;
      this.#onLost(error);
    }
    const recipients = this.#addressees.map(
      ({ recipient, decision }): RecipientResult => ({ address: recipient.address, ...decision! }),
    );
    const result: SendResult = {
      recipients,
      dsnPassedOn: this.#dsn,
      reusable: this.#reusable && !this.connection.wire.lost,
    };
    if (this.#bySeconds !== undefined) result.deliverByPassedOn = true;
    return result;
  }

  /** Recipients whose fate is open. */
  #open(): Addressee[] {
    return this.#addressees.filter((addressee) => addressee.decision === undefined);
  }

  #decideOpen(decision: Decision): void {
    for (const addressee of this.#open()) addressee.decision = decision;
  }

  // ---- before anything is sent ----

  /** What this peer can't carry is not sent to it (RFC 6152 3, RFC 6531 3.2, RFC 3030 3, RFC 1870 6.4): nothing is converted here. */
  #checkCapabilities(): void {
    const { capabilities } = this.connection;
    const { body, bodyType } = this.message;
    const refuse = (enhanced: string, text: string): Decision => ({
      outcome: 'permanent',
      code: 0,
      enhanced,
      text,
      stage: 'mail',
      wide: true,
    });
    if (capabilities.has('SMTPUTF8')) {
      this.#smtpUtf8 = body.utf8 || this.#addressees.some(({ address }) => nonAscii.test(address)) || nonAscii.test(this.#from);
    } else this.#useAscii(refuse('5.6.7', 'The message needs SMTPUTF8, which the peer does not offer'));
    const binary = body.binary || bodyType === 'BINARYMIME';
    if (binary && !(capabilities.has('BINARYMIME') && this.#chunking)) {
      this.#decideOpen(refuse('5.6.3', 'The message needs BINARYMIME, which the peer does not offer'));
    }
    const isEightBit = (body.eightBit || bodyType === '8BITMIME') && !binary;
    if (isEightBit && !capabilities.has('8BITMIME') && this.message.eightBit !== 'send') {
      this.#decideOpen(refuse('5.6.3', 'The message needs 8BITMIME, which the peer does not offer'));
    }
    const maxBytes = Number(/^[0-9]+/.exec(capabilities.get('SIZE') ?? '')?.[0] ?? 0);
    if (maxBytes > 0 && body.sizeBytes > maxBytes) {
      this.#decideOpen(refuse('5.3.4', `The message has ${body.sizeBytes} octets, the peer takes ${maxBytes}`));
    }
    this.#checkPromises(refuse);
    const { maxRecipients, maxRecipientDomains } = limitsOf(capabilities);
    if (maxRecipientDomains !== undefined) this.#keepToDomains(maxRecipientDomains, refuse);
    if (maxRecipients === undefined) return;
    // What is over the peer's limit goes in a transaction of its own.
    for (const addressee of this.#open().slice(maxRecipients)) {
      const text = `The peer takes ${maxRecipients} recipients at a time`;
      addressee.decision = { ...refuse('4.5.3', text), outcome: 'temporary', stage: 'rcpt', wide: false };
    }
  }

  /** RFC 9422 4.3: what is over goes in a connection of its own. Where that is all of the message, this connection is of no more use to it. */
  #keepToDomains(max: number, refuse: (enhanced: string, text: string) => Decision): void {
    const { recipientDomains: known } = this.connection;
    const over: Addressee[] = [];
    for (const addressee of this.#open()) {
      const domain = domainOf(addressee.address);
      if (!known.has(domain) && known.size >= max) over.push(addressee);
      else known.add(domain);
    }
    const text = `The peer takes recipients of ${max} domains in a connection`;
    const isAll = over.length > 0 && this.#open().length === over.length;
    if (isAll) this.#reusable = false;
    for (const addressee of over) {
      addressee.decision = isAll
        ? { ...refuse('4.4.2', text), outcome: 'temporary' }
        : { ...refuse('4.5.3', text), outcome: 'temporary', stage: 'rcpt', wide: false };
    }
  }

  /** What the peer must promise to do: REQUIRETLS (RFC 8689 4.2.1), DELIVERBY (RFC 2852 4.1.5). */
  #checkPromises(refuse: (enhanced: string, text: string) => Decision): void {
    const { capabilities, tls, clock } = this.connection;
    const { requireTls, deliverBy } = this.message;
    if (requireTls && !tls.used) this.#decideOpen(refuse('5.7.10', 'The message requires TLS, which is not in use'));
    else if (requireTls && !capabilities.has('REQUIRETLS')) {
      this.#decideOpen(refuse('5.7.30', 'The message requires REQUIRETLS, which the peer does not offer'));
    }
    if (!deliverBy) return;
    const seconds = Math.floor((deliverBy.untilMs - clock.nowMs()) / 1000);
    const offered = capabilities.get('DELIVERBY');
    if (deliverBy.mode === 'return') {
      const least = Number(/^[0-9]+/.exec(offered ?? '')?.[0] ?? 0);
      if (seconds <= 0) this.#decideOpen(refuse('5.4.7', 'The time within which the message was to be delivered is over'));
      else if (offered === undefined) {
        this.#decideOpen(
          refuse('5.3.3', 'The message is to be delivered by a certain time, and the peer does not offer DELIVERBY'),
        );
      } else if (seconds < least) this.#decideOpen(refuse('5.4.7', `The peer needs ${least} seconds, ${seconds} are left`));
    }
    // RFC 2852 4: by-time has at most nine digits.
    if (offered !== undefined) this.#bySeconds = Math.max(-999_999_999, Math.min(999_999_999, seconds));
  }

  #useAscii(refusal: Decision) {
    const from = asciiAddress(this.#from);
    if (this.message.body.utf8 || from === undefined) return this.#decideOpen(refusal);
    this.#from = from;
    for (const addressee of this.#addressees) {
      const address = asciiAddress(addressee.address);
      if (address === undefined) addressee.decision = refusal;
      else addressee.address = address;
    }
  }

  // ---- the conversation ----

  #mailCommand(): string {
    const { capabilities } = this.connection;
    const { body, bodyType, ret, envelopeId } = this.message;
    let line = `MAIL FROM:<${this.#from}>`;
    if (capabilities.has('SIZE')) line += ` SIZE=${body.sizeBytes}`;
    if (body.binary || bodyType === 'BINARYMIME') line += ' BODY=BINARYMIME';
    else if ((body.eightBit || bodyType === '8BITMIME') && capabilities.has('8BITMIME')) line += ' BODY=8BITMIME';
    if (this.#smtpUtf8) line += ' SMTPUTF8';
    if (this.message.requireTls) line += ' REQUIRETLS';
    if (this.#bySeconds !== undefined) {
      const { mode, isTraced } = this.message.deliverBy!;
      line += ` BY=${this.#bySeconds};${mode === 'return' ? 'R' : 'N'}${isTraced ? 'T' : ''}`;
    }
    if (this.message.priority && capabilities.has('MT-PRIORITY')) line += ` MT-PRIORITY=${this.message.priority}`;
    if (this.#dsn && ret) line += ` RET=${ret}`;
    if (this.#dsn && envelopeId) line += ` ENVID=${encodeXtext(envelopeId)}`;
    return `${line}\r\n`;
  }

  #rcptCommand({ recipient, address }: Addressee): string {
    return `RCPT TO:<${address}>${this.#dsn ? formatRecipientParameters(recipient) : ''}\r\n`;
  }

  async #converse(): Promise<void> {
    const { wire, timeouts } = this.connection;
    this.#assertInStep();
    const addressees = this.#open();
    const commands = addressees.map((addressee) => this.#rcptCommand(addressee));
    if (this.#pipelining) {
      const reset = this.options.resetFirst ? 'RSET\r\n' : '';
      // RFC 2920 3.1: DATA is the last of a group; BDAT waits, because its content would go with it.
      await wire.write(
        reset + this.#mailCommand() + commands.join('') + (this.#chunking ? '' : 'DATA\r\n'),
        timeouts.dataBlockMs,
      );
    }
    if (this.options.resetFirst && !(await this.#reset())) return;
    if (!this.#pipelining) await wire.write(this.#mailCommand(), timeouts.commandMs);
    this.#stage = 'mail';
    const mail = await wire.read(timeouts.mailMs);
    const mailTaken = mail.code >= 200 && mail.code < 300;
    if (!mailTaken) this.#decideOpen(this.#decisionOf(mail, true));
    if (mailTaken) this.needsReset = true;
    if (!mailTaken && (!this.#pipelining || mail.code === 421)) return;
    if (!(await this.#readRecipients(addressees, commands, mailTaken))) return;
    await this.#sendBody();
  }

  /** Before we say something, the peer has nothing to say: with an answer too many, one message's would pass for another's. */
  #assertInStep(): void {
    const { wire } = this.connection;
    if (!wire.hasUnread || wire.lost) return;
    const said = wire.tryRead();
    wire.destroy();
    const text = said ? `: ${said.code} ${said.lines.join(' ')}` : '';
    throw new ConnectionLost('syntax', `The peer spoke before it was asked${text}`);
  }

  async #reset(): Promise<boolean> {
    const { wire, timeouts } = this.connection;
    this.#stage = 'rset';
    if (!this.#pipelining) await wire.write('RSET\r\n', timeouts.commandMs);
    const reply = await wire.read(timeouts.commandMs);
    if (reply.code >= 200 && reply.code < 300) return true;
    // A peer that can't even reset is in no state to be trusted with a message.
    this.#decideOpen({ ...this.#decisionOf(reply, true), outcome: 'temporary' });
    this.#reusable = false;
    wire.destroy();
    return false;
  }

  /** False when the peer has said farewell. */
  async #readRecipients(addressees: Addressee[], commands: string[], mailTaken: boolean): Promise<boolean> {
    const { wire, timeouts } = this.connection;
    this.#stage = 'rcpt';
    for (const [index, addressee] of addressees.entries()) {
      if (!this.#pipelining) {
        this.#assertInStep();
        await wire.write(commands[index]!, timeouts.commandMs);
      }
      const reply = await wire.read(timeouts.rcptMs);
      if (reply.code === 421) {
        this.#decideOpen(this.#decisionOf(reply, true));
        return false;
      }
      // After a refused MAIL the answers to RCPT say nothing new.
      if (mailTaken && reply.code >= 300) addressee.decision = recipientDecision(this.#decisionOf(reply, false));
    }
    return true;
  }

  async #sendBody(): Promise<void> {
    const { wire, timeouts } = this.connection;
    const nobody = this.#open().length === 0;
    if (nobody && (this.#chunking || !this.#pipelining)) return;
    this.#stage = 'data';
    if (!this.#chunking) {
      if (!this.#pipelining) {
        this.#assertInStep();
        await wire.write('DATA\r\n', timeouts.commandMs);
      }
      const reply = await wire.read(timeouts.dataInitiationMs);
      if (reply.code < 400 && reply.code !== 354) return this.#outOfStep(reply);
      if (reply.code !== 354) return this.#decideOpen(this.#decisionOf(reply, true));
      if (nobody) return this.#endEmpty();
    }
    try {
      if (this.#chunking) this.#assertInStep();
      const said = await this.#transfer();
      if (said) return this.#onEarlyReply(said);
    } catch (error) {
      if (!(error instanceof BodyUnreadable)) throw error;
      // The end of data was not sent, so the peer can't take the half of a message for a whole one.
      this.#decideOpen({ outcome: 'temporary', code: 0, enhanced: '4.3.0', text: error.message, stage: 'data', wide: true });
      wire.destroy();
      return;
    }
    await this.#readVerdict();
  }

  /** RFC 2920 3.1: the peer waits for a message that has no recipients; an empty one ends it. */
  async #endEmpty(): Promise<void> {
    const { wire, timeouts } = this.connection;
    await wire.write('.\r\n', timeouts.dataBlockMs);
    await wire.read(timeouts.dataTerminationMs);
    this.needsReset = false;
  }

  /** From the mark on the peer may take the message, whatever we hear. */
  async #transfer(): Promise<ParsedReply | undefined> {
    const { body } = this.message;
    const mark = () => {
      if (body.mayComplete?.() === false) throw new BodyUnreadable('The message may not be sent from here any more');
      this.#stage = 'end-of-data';
    };
    if (this.#chunking) return sendByChunks(this.connection, body, this.#pipelining, mark);
    return sendByData(this.connection, body, mark);
  }

  /** Said while the content was not complete: a refusal counts, anything else is a peer out of step. Neither gets the rest. */
  #onEarlyReply(said: ParsedReply): void {
    const decision = this.#decisionOf(said, true);
    const isRefusal = said.code >= 400;
    const confused = { outcome: 'temporary', enhanced: '4.5.0' } as const;
    this.#decideOpen(
      isRefusal ? decision : { ...decision, ...confused, code: 0, text: 'The peer answered before the end of the message' },
    );
    // By BDAT a refusal was an answer to a whole chunk: the connection is in order unless chunks were on their way.
    if (!this.#chunking || !isRefusal) this.connection.wire.destroy();
  }

  /** A yes where only 354 or a refusal belongs: the answers are shifted, and none of this transaction can be believed. Nothing was sent that could be taken. */
  #outOfStep(said: ParsedReply): void {
    const text = `The peer answered DATA with ${said.code} ${said.lines.join(' ')}`;
    const confused: Decision = { outcome: 'temporary', code: 0, enhanced: '4.5.0', text, stage: 'data', wide: true };
    for (const addressee of this.#addressees) {
      const { decision } = addressee;
      // What we have decided ourselves stands.
      if (decision === undefined || decision.code > 0) addressee.decision = confused;
    }
    this.connection.wire.destroy();
  }

  /** RFC 2033 4.2: LMTP answers once for each recipient that it accepted. */
  async #readVerdict(): Promise<void> {
    const { wire, timeouts } = this.connection;
    if (!this.options.lmtp) {
      const reply = await wire.read(timeouts.dataTerminationMs);
      this.#decideOpen(this.#decisionOf(reply, true));
    } else {
      for (const addressee of this.#open()) {
        addressee.decision = this.#decisionOf(await wire.read(timeouts.dataTerminationMs), false);
      }
    }
    this.needsReset = false;
  }

  // ---- what replies mean ----

  #decisionOf(reply: ParsedReply, wide: boolean): Decision {
    const { code } = reply;
    if (code === 421) this.#reusable = false;
    const text = reply.lines.join(' ');
    // RFC 5321 4.2.1: the first digit tells. A 3xx where none belongs is a confused peer: another try may do.
    const outcome: RecipientOutcome = code >= 500 ? 'permanent' : code < 300 ? 'delivered' : 'temporary';
    const enhanced = reply.enhanced ?? (code >= 500 ? '5.0.0' : code < 300 ? '2.0.0' : '4.0.0');
    return { outcome, code, enhanced, text, stage: this.#stage, wide };
  }

  #onLost(lost: ConnectionLost) {
    this.#reusable = false;
    // A peer that cut us off within the content has often said why before.
    const lastWords = this.#stage === 'data' ? this.connection.wire.tryRead() : undefined;
    if (lastWords && lastWords.code >= 400) return this.#decideOpen(this.#decisionOf(lastWords, true));
    const outcome = this.#stage === 'end-of-data' ? 'unknown' : 'temporary';
    this.#decideOpen({ outcome, code: 0, enhanced: '4.4.2', text: lost.message, stage: this.#stage, wide: true });
  }
}

/** RFC 5321 4.5.3.1.10: 552 for too many recipients is meant as 452; other uses of both (a full mailbox) are what they say. Always `4.5.3` then. */
function recipientDecision(decision: Decision): Decision {
  const { code, enhanced, text } = decision;
  const tooMany = (code === 452 || code === 552) && (/^[45]\.5\.3$/.test(enhanced) || /too many recipients/i.test(text));
  return tooMany ? { ...decision, outcome: 'temporary', enhanced: '4.5.3' } : decision;
}
