/**
 * LIST (RFC 9051 6.3.9: selection and return options, LIST-STATUS, special uses) and LSUB (RFC 3501 6.3.9).
 */
import type { Mailbox, MailboxCounts } from '../../../store/mail/contract.js';
import { type Command, loggedIn } from '../command.js';
import { type SessionContext, yieldEventLoop } from '../context.js';
import type { Cursor } from '../grammar/cursor.js';
import { ImapSyntaxError } from '../grammar/limits.js';
import { decodeMailboxName, mailboxPattern, separator } from '../grammar/mailbox-name.js';
import { ok } from '../replies.js';
import { formatStatus, readStatusItems } from './status.js';

const useOfRole: Record<string, string> = {
  drafts: '\\Drafts',
  sent: '\\Sent',
  trash: '\\Trash',
  junk: '\\Junk',
  archive: '\\Archive',
};
/** RFC 9051 6.3.9: an empty pattern asks for the separator and the root of the reference. No name of ours is rooted. */
const rootAnswer = `(\\Noselect) "${separator}" ""`;
const maxPatterns = 32;
const maxPatternBytes = 1_024;
/** Time after which others get a turn. */
const turnMs = 10;

interface ListRequest {
  onlySubscribed: boolean;
  onlySpecialUse: boolean;
  recursiveMatch: boolean;
  patterns: string[];
  returnSubscribed: boolean;
  statusItems?: string[];
}

function readSelection(cursor: Cursor, request: ListRequest): void {
  if (!cursor.sees('(')) return;
  for (const option of cursor.list(() => cursor.word(), true)) {
    if (option === 'SUBSCRIBED') request.onlySubscribed = request.returnSubscribed = true;
    else if (option === 'SPECIAL-USE') request.onlySpecialUse = true;
    else if (option === 'RECURSIVEMATCH') request.recursiveMatch = true;
    else if (option !== 'REMOTE') cursor.fail(`Unknown selection option ${option.slice(0, 40)}`);
  }
  // RFC 9051 6.3.9.1: RECURSIVEMATCH alone has nothing to recurse for.
  if (request.recursiveMatch && !request.onlySubscribed) cursor.fail('RECURSIVEMATCH needs another selection option');
  cursor.space();
}

function readReturns(cursor: Cursor, request: ListRequest): void {
  if (!cursor.takes(' ')) return;
  if (cursor.word() !== 'RETURN') cursor.fail('Expected RETURN');
  cursor.space();
  cursor.list(() => {
    const option = cursor.word();
    if (option === 'STATUS') {
      cursor.space();
      request.statusItems = readStatusItems(cursor);
    } else if (option === 'SUBSCRIBED') request.returnSubscribed = true;
    else if (option !== 'CHILDREN' && option !== 'SPECIAL-USE') cursor.fail(`Unknown return option ${option.slice(0, 40)}`);
  }, true);
}

/** The reference and the pattern together; '' for an empty pattern, whatever the reference. */
function readPattern(context: SessionContext, cursor: Cursor, reference: string): string {
  const latin1 = cursor.listMailbox();
  if (latin1 === '') return '';
  if (latin1.length > maxPatternBytes) throw new ImapSyntaxError('Pattern too long', 'LIMIT', 'NO');
  return reference + decodeMailboxName(latin1, context.utf8);
}

function readRequest(context: SessionContext, cursor: Cursor): ListRequest {
  const request: ListRequest = {
    onlySubscribed: false,
    onlySpecialUse: false,
    recursiveMatch: false,
    patterns: [],
    returnSubscribed: false,
  };
  cursor.space();
  readSelection(cursor, request);
  const reference = decodeMailboxName(cursor.astring(), context.utf8);
  if (reference.length > maxPatternBytes) throw new ImapSyntaxError('Reference too long', 'LIMIT', 'NO');
  cursor.space();
  if (cursor.sees('(')) {
    request.patterns = cursor.list(() => {
      if (request.patterns.length >= maxPatterns) throw new ImapSyntaxError('Too many patterns', 'LIMIT', 'NO');
      return readPattern(context, cursor, reference);
    });
    if (request.patterns.length > maxPatterns) throw new ImapSyntaxError('Too many patterns', 'LIMIT', 'NO');
  } else {
    request.patterns = [readPattern(context, cursor, reference)];
  }
  readReturns(cursor, request);
  cursor.end();
  return request;
}

interface Listed {
  mailbox: Mailbox;
  counts: MailboxCounts;
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
    const all = await context.services.mail.mailboxes(context.accountId);
    await writeMatches(context, request, all);
    return ok('LIST completed');
  },
};

async function writeMatches(context: SessionContext, request: ListRequest, all: readonly Listed[]): Promise<void> {
  const matchers = request.patterns.map(mailboxPattern);
  const parents = new Set(all.map(({ mailbox }) => mailbox.parentId));
  const subscribedAbove = request.recursiveMatch ? parentsOfSubscribed(all) : undefined;
  const giveTurn = turns(context);
  for (const { mailbox, counts } of all) {
    await giveTurn();
    const name = mailbox.path.join(separator);
    if (!matchers.some((matches) => matches(name))) continue;
    if (request.onlySpecialUse && !useOfRole[mailbox.role ?? '']) continue;
    const hasSubscribedBelow = subscribedAbove?.has(mailbox.id) ?? false;
    if (request.onlySubscribed && !mailbox.isSubscribed && !hasSubscribedBelow) continue;
    const attributes = attributesOf(mailbox, parents.has(mailbox.id), request.returnSubscribed);
    // RFC 9051 6.3.9.7: CHILDINFO says that the mailbox is here for its children's sake as well.
    const extended = hasSubscribedBelow ? ' ("CHILDINFO" ("SUBSCRIBED"))' : '';
    context.untagged(`LIST (${attributes}) "${separator}" ${context.mailboxText(mailbox.path)}${extended}`);
    if (request.statusItems) context.untagged(formatStatus(context, mailbox, counts, request.statusItems));
  }
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

function attributesOf(mailbox: Mailbox, hasChildren: boolean, withSubscription: boolean): string {
  const attributes = [hasChildren ? '\\HasChildren' : '\\HasNoChildren'];
  const use = useOfRole[mailbox.role ?? ''];
  if (use) attributes.push(use);
  if (withSubscription && mailbox.isSubscribed) attributes.push('\\Subscribed');
  return attributes.join(' ');
}

/** Ids of all mailboxes that have a subscribed one somewhere below them. */
function parentsOfSubscribed(all: readonly Listed[]): Set<string> {
  const parentOf = new Map(all.map(({ mailbox }) => [mailbox.id, mailbox.parentId]));
  const above = new Set<string>();
  for (const { mailbox } of all) {
    if (!mailbox.isSubscribed) continue;
    for (let id = mailbox.parentId; id !== '' && !above.has(id); id = parentOf.get(id) ?? '') above.add(id);
  }
  return above;
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
    const matches = mailboxPattern(pattern);
    const all = await context.services.mail.mailboxes(context.accountId);
    // RFC 3501 6.3.9: with %, a parent that is not subscribed itself stands for subscribed ones below, as \Noselect.
    const above = pattern.includes('%') ? parentsOfSubscribed(all) : undefined;
    const giveTurn = turns(context);
    for (const { mailbox } of all) {
      if (!mailbox.isSubscribed && !above?.has(mailbox.id)) continue;
      await giveTurn();
      if (!matches(mailbox.path.join(separator))) continue;
      const attributes = mailbox.isSubscribed ? '' : '\\Noselect';
      context.untagged(`LSUB (${attributes}) "${separator}" ${context.mailboxText(mailbox.path)}`);
    }
    return ok('LSUB completed');
  },
};
