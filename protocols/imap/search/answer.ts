/**
 * Results of SEARCH and SORT on their way to the client (RFC 9051 7.3.4, RFC 4731, RFC 5256 section 4, RFC 9394), written in pieces as the client takes them, and
 * what is kept of them for `$` (RFC 5182).
 */
import type { SessionContext } from '../context.js';
import { formatString } from '../grammar/format.js';
import { formatPartialRange, partOf, type SearchReturns } from '../grammar/search-returns.js';
import { formatNumbers } from '../grammar/sequence-set.js';
import type { SelectedMailbox } from '../selected.js';
import type { Found } from './run.js';

/** Numbers that are turned into text at one time. */
const numbersPerPiece = 4_096;

/** UIDs or sequence numbers of positions, in their order. */
export function numbersOf(found: Found, byUid: boolean): Uint32Array {
  const { announced, positions } = found;
  return byUid ? positions.map((position) => announced[position]!) : positions.map((position) => position + 1);
}

/** ` 1 2 3`, in pieces. */
async function writeList(context: SessionContext, numbers: Uint32Array): Promise<void> {
  for (let from = 0; from < numbers.length; from += numbersPerPiece) {
    context.output.write(` ${numbers.subarray(from, from + numbersPerPiece).join(' ')}`);
    await context.output.ready();
  }
}

/** `1:3,5`, in pieces; at least one number. A run may be cut in two between pieces. */
async function writeSet(context: SessionContext, numbers: Uint32Array): Promise<void> {
  for (let from = 0; from < numbers.length; ) {
    let to = Math.min(from + numbersPerPiece, numbers.length);
    // Not within a run: `1:4096,4097:9000` would be right, but not what a client expects of a set.
    while (to < numbers.length && numbers[to] === numbers[to - 1]! + 1) to++;
    context.output.write(`${from === 0 ? '' : ','}${formatNumbers(numbers.subarray(from, to))}`);
    from = to;
    await context.output.ready();
  }
}

function highestModseq(selected: SelectedMailbox, found: Found): number {
  const view = selected.index.view();
  let highest = 0;
  let at = -1;
  let last = -1;
  for (const position of found.positions) {
    const uid = found.announced[position]!;
    if (position <= last) at = -1;
    last = position;
    if (view.uids[++at] !== uid && (at = view.positionOf(uid)) < 0) continue;
    const modseq = view.modseqAt(at);
    if (modseq > highest) highest = modseq;
  }
  return highest;
}

/** The old responses: `* SEARCH 2 84 882`, `* SORT …`. With `modseq` the highest one of the result (RFC 7162 3.1.5, 3.1.6). */
export async function answerPlainly(
  context: SessionContext,
  name: 'SEARCH' | 'SORT',
  found: Found,
  options: { byUid: boolean; modseq: boolean },
): Promise<void> {
  const selected = context.requireSelected();
  const modseq = options.modseq && found.positions.length > 0 ? ` (MODSEQ ${highestModseq(selected, found)})` : '';
  context.output.write(`* ${name}`);
  await writeList(context, numbersOf(found, options.byUid));
  context.output.write(`${modseq}\r\n`);
}

/** The parts of a result that MIN, MAX and PARTIAL name, as positions. */
function toldOf(returns: SearchReturns, positions: Uint32Array): Uint32Array {
  const told = new Set<number>();
  if (positions.length > 0 && returns.min) told.add(positions[0]!);
  if (positions.length > 0 && returns.max) told.add(positions[positions.length - 1]!);
  if (returns.partial) for (const position of partOf(positions, returns.partial)) told.add(position);
  return Uint32Array.from(told).sort();
}

/** The ESEARCH response; nothing where only SAVE is asked for (RFC 5182 2.1). */
export async function answerExtended(
  context: SessionContext,
  returns: SearchReturns,
  found: Found,
  options: { byUid: boolean; modseq: boolean; tag: string },
): Promise<void> {
  const { positions } = found;
  const tells = returns.min || returns.max || returns.all || returns.count || returns.update || returns.partial;
  if (!tells) return;
  // Before the first byte: the response is not to break off in the middle.
  const modseq = options.modseq && positions.length > 0 ? modseqOf(context.requireSelected(), returns, found) : 0;
  const numbers = numbersOf(found, options.byUid);
  const { output } = context;
  output.write(`* ESEARCH (TAG ${formatString(options.tag)})${options.byUid ? ' UID' : ''}`);
  if (numbers.length > 0 && returns.min) output.write(` MIN ${numbers[0]}`);
  if (numbers.length > 0 && returns.max) output.write(` MAX ${numbers[numbers.length - 1]}`);
  if (numbers.length > 0 && returns.all) {
    output.write(' ALL ');
    await writeSet(context, numbers);
  }
  if (returns.partial) {
    const part = partOf(numbers, returns.partial);
    output.write(` PARTIAL (${formatPartialRange(returns.partial)} `);
    if (part.length === 0) output.write('NIL');
    else await writeSet(context, part);
    output.write(')');
  }
  if (returns.count) output.write(` COUNT ${numbers.length}`);
  output.write(modseq > 0 ? ` MODSEQ ${modseq}\r\n` : '\r\n');
}

/** RFC 7162 3.1.5: of MIN and MAX only, if nothing else is told. */
function modseqOf(selected: SelectedMailbox, returns: SearchReturns, found: Found): number {
  const ofAll = returns.all || returns.count || !(returns.min || returns.max || returns.partial);
  return highestModseq(selected, ofAll ? found : { ...found, positions: toldOf(returns, found.positions) });
}

/**
 * The UIDs that `$` stands for from now on, ascending: all, or with MIN, MAX or PARTIAL and neither ALL nor COUNT only those (RFC 5182 2.4, RFC 9394 3.2).
 */
export function savedOf(returns: SearchReturns, found: Found): Uint32Array {
  const onlyTold = (returns.min || returns.max || returns.partial !== undefined) && !returns.all && !returns.count;
  const positions = onlyTold ? toldOf(returns, found.positions) : found.positions.slice().sort();
  return positions.map((position) => found.announced[position]!);
}
