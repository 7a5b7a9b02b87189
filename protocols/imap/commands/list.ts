/**
 * LIST (RFC 9051 6.3.9: selection and return options, LIST-STATUS; special uses: RFC 6154; MYRIGHTS: RFC 8440; METADATA: RFC 9590) and LSUB (RFC 3501 6.3.9).
 */
import { type Command, loggedIn } from '../command.js';
import { type SessionContext, yieldEventLoop } from '../context.js';
import type { Cursor } from '../grammar/cursor.js';
import { ImapSyntaxError } from '../grammar/limits.js';
import { decodeMailboxName, separator } from '../grammar/mailbox-name.js';
import { isSelected, type ListNode, type ListSelection, readNodes, specialUse } from '../listing.js';
import { type MetadataRequest, maySeeAnnotations, metadataOf, readMetadataRequest } from '../metadata.js';
import type { MailboxPlace } from '../places.js';
import { ok, type Reply } from '../replies.js';
import { formatRights } from './acl.js';
import { readStatus, readStatusItems } from './status.js';

/** RFC 9051 6.3.9: an empty pattern asks for the separator and the root of the reference. No name of ours is rooted. */
const rootAnswer = `(\\Noselect) "${separator}" ""`;
const maxPatterns = 32;
const maxPatternBytes = 1_024;
/** Time after which others get a turn. */
const turnMs = 10;

interface ListRequest extends ListSelection {
  patterns: string[];
  recursiveMatch: boolean;
  /** Selection or return options were given: the client knows of \NonExistent. */
  isExtended: boolean;
  returnSubscribed: boolean;
  returnRights: boolean;
  statusItems?: string[];
  metadata?: MetadataRequest;
}

function readSelection(cursor: Cursor, request: ListRequest): void {
  if (!cursor.sees('(')) return;
  request.isExtended = true;
  for (const option of cursor.list(() => cursor.word(), true)) {
    if (option === 'SUBSCRIBED') request.onlySubscribed = request.returnSubscribed = true;
    else if (option === 'SPECIAL-USE') request.onlySpecialUse = true;
    else if (option === 'RECURSIVEMATCH') request.recursiveMatch = true;
    else if (option !== 'REMOTE') cursor.fail(`Unknown selection option ${option.slice(0, 40)}`);
  }
  // RFC 9051 6.3.9.1: RECURSIVEMATCH alone, or with REMOTE, has nothing to recurse for.
  if (request.recursiveMatch && !request.onlySubscribed && !request.onlySpecialUse)
    cursor.fail('RECURSIVEMATCH needs another selection option');
  cursor.space();
}

function readReturns(cursor: Cursor, request: ListRequest): void {
  if (!cursor.takes(' ')) return;
  if (cursor.word() !== 'RETURN') cursor.fail('Expected RETURN');
  request.isExtended = true;
  cursor.space();
  cursor.list(() => {
    const option = cursor.word();
    if (option === 'STATUS') {
      cursor.space();
      request.statusItems = readStatusItems(cursor);
    } else if (option === 'METADATA') {
      cursor.space();
      request.metadata = readMetadataRequest(cursor);
    } else if (option === 'SUBSCRIBED') request.returnSubscribed = true;
    else if (option === 'MYRIGHTS') request.returnRights = true;
    else if (option !== 'CHILDREN' && option !== 'SPECIAL-USE') cursor.fail(`Unknown return option ${option.slice(0, 40)}`);
  }, true);
}

/** The reference and the pattern together; '' for an empty pattern, whatever the reference. */
function readPattern(context: SessionContext, cursor: Cursor, reference: string): string {
  const latin1 = cursor.listMailbox();
  if (latin1 === '') return '';
  if (latin1.length > maxPatternBytes) throw new ImapSyntaxError('Pattern too long', 'LIMIT', 'NO');
  try {
    return reference + decodeMailboxName(latin1, context.utf8);
  } catch (error) {
    if (!(error instanceof ImapSyntaxError)) throw error;
    // What no mailbox can be called matches none.
    return unmatched;
  }
}

/** No name has this character. */
const unmatched = '\u0000';

function readRequest(context: SessionContext, cursor: Cursor): ListRequest {
  const request: ListRequest = {
    onlySubscribed: false,
    onlySpecialUse: false,
    recursiveMatch: false,
    isExtended: false,
    patterns: [],
    returnSubscribed: false,
    returnRights: false,
  };
  cursor.space();
  readSelection(cursor, request);
  const reference = decodeMailboxName(cursor.astring(), context.utf8);
  if (reference.length > maxPatternBytes) throw new ImapSyntaxError('Reference too long', 'LIMIT', 'NO');
  cursor.space();
  if (cursor.sees('(')) {
    request.isExtended = true;
    let count = 0;
    request.patterns = cursor.list(() => {
      if (++count > maxPatterns) throw new ImapSyntaxError('Too many patterns', 'LIMIT', 'NO');
      return readPattern(context, cursor, reference);
    });
  } else {
    request.patterns = [readPattern(context, cursor, reference)];
  }
  readReturns(cursor, request);
  cursor.end();
  return request;
}

export const list: Command = {
  name: 'LIST',
  states: loggedIn,
  async run(context, cursor) {
    const request = readRequest(context, cursor);
    if (request.patterns.length === 1 && request.patterns[0] === '') {
      context.untagged(`LIST ${rootAnswer}`);
      return ok('LIST completed');
    }
    if (request.statusItems?.includes('HIGHESTMODSEQ')) context.enabled.add('CONDSTORE');
    return writeMatches(context, request);
  },
};

async function writeMatches(context: SessionContext, request: ListRequest): Promise<Reply> {
  const nodes = await readNodes(context, request);
  const giveTurn = turns(context);
  let longestBytes = 0;
  for (const node of nodes) {
    const pause = giveTurn();
    if (pause) await pause;
    if (!isTold(node, request)) continue;
    context.untagged(`LIST ${responseOf(context, node, request)}`);
    const { place } = node;
    if (!place) continue;
    if (request.returnRights) context.untagged(`MYRIGHTS ${context.mailboxText(place.path)} ${formatRights(place.rights)}`);
    // RFC 5819 section 2: no STATUS where it can't be told.
    if (request.statusItems && place.rights.has('r')) context.untagged(await readStatus(context, place, request.statusItems));
    if (request.metadata && maySeeAnnotations(place.rights))
      longestBytes = Math.max(longestBytes, await writeMetadata(context, place, request.metadata));
  }
  return ok('LIST completed', longestBytes > 0 ? `METADATA LONGENTRIES ${longestBytes}` : undefined);
}

async function writeMetadata(context: SessionContext, place: MailboxPlace, request: MetadataRequest): Promise<number> {
  const { response, longestBytes } = await metadataOf(context, place, request);
  if (response) context.untagged(response);
  return longestBytes;
}

function isTold(node: ListNode, request: ListRequest): boolean {
  if (!node.matches) return false;
  if (isSelected(node, request)) return true;
  if (request.recursiveMatch) return node.hasUntoldBelow;
  // A name that is no mailbox stands for what is beneath it, where that is not told itself.
  return !request.onlySubscribed && !request.onlySpecialUse && !node.place && node.hasUntoldBelow;
}

function responseOf(context: SessionContext, node: ListNode, request: ListRequest): string {
  const head = `(${attributesOf(node, request)}) "${separator}" ${context.mailboxText(node.path)}`;
  // RFC 9051 6.3.9.7: CHILDINFO says that the name is here for its children's sake as well.
  if (!request.recursiveMatch || !node.hasSelectedBelow) return head;
  const options = [...(request.onlySubscribed ? ['"SUBSCRIBED"'] : []), ...(request.onlySpecialUse ? ['"SPECIAL-USE"'] : [])];
  return `${head} ("CHILDINFO" (${options.join(' ')}))`;
}

/** Matching a long pattern may take milliseconds per mailbox, and the client its time to read: to be called before each mailbox. */
function turns({ services, output }: SessionContext): () => Promise<void> | undefined {
  const { clock } = services;
  let turnStartMs = clock.monotonicMs();
  return () => {
    if (clock.monotonicMs() - turnStartMs < turnMs) return output.ready();
    return yieldEventLoop().then(() => {
      turnStartMs = clock.monotonicMs();
      return output.ready();
    });
  };
}

/** The LIST response about one mailbox, all its attributes told, without `* ` and line end. */
export function listLine(context: SessionContext, place: MailboxPlace, hasChildren: boolean): string {
  // The mark on the mailbox itself is its owner's.
  const node = { place, hasChildren, isSubscribed: place.accountId === context.accountId && place.mailbox.isSubscribed };
  return `LIST (${attributesOf(node, { returnSubscribed: true, isExtended: true })}) "${separator}" ${context.mailboxText(place.path)}`;
}

function attributesOf(
  node: Pick<ListNode, 'place' | 'hasChildren' | 'isSubscribed'>,
  { returnSubscribed, isExtended }: Pick<ListRequest, 'returnSubscribed' | 'isExtended'>,
): string {
  const attributes: string[] = [];
  if (!node.place) {
    // RFC 9051 7.3.1: implied by \NonExistent, which who asks plainly may not know.
    if (!isExtended) attributes.push('\\Noselect');
    attributes.push('\\NonExistent');
  }
  if (node.place || node.hasChildren) attributes.push(node.hasChildren ? '\\HasChildren' : '\\HasNoChildren');
  const use = specialUse(node);
  if (use) attributes.push(use);
  if (returnSubscribed && node.isSubscribed) attributes.push('\\Subscribed');
  return attributes.join(' ');
}

export const lsub: Command = {
  name: 'LSUB',
  states: loggedIn,
  async run(context, cursor) {
    cursor.space();
    const reference = decodeMailboxName(cursor.astring(), context.utf8);
    cursor.space();
    const pattern = readPattern(context, cursor, reference);
    cursor.end();
    if (pattern === '') {
      context.untagged(`LSUB ${rootAnswer}`);
      return ok('LSUB completed');
    }
    const nodes = await readNodes(context, { patterns: [pattern], onlySubscribed: true, onlySpecialUse: false });
    const giveTurn = turns(context);
    const hasPercent = pattern.includes('%');
    for (const node of nodes) {
      const pause = giveTurn();
      if (pause) await pause;
      // RFC 3501 6.3.9: with %, a name that is not subscribed itself stands for subscribed ones below, as \Noselect.
      if (!node.matches || !(node.isSubscribed || (hasPercent && node.hasSelectedBelow))) continue;
      const attributes = node.isSubscribed ? '' : '\\Noselect';
      context.untagged(`LSUB (${attributes}) "${separator}" ${context.mailboxText(node.path)}`);
    }
    return ok('LSUB completed');
  },
};
