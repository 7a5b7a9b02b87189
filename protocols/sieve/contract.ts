/**
 * The shapes that the parts of this room share: a script as a tree (grammar), what a command or test declares of itself (a file each under `commands/` and
 * `tests/`), and what a run is given and gives back. RFC 5228 and its extensions.
 */

// ---- the script as a tree ----

/** In a script; line and column count from 1, columns in UTF-16 units. */
export interface Position {
  line: number;
  column: number;
}

export interface StringLiteral {
  /** Unquoted, multi-line texts without their dot-stuffing; ends of lines are CRLF. */
  value: string;
  at: Position;
}

/** RFC 5228 8.2. A list of one text is kept as a list. */
export type Argument =
  | { kind: 'string'; text: StringLiteral; at: Position }
  | { kind: 'strings'; texts: StringLiteral[]; at: Position }
  | { kind: 'number'; value: number; at: Position }
  /** Lower case, without its colon. */
  | { kind: 'tag'; name: string; at: Position };

/** A command or a test: both are an identifier with arguments, tests, and (commands only) a block. */
export interface Command {
  /** Lower case. */
  name: string;
  arguments: Argument[];
  tests: Command[];
  /** Whether the tests stood in parentheses. */
  hasTestList: boolean;
  block?: Command[];
  at: Position;
}

/** A script that can't be taken: `line 3, column 7: …` is made by who shows it. */
export class SieveError extends Error {
  override readonly name = 'SieveError';
  constructor(
    message: string,
    readonly at: Position,
  ) {
    super(message);
  }
}

// ---- what commands and tests declare ----

export type ArgumentType = 'string' | 'strings' | 'number';

export interface TagSpec {
  /** The extension that must have been required. */
  requires?: string;
  /** What follows the tag. */
  value?: ArgumentType;
  /** At most one tag of a group stands in a command: `comparator`, `match-type`, `address-part`, … */
  group?: string;
  isNeeded?: boolean;
}

export interface PositionalSpec {
  name: string;
  /** `string` also takes no list; `strings` takes a single text. */
  type: ArgumentType;
  isOptional?: boolean;
}

export interface Signature {
  /** Lower case. */
  name: string;
  /** Extensions of which one must have been required. Default: the name of the extension that it is listed in; none for RFC 5228's own (name ''). */
  requires?: readonly string[];
  tags?: Readonly<Record<string, TagSpec>>;
  positional?: readonly PositionalSpec[];
  /** How many tests it takes. Default: none. */
  tests?: 'one' | 'list';
  /** Whether it is followed by a block. */
  hasBlock?: boolean;
}

/** A text of a script, in which variables (RFC 5229) may stand. */
export interface Text {
  /** Present when it depends on nothing: matchers can be made once. */
  readonly constant?: string;
  readonly at: Position;
  of(run: Run): string;
}

/** The arguments of one command, checked against its signature. */
export interface Arguments {
  readonly at: Position;
  hasTag(tag: string): boolean;
  /** Name of the tag of this group that is given. */
  tagOf(group: string): string | undefined;
  /** Where a tag stands (the command itself when it does not). */
  tagAt(tag: string): Position;
  /** Value of a tag or positional argument, by name. Undefined where it is left out. */
  text(name: string): Text | undefined;
  texts(name: string): readonly Text[] | undefined;
  number(name: string): number | undefined;
}

/** While a script is compiled. */
export interface CompileContext {
  /** Whether the script has required this extension. */
  hasRequired(extension: string): boolean;
  /** Whether a script could require it here: it is known and allowed. */
  isAvailable(extension: string): boolean;
  /** Makes an extension usable from here on, as `ihave` does (RFC 5463). */
  enable(extension: string): void;
  /** Names of the loops around, outermost first; undefined for one without a name. */
  readonly loops: readonly (string | undefined)[];
  /** The name of a variable that can be set (RFC 5229 3), in lower case; refuses everything else. */
  variableName(text: Text): string;
  readonly options: CompileOptions;
  /** Refuses the script. */
  fail(message: string, at: Position): never;
}

export type MaybePromise<T> = T | Promise<T>;
/** A compiled test. It is counted by the frame before it is asked. */
export type Test = (run: Run) => MaybePromise<boolean>;
/** A compiled command. `stop` ends the script, `return` the included one (RFC 6609), `break` a loop (RFC 5703); `break NAME` that of a name. */
export type Flow = undefined | 'stop' | 'return' | { break: string | undefined };
/** A command that only does something is written with braces: it gives undefined. */
export type Action = (run: Run) => MaybePromise<Flow>;

export interface TestDefinition extends Signature {
  /** @param tests those given in parentheses or behind it. */
  compile(arguments_: Arguments, context: CompileContext, tests: readonly Test[]): Test;
  /** What one test of its list that always gives this decides (`allof`: false): those behind it are not looked at in a script with `ihave`. */
  decidedBy?: boolean;
}

export interface CommandDefinition extends Signature {
  /** @param block runs the commands of its block. */
  compile(arguments_: Arguments, context: CompileContext, tests: readonly Test[], block: Action): Action;
  /** `break` may stand in its block (RFC 5703); its tag `:name` names it. */
  isLoop?: boolean;
}

/** One extension: what it adds. The registry (`extensions.ts`) is a list of these. */
export interface Extension {
  /** As in `require`; '' for what needs none. */
  name: string;
  /** Extensions that need not be required beside it. */
  implies?: readonly string[];
  /** Of the variables that it adds: `global` for `${global.x}`. */
  namespace?: string;
  tests?: readonly TestDefinition[];
  commands?: readonly CommandDefinition[];
}

// ---- compiling ----

export interface SieveLimits {
  maxScriptBytes: number;
  /** Blocks and tests within each other. */
  maxNesting: number;
  /** Commands and tests that one script may have. */
  maxCommands: number;
  maxTextBytes: number;
  maxListItems: number;
  /** Commands and tests that one run may perform; texts compared count by their size, too. */
  maxSteps: number;
  maxVariables: number;
  maxVariableBytes: number;
  maxIncludes: number;
  maxIncludeDepth: number;
  maxRedirects: number;
  maxActions: number;
  /** Header fields that one script may add. */
  maxAddedFields: number;
  /** From the start of a message, what tests of its body and parts look at. */
  maxMessageBytes: number;
}

export interface CompileOptions {
  /** Extensions that a script may require. What is not there is refused at `require` and unknown to `ihave`. */
  extensions: ReadonlySet<string>;
  /** Commands that may not be used here although their extension may (`keep` is one of RFC 5228's); name → reason, told at compile time. */
  withheld?: ReadonlyMap<string, string>;
  limits?: Partial<SieveLimits>;
  /** RFC 5233: between user and detail of a local part. Default `+`; '' for addresses without details. */
  subaddressSeparator?: string;
}

// ---- running ----

/** One header field; `value` unfolded, raw (latin1, one byte per character), without the line end. */
export interface RawField {
  /** As it is written. */
  name: string;
  value: string;
}

/** What a script is told of the message. Absent before there is one: `header`, `address`, `body`, … then hold for nothing, and `size` for what the client declared. */
export interface SieveMessage {
  /** Header fields, first to last. */
  fields: readonly RawField[];
  sizeBytes: number;
  /** All bytes of the message, header too, for tests that look at its parts; at most `maxBytes` from its start. */
  bytes(maxBytes: number): MaybePromise<Buffer>;
}

export interface SieveEnvelope {
  /** Reverse-path without brackets, '' for none. Undefined: not known yet. */
  from?: string;
  /** The recipients that the script is run for: one, or all of a message. */
  to: readonly string[];
  /** RFC 6009, RFC 8580 names: `auth`, `notify`, `orcpt`, `ret`, `envid`, `bytimeabsolute`, `bymode`, …; absent ones are unknown. */
  parts?: Readonly<Record<string, readonly string[]>>;
}

/** What scripts ask of the node. Absent members: the extension must not be offered. */
export interface SieveHost {
  /** The text of an included script (RFC 6609); undefined: there is none. */
  include?(name: string, location: 'personal' | 'global'): MaybePromise<string | undefined>;
  /** RFC 6134: whether one of the values is in the list. */
  isInList?(list: string, values: readonly string[]): MaybePromise<boolean>;
  isListName?(list: string): MaybePromise<boolean>;
  /** RFC 7352: whether `id` was seen within `seconds` before; notes it once the run has ended well (the frame puts that into the outcome). */
  wasSeen?(id: string): MaybePromise<boolean>;
  /** RFC 5490, RFC 8579, RFC 9042: whether there is one mailbox that has all that is given, and that the script may file into. */
  hasMailbox?(wanted: { name?: string; specialUse?: string; mailboxId?: string }): MaybePromise<boolean>;
}

export interface SieveInput {
  envelope: SieveEnvelope;
  message?: SieveMessage;
  /** RFC 5183 items, lower-case name → value: `domain`, `host`, `location`, `name`, `phase`, `remote-host`, `remote-ip`, `version`, and our own `vnd.starling.…`. */
  environment: Readonly<Record<string, string>>;
  /** Global variables (RFC 6609) that are there before the run, by lower-case name. */
  variables?: Readonly<Record<string, string>>;
  host?: SieveHost;
  /** Wall clock, milliseconds. */
  nowMs: number;
  signal?: AbortSignal;
}

export type SieveAction =
  | { kind: 'keep'; flags?: string[] }
  | {
      kind: 'fileinto';
      mailbox: string;
      isCopy: boolean;
      creates: boolean;
      flags?: string[];
      specialUse?: string;
      mailboxId?: string;
    }
  /** With `list` (RFC 6134) `address` is ''. `notify`, `ret` and `deliverBy` are those of the SMTP extensions (RFC 6009). */
  | {
      kind: 'redirect';
      address: string;
      isCopy: boolean;
      list?: string;
      notify?: string;
      ret?: 'FULL' | 'HDRS';
      deliverBy?: { seconds: number; mode: 'notify' | 'return'; isTraced: boolean };
    }
  | { kind: 'discard' }
  /** `ereject` asks for a refusal in the session, `reject` may also be told by a message (RFC 5429). */
  | { kind: 'reject'; reason: string; isEarly: boolean }
  | {
      kind: 'vacation';
      reason: string;
      seconds: number;
      subject?: string;
      from?: string;
      addresses: string[];
      isMime: boolean;
      handle?: string;
      fcc?: string;
      fccFlags?: string[];
      fccCreates?: boolean;
    }
  | {
      kind: 'notify';
      method: string;
      from?: string;
      importance?: '1' | '2' | '3';
      options: string[];
      message?: string;
      fcc?: string;
      fccFlags?: string[];
      fccCreates?: boolean;
    };

/** What a run has decided. */
export interface SieveOutcome {
  actions: SieveAction[];
  /** Whether the message is kept because nothing has taken the implicit keep away. */
  keepsImplicitly: boolean;
  /** Flags of the implicit keep (RFC 5232): what `setflag` and its like have left. */
  flags: string[];
  /** Present when `addheader` or `deleteheader` (RFC 5293) edited the header: all its fields in order. `original`, an index into the message's fields: kept as it came. */
  editedFields?: ({ original: number } | { added: RawField })[];
  /** Ids that `duplicate` looked at, to be noted when what the run decided has been done. */
  seenIds: { id: string; seconds: number }[];
  /** Global variables at the end. */
  variables: Record<string, string>;
  steps: number;
}

/** The script has gone wrong while it ran (RFC 5228 2.10.6): who runs it falls back to an implicit keep. */
export class SieveRunError extends Error {
  override readonly name = 'SieveRunError';
  constructor(
    message: string,
    readonly at?: Position,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** One run of a script: what tests and commands work on. Made by the frame (`run.ts`). */
export interface Run {
  readonly input: SieveInput;
  readonly limits: SieveLimits;
  /** The header as edited so far. */
  readonly header: EditableHeader;
  readonly actions: SieveAction[];
  isImplicitKeepCancelled: boolean;
  /** IMAP flags of `setflag` and its like without a variable (RFC 5232). */
  flags: string[];
  readonly seenIds: SieveOutcome['seenIds'];
  /** By lower-case name, namespace included (`global.x`); undefined: not set. */
  variable(name: string): string | undefined;
  setVariable(name: string, value: string): void;
  /** `${0}` … of the last match that held (RFC 5229 3.2). */
  setMatches(values: readonly string[]): void;
  /** Counts work; throws SieveRunError when it is too much. One step is about the price of comparing a hundred bytes. */
  spend(steps: number): void;
  /** Adds an action within the limits. */
  act(action: SieveAction): void;
  /** MIME structure of the message, parsed once. Undefined without a message. */
  structure(): MaybePromise<ParsedMessage | undefined>;
  /** The part that a loop of `foreverypart` (RFC 5703) is at; undefined outside. */
  part: import('../message/index.js').Part | undefined;
}

export interface ParsedMessage {
  bytes: Buffer;
  root: import('../message/index.js').Part;
}

export interface EditableHeader {
  /** Values of a field, any case, first to last, raw. An array is never changed: what was read from it may be kept with it. */
  values(name: string): readonly string[];
  names(): readonly string[];
  add(field: RawField, isLast: boolean): void;
  /** Removes fields of a name that `matches` holds for; counted from 1, from the end with `fromEnd`. Gives how many. */
  remove(name: string, options: { index?: number; fromEnd?: boolean; matches?: (value: string) => boolean }): number;
}

/** A compiled script: it can be run any number of times, by any number of messages at once. */
export interface SieveScript {
  readonly required: readonly string[];
  run(input: SieveInput): Promise<SieveOutcome>;
}
