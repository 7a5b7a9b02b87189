/** Which header fields a test looks at: by name, `:index` and `:last` (RFC 5260 6), `:mime` and `:anychild` (RFC 5703 4). */
import { findHeaders, type Part } from '../../message/index.js';
import type { Arguments, CompileContext, MaybePromise, ParsedMessage, Run, Text } from '../contract.js';
import { after } from '../maybe.js';

/** Fields of one name, in their order. */
export interface Fields {
  /** Lower case. */
  name: string;
  /** Raw, unfolded. */
  values: readonly string[];
}

export type FieldSource = (run: Run) => MaybePromise<readonly Fields[]>;

/** Parts that `:anychild` looks into, at most. */
const maxParts = 2000;
const bytesPerStep = 100;

/**
 * Fields by the names that the positional argument `names` has; a name without fields gives none. Names that can be no field's are no
 * error (RFC 5228 2.4.2.2), they just find nothing.
 */
export function fieldSource(arguments_: Arguments, context: CompileContext, names: string): FieldSource {
  const texts = arguments_.texts(names)!;
  const namesOf = fieldNames(texts);
  const pick = indexOf(arguments_, context);
  if (arguments_.hasTag('anychild') && !arguments_.hasTag('mime')) {
    context.fail("':anychild' needs ':mime'", arguments_.tagAt('anychild'));
  }
  const find = arguments_.hasTag('mime') ? mimeFields(arguments_.hasTag('anychild')) : messageFields;
  if (!pick) return (run) => find(run, namesOf(run));
  return (run) => after(find(run, namesOf(run)), pick);
}

/** In lower case. */
function fieldNames(texts: readonly Text[]): (run: Run) => readonly string[] {
  if (texts.every((text) => text.constant !== undefined)) {
    const names = texts.map((text) => text.constant!.toLowerCase());
    return () => names;
  }
  return (run) => texts.map((text) => text.of(run).toLowerCase());
}

function messageFields(run: Run, names: readonly string[]): Fields[] {
  const found: Fields[] = [];
  for (const name of names) {
    const values = run.header.values(name);
    if (values.length > 0) found.push({ name, values });
  }
  return found;
}

/** RFC 5260 6: all fields are counted together, in the order of the names. */
export function indexOf(arguments_: Arguments, context: CompileContext): ((fields: readonly Fields[]) => Fields[]) | undefined {
  const index = arguments_.number('index');
  const isFromEnd = arguments_.hasTag('last');
  if (index === undefined) {
    if (isFromEnd) context.fail("':last' needs ':index'", arguments_.tagAt('last'));
    return undefined;
  }
  if (index < 1) context.fail("':index' counts from 1", arguments_.tagAt('index'));
  return (fields) => {
    let skip = index - 1;
    for (const { name, values } of isFromEnd ? [...fields].reverse() : fields) {
      if (skip < values.length) return [{ name, values: [values[isFromEnd ? values.length - 1 - skip : skip]!] }];
      skip -= values.length;
    }
    return [];
  };
}

/** RFC 5703 4.1: of the part that a loop is at, else of the message; with `:anychild` of all parts below it, too. */
function mimeFields(isAnyChild: boolean): (run: Run, names: readonly string[]) => MaybePromise<readonly Fields[]> {
  return (run, names) => {
    if (!run.part && !isAnyChild) return messageFields(run, names);
    return after(run.structure(), (message) => {
      if (!message) return messageFields(run, names);
      const start = run.part ?? message.root;
      return (isAnyChild ? partsWithin(start) : [start]).flatMap((part) => partFields(run, message, part, names));
    });
  };
}

function partFields(run: Run, { bytes, root }: ParsedMessage, part: Part, names: readonly string[]): Fields[] {
  // The message's own header may have been edited.
  if (part === root) return messageFields(run, names);
  const found: Fields[] = [];
  for (const name of names) {
    run.spend(1 + Math.ceil((part.headerEnd - part.headerStart) / bytesPerStep));
    const values = findHeaders(bytes, part, name);
    if (values.length > 0) found.push({ name, values });
  }
  return found;
}

/** The part and all below it, depth first, messages within messages too. */
export function partsWithin(start: Part): Part[] {
  const found: Part[] = [];
  const pending: Part[] = [start];
  for (let part = pending.pop(); part && found.length < maxParts; part = pending.pop()) {
    found.push(part);
    const below = part.children ?? (part.message ? [part.message.structure] : []);
    for (let i = below.length - 1; i >= 0; i--) pending.push(below[i]!);
  }
  return found;
}

/** Encoded words are dear: charsets are looked up, pieces put together. */
const encodedCharsPerStep = 6;

/** Reading raw values costs by their size. */
export function spendReading(run: Run, fields: readonly Fields[]): void {
  let steps = 0;
  for (const { values } of fields) {
    for (const value of values) steps += value.length / (value.includes('=?') ? encodedCharsPerStep : bytesPerStep);
  }
  if (steps >= 1) run.spend(Math.floor(steps));
}
