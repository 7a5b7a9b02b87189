/**
 * Expressions in settings (FEATURES I1): Common Expression Language over the facts of a stage, checked when a setting is saved, limited in cost when
 * it is evaluated. A stage setting is one expression, or a list of `{if, then}` closed by `{else}`; what is written is kept, and compiled by whoever reads it.
 */
import type { Clock } from '../../ops/telemetry/index.js';

/** What an expression may answer. `strings`: list of string. */
export type ExpressionType = 'bool' | 'int' | 'string' | 'strings';

/** `int`: whole numbers that a double holds exactly; what goes beyond is an error. */
export interface ExpressionValues {
  bool: boolean;
  int: number;
  string: string;
  strings: readonly string[];
}

/** As it is written in settings. A text is an expression (a string constant has quotes: `'mx.example.net'`); numbers and booleans stand for themselves. */
export type ExpressionSource =
  | string
  | number
  | boolean
  | readonly ({ readonly if: string; readonly then: string | number | boolean } | { readonly else: string | number | boolean })[];

/** The variables, by their names in expressions. Absent ones have the empty value of their type ('' , 0, false). */
export interface StageFacts {
  // The connection.
  /** Name of the listener as in the configuration. */
  listener: string;
  /** `smtp`, `submission` or `lmtp`. */
  protocol: string;
  remote_ip: string;
  remote_port: number;
  local_ip: string;
  local_port: number;
  is_tls: boolean;
  /** Such as `TLSv1.3`. */
  tls_version: string;
  helo: string;
  /** Login name; '' when not logged in. */
  authenticated_as: string;
  // The envelope.
  sender: string;
  sender_domain: string;
  recipient: string;
  rcpt_domain: string;
  /** Recipients accepted so far. */
  rcpt_count: number;
  /** As declared (SIZE), or of the whole message once it is there. Octets. */
  size: number;
  /** -9 to 9 (RFC 6710). */
  priority: number;
  // The queue.
  queue_id: string;
  queue_name: string;
  /** Attempts so far for this destination. */
  retry_num: number;
  /** Delay reports so far for this recipient. */
  notify_num: number;
  /** Of the last attempt: '', `dns`, `connection`, `tls`, `temporary`, `permanent`, `timeout`, `rate`, `unknown`. */
  last_error: string;
  /** The peer's last reply code; 0 without one. */
  last_status: number;
  /** Seconds since the message was accepted. */
  age: number;
  /** Seconds until it goes back. */
  expires_in: number;
  /** Where the message came from (`smtp`, `submission`, `lmtp`, `imap`, `jmap`, `local`). */
  source: string;
  /** Host that is about to be asked, and its address. */
  mx: string;
  mx_ip: string;
  // The node.
  node_id: string;
  hostname: string;
}

export type FactName = keyof StageFacts;

/** What functions of expressions ask. Every method may wait; what it throws ends the evaluation with an ExpressionError. */
export interface ExpressionHost {
  /** Measures how long an evaluation waits (`expressionLimits.maxWaitMs`). */
  readonly clock: Pick<Clock, 'setTimer'>;
  isLocalDomain(domain: string): Promise<boolean>;
  isLocalAddress(address: string): Promise<boolean>;
  /** `type` A, AAAA, MX, TXT, PTR …; texts of the records, [] when there is none; throws when the name service can't tell. */
  dnsQuery(name: string, type: string): Promise<readonly string[]>;
  /** Look-up lists of the store (`store/lookups`). */
  keyExists(list: string, key: string): Promise<boolean>;
  /** '' when absent. */
  keyGet(list: string, key: string): Promise<string>;
  /** How often this was asked for `key` within the last `periodSeconds`, this time included, on all nodes together (approximate). */
  counter(name: string, key: string, periodSeconds: number): Promise<number>;
}

/** A stage setting, ready to be evaluated. */
export interface StageExpression<T extends ExpressionType> {
  readonly type: T;
  /** The value, when it depends on nothing. */
  readonly constant: ExpressionValues[T] | undefined;
  /** It calls a function of the host somewhere: `evaluate` may answer a promise, and needs a host. */
  readonly mayWait: boolean;
  /** Answers at once unless a function of the host is called on the way. Throws (or rejects with) ExpressionError. */
  evaluate(facts: Partial<StageFacts>, host?: ExpressionHost): ExpressionValues[T] | Promise<ExpressionValues[T]>;
}

/** Where in the setting; `place` says in which text of a list (`[2].if`). */
export interface ExpressionPosition {
  place?: string;
  /** UTF-16 units from the start of the text. */
  offset: number;
  /** From 1. */
  line: number;
  column: number;
}

/** An expression that can't be compiled or evaluated. The message begins with the place, `reason` is the bare sentence. */
export class ExpressionError extends Error {
  override readonly name = 'ExpressionError';
  constructor(
    readonly reason: string,
    readonly position?: ExpressionPosition,
    options?: ErrorOptions,
  ) {
    super(position ? `${describePosition(position)}: ${reason}` : reason, options);
  }
}

function describePosition({ place, line, column }: ExpressionPosition): string {
  return `${place === undefined ? '' : `${place}, `}line ${line}, column ${column}`;
}

export const expressionLimits = {
  maxSourceBytes: 4_096,
  /** Alternatives in a list. */
  maxBranches: 64,
  /** Of one text. */
  maxNodes: 500,
  maxDepth: 24,
  /** Of a list that is written out; those that functions make are limited by steps. */
  maxListElements: 200,
  maxRegexBytes: 1_000,
  /** Instructions of a compiled regular expression. */
  maxRegexProgram: 1_000,
  /** Steps of one evaluation, all branches together: one for every operation, one for each 64 characters or list element that it touches. */
  maxSteps: 20_000,
  /** What a function of the host counts, whatever it does. */
  hostCallSteps: 500,
  /** Of all functions that wait, together. */
  maxWaitMs: 10_000,
  /** UTF-16 units of a text that is put together. */
  maxStringLength: 64 * 1024,
} as const;

/** What `compileStage` and the settings schema `stageSetting(type, options)` are told; both are exported by `index.ts`. */
export interface StageOptions {
  /** Variables that have a value at this stage; others are refused when the setting is saved. */
  variables: readonly FactName[];
  /** A list without `else` ends with this (a text is an expression); without it such a list is refused. */
  otherwise?: string | number | boolean;
  /** Of `string`: texts that stand for themselves wherever a value is written, without quotes: `refuse` for `'refuse'`. No names of variables. */
  words?: readonly string[];
}

/** Sets of variables that stages have in common. */
export const stageVariables = {
  connect: ['listener', 'protocol', 'remote_ip', 'remote_port', 'local_ip', 'local_port', 'is_tls', 'node_id', 'hostname'],
  ehlo: ['tls_version', 'helo', 'authenticated_as'],
  mail: ['sender', 'sender_domain', 'size', 'priority'],
  rcpt: ['recipient', 'rcpt_domain', 'rcpt_count'],
  queue: [
    'queue_id',
    'queue_name',
    'retry_num',
    'notify_num',
    'last_error',
    'last_status',
    'age',
    'expires_in',
    'source',
    'sender',
    'sender_domain',
    'recipient',
    'rcpt_domain',
    'size',
    'priority',
    'node_id',
    'hostname',
  ],
  host: ['mx', 'mx_ip'],
} as const satisfies Record<string, readonly FactName[]>;
