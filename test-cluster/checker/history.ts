/** What is known of a run when it is over: the checker's food. Plain values; all times are milliseconds since the run began, on one clock. */

/** What was done to nodes or to the store. */
export type FaultKind =
  | 'kill'
  | 'pause'
  | 'short-pause'
  | 'slow'
  | 'drain'
  | 'peers-cut'
  | 'gossip-cut'
  | 'store-cut'
  | 'store-down'
  | 'clock'
  | 'disk-full'
  | 'join';

export interface Fault {
  kind: FaultKind;
  /** Undefined: all of them, or the store itself. */
  node?: number;
  /** The node's id when it was struck. */
  nodeId?: string;
  fromMs: number;
  /** When it was over: healed, woken, started again. Undefined: it never was. */
  untilMs?: number;
}

/** What a kind of fault excuses. `mayDie`: others may declare the node dead. `mayRepeat`: it may have been kept from saving that a peer took a message. */
export const excuses: Readonly<Record<FaultKind, { mayDie: boolean; mayRepeat: boolean; word: string }>> = {
  kill: { mayDie: true, mayRepeat: true, word: 'killed' },
  pause: { mayDie: true, mayRepeat: true, word: 'paused' },
  'short-pause': { mayDie: false, mayRepeat: false, word: 'paused for a moment' },
  slow: { mayDie: false, mayRepeat: false, word: 'slowed down' },
  drain: { mayDie: false, mayRepeat: false, word: 'drained' },
  'peers-cut': { mayDie: false, mayRepeat: false, word: 'cut off from its peers' },
  'gossip-cut': { mayDie: false, mayRepeat: false, word: 'cut off from gossip' },
  'store-cut': { mayDie: true, mayRepeat: true, word: 'cut off from the store' },
  'store-down': { mayDie: false, mayRepeat: true, word: 'without a store' },
  clock: { mayDie: false, mayRepeat: false, word: 'given a wrong clock' },
  'disk-full': { mayDie: false, mayRepeat: false, word: 'given a full disk' },
  join: { mayDie: false, mayRepeat: false, word: 'added' },
};

/** A message that was offered to the cluster once, and never again. */
export interface Sent {
  token: string;
  node: number;
  recipients: readonly string[];
  startedMs: number;
  /** Undefined: never acknowledged; it may or may not be there. */
  acknowledgedMs?: number;
}

/** A copy of a message that the server outside was given. */
export interface RemoteCopy {
  token: string;
  recipient: string;
  node: number | undefined;
  dotMs: number;
  answeredMs?: number;
  isDropped?: boolean;
}

export interface MailboxName {
  account: string;
  mailbox: string;
}

/** What a node said of a mailbox between two moments. */
export interface MailboxObservation extends MailboxName {
  node: number;
  startedMs: number;
  endedMs: number;
  uidValidity: number;
  uidNext: number;
  highestModseq: number;
}

/** One APPEND. */
export interface Append extends MailboxName {
  token: string;
  startedMs: number;
  /** Undefined: the answer never came. */
  acknowledgedMs?: number;
  uidValidity?: number;
  uid?: number;
}

/** One STORE of one flag on one message. */
export interface FlagChange extends MailboxName {
  uid: number;
  flag: string;
  isSet: boolean;
  startedMs: number;
  acknowledgedMs?: number;
}

/** A whole mailbox as a node shows it when all is over. */
export interface MailboxView extends MailboxName {
  node: number;
  uidValidity: number;
  uidNext: number;
  highestModseq: number;
  /** In the order in which the node showed them. */
  messages: readonly { uid: number; token: string; flags: readonly string[] }[];
}

/** Who held a job, as the store (`seenBy` undefined) or a node says. */
export interface LeaseSample {
  atMs: number;
  job: string;
  /** '' when it was free. */
  holder: string;
  epoch: number;
  seenBy?: number;
}

/** A node was declared dead: its fence was broken by another. */
export interface Death {
  nodeId: string;
  node: number;
  atMs: number;
}

export interface History {
  faults: readonly Fault[];
  sent: readonly Sent[];
  remoteCopies: readonly RemoteCopy[];
  /** Tokens and recipients that the server outside has put off on purpose. */
  disturbed: ReadonlySet<string>;
  observations: readonly MailboxObservation[];
  appends: readonly Append[];
  flagChanges: readonly FlagChange[];
  views: readonly MailboxView[];
  leases: readonly LeaseSample[];
  deaths: readonly Death[];
  /** Acknowledgements of any protocol. */
  acknowledgements: readonly { node: number; atMs: number }[];
  nodes: readonly number[];
  loadUntilMs: number;
}

/** Something that must not be. */
export interface Violation {
  kind: string;
  what: string;
}

export const isRemote = (recipient: string): boolean => !recipient.endsWith('@example.test');
