/** What the receiving side keeps of a session and of its transaction. */
import type { MailCommand, RecipientCommand, SessionInfo } from '../../../protocols/smtp/server/handler.js';
import type { QueueMessage } from '../../../store/queue/index.js';
import type { AcceptedRecipient } from '../types.js';
import type { BlocklistLook } from './blocklists.js';
import type { Facts } from './facts.js';

/** What the client asked for with extensions of MAIL, as it is granted. */
export interface DeliveryOptions {
  priority: number;
  /** Wall clock, seconds. */
  notBeforeSeconds?: number;
  deliverBy?: NonNullable<QueueMessage['deliverBy']>;
}

/** Made anew with each MAIL. */
export interface Transaction {
  mail: MailCommand;
  /** The reverse-path that is used: as given, or as rewritten. */
  sender: string;
  options: DeliveryOptions;
  recipients: Map<RecipientCommand, AcceptedRecipient>;
  envelopeBytes: number;
  /** Check → result, for the message's history. */
  checks: Record<string, string>;
  /** Names that the queue counts the message under. */
  countedUnder: Set<string>;
  /** For expressions; made when one asks. */
  facts?: Facts;
  /** Global variables of scripts, from MAIL on; before that those of the session are used. */
  scriptVariables?: ScriptVariables;
  /** A script at MAIL has decided that all of it is thrown away. */
  isDiscarded?: true;
}

/** By lower-case name (RFC 6609 3.3). */
export type ScriptVariables = Readonly<Record<string, string>>;

export const ordinary: DeliveryOptions = { priority: 0 };

/** @param checks those that the session has been through already. */
export function newTransaction(mail: MailCommand, checks: Readonly<Record<string, string>> = {}): Transaction {
  return {
    mail,
    sender: mail.address,
    options: ordinary,
    recipients: new Map(),
    envelopeBytes: 0,
    checks: { ...checks },
    countedUnder: new Set(),
  };
}

/** What slots are held for: the connection until its end, a login until the next one is tried. */
export type SlotHolder = 'connection' | 'login';

export class SessionState {
  transaction: Transaction | undefined;
  look: BlocklistLook | undefined;
  /** The client has been reported for a ban. */
  isReported = false;
  /** Of the session's own steps, for the history of each of its messages. */
  checks: Record<string, string> = {};
  scriptVariables: ScriptVariables = {};
  #isClosed = false;
  readonly #releases: Record<SlotHolder, (() => void)[]> = { connection: [], login: [] };

  /** Calls `release` when the connection is gone or `holder` gives back; at once if the connection is gone already. */
  hold(holder: SlotHolder, release: () => void): void {
    if (this.#isClosed) release();
    else this.#releases[holder].push(release);
  }

  giveBack(holder: SlotHolder): void {
    for (const release of this.#releases[holder].splice(0)) release();
  }

  close(): void {
    this.#isClosed = true;
    this.startOver();
  }

  /** Another client speaks now (XCLIENT), or none. */
  startOver(): void {
    this.transaction = undefined;
    this.isReported = false;
    this.checks = {};
    this.scriptVariables = {};
    this.giveBack('login');
    this.giveBack('connection');
  }
}

export function stateOf(session: SessionInfo): SessionState {
  if (session.local instanceof SessionState) return session.local;
  const state = new SessionState();
  session.local = state;
  return state;
}
