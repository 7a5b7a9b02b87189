/**
 * The stages of accepting mail as the settings have them, ready to be asked: expressions are compiled, lists of networks are sets. What is left out is as by
 * default, and costs nothing. Made anew when settings change (`node/settings/accept.ts`); a session asks for them at every step.
 */

import type { SieveScript } from '../../../protocols/sieve/index.js';
import type { StageExpression } from '../../expressions/contract.js';
import type { NetworkSet } from './networks.js';

type BoolStage = StageExpression<'bool'>;
type IntStage = StageExpression<'int'>;
type TextStage = StageExpression<'string'>;
type TextsStage = StageExpression<'strings'>;

/** Asked before the greeting and again whenever more is known of the client: with EHLO, STARTTLS, AUTH, XCLIENT. */
export interface PolicyStage {
  maxMessageBytes?: IntStage;
  maxRecipients?: IntStage;
  /** Of a session; 0: any number. */
  maxRecipientDomains?: IntStage;
  maxMessages?: IntStage;
  maxErrors?: IntStage;
  /** 0: any number. */
  maxRefusedRecipients?: IntStage;
  commandTimeoutSeconds?: IntStage;
  dataTimeoutSeconds?: IntStage;
  sessionTimeoutSeconds?: IntStage;
  /** FUTURERELEASE; 0 leaves it out. */
  maxHoldSeconds?: IntStage;
  minDeliverBySeconds?: IntStage;
  requiresTls?: BoolStage;
  offersAuth?: BoolStage;
  authMechanisms?: TextsStage;
  isTrustedPeer?: BoolStage;
  /** `refuse` or `normalise`. */
  bareLineEnds?: TextStage;
  tarpitMs?: IntStage;
  greetingDelayMs?: IntStage;
  /** Names of extensions that are left out; what is no extension's name is passed over. */
  withheldExtensions?: TextsStage;
}

export const countedStages = ['connect', 'auth', 'mail', 'rcpt', 'data'] as const;
export type CountedStage = (typeof countedStages)[number];

/** So many of something within a time, on all nodes together. */
export interface RateRule {
  name: string;
  match: BoolStage;
  /** '' counts nothing. */
  key: TextStage;
  /** What one time counts for. */
  amount: IntStage;
  count: IntStage;
  periodSeconds: number;
  /** As `refusalOf` reads it; '' for the default. */
  reply: TextStage;
}

/** So many connections or logged-in sessions at once, on all nodes together. */
export interface ConcurrencyRule {
  name: string;
  match: BoolStage;
  key: TextStage;
  max: IntStage;
  reply: TextStage;
}

export interface GreylistStage {
  isOn: BoolStage;
  delaySeconds: IntStage;
  /** One that is not longer than the delay, so that nobody could ever pass, counts as twice the delay. */
  windowSeconds: IntStage;
  lifetimeSeconds: IntStage;
}

export interface TrapStage {
  isTrap?: BoolStage;
  /** Look-up lists whose keys are trap addresses. */
  lists: readonly string[];
  /** `drop`: accepted and thrown away, so that the spammer learns nothing. `refuse`: as an address that is not there. */
  action: TextStage;
  /** 0: nobody is banned. */
  banSeconds: IntStage;
}

export interface BlocklistZone {
  zone: string;
  /** Answers that mean "listed". */
  answers: NetworkSet;
  /** Asked at RCPT, of those that list the client. */
  weight: IntStage;
  timeoutMs: number;
}

export interface BlocklistStage {
  isOn: BoolStage;
  zones: readonly BlocklistZone[];
  /** Sum of the weights of zones that list a client, from which it is refused. */
  refuseAtWeight: IntStage;
  cacheSeconds: number;
  /** As `refusalOf` reads it; '' for what the zone says itself. */
  reply: TextStage;
}

/** How much may wait in the queue under one key. */
export interface QuotaRule {
  name: string;
  match: BoolStage;
  /** '' counts nothing. */
  key: TextStage;
  /** 0: any number. */
  maxMessages: IntStage;
  maxBytes: IntStage;
}

export const scriptStages = ['connect', 'ehlo', 'auth', 'mail', 'rcpt', 'data'] as const;
export type ScriptStage = (typeof scriptStages)[number];

/** Operators' Sieve scripts (RFC 5228), and where they run. */
export interface ScriptStages {
  /** Names of scripts, '' for none; at least one stage has one. */
  at: Partial<Record<ScriptStage, TextStage>>;
  /** Compiled once. Undefined: there is none of this name. Throws SieveError for one that may not run at this stage. */
  compiled(stage: ScriptStage, name: string): SieveScript | undefined;
  /** For scripts that include others (RFC 6609, `:global`). */
  textOf(name: string): string | undefined;
  /** What becomes of mail whose script fails: it is put off, or goes on as if there were no script. */
  onFailure: 'defer' | 'accept';
  /** From the start of a message, for tests of its body and parts. */
  maxSeenBytes: number;
}

export interface AcceptStages {
  policy: PolicyStage;
  connect: {
    refuse?: TextStage;
    /** Text of the 220. '' for the default. */
    greeting?: TextStage;
  };
  ehlo: { refuse?: TextStage };
  auth: { refuse?: TextStage };
  mail: {
    refuse?: TextStage;
    /** The reverse-path that is used instead. */
    rewrite?: TextStage;
    mustMatchSender?: BoolStage;
    /** Asked with MT-PRIORITY only. */
    minPriority: IntStage;
    maxPriority: IntStage;
  };
  rcpt: {
    refuse?: TextStage;
    rewrite?: TextStage;
    /** Whether mail for domains that are not ours is taken. Default: from those who have logged in. */
    relay?: BoolStage;
  };
  data: {
    /** Asked when the message is there. */
    refuse?: TextStage;
    maxBytes?: IntStage;
    maxReceivedFields?: IntStage;
    addsReturnPath?: BoolStage;
    addsReceived?: BoolStage;
    /** Missing Date and Message-ID; default: of submissions. */
    addsDate?: BoolStage;
    addsMessageId?: BoolStage;
    mustMatchFromField?: BoolStage;
    queueName?: TextStage;
  };
  rates: Record<CountedStage, readonly RateRule[]>;
  concurrency: { connect: readonly ConcurrencyRule[]; auth: readonly ConcurrencyRule[] };
  /** Clients that are never greylisted, looked up in blocklists or banned for a trap: neighbours, other offices. */
  isKnownClient: NetworkSet;
  greylist?: GreylistStage;
  traps?: TrapStage;
  blocklists?: BlocklistStage;
  quotas: readonly QuotaRule[];
  scripts?: ScriptStages;
}
