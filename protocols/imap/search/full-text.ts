/** Asks the full-text index of the account that holds the mailbox about the texts of a program. */
import { counter } from '../../../ops/telemetry/index.js';
import type { AccountId } from '../../../store/mail/contract.js';
import type { SearchField, SearchTerm, SearchView, TermAnswer } from '../../../store/search/contract.js';
import type { SessionContext } from '../context.js';
import type { SearchKey } from '../grammar/search-keys.js';
import { knownNumbers } from './document-numbers.js';
import type { IndexAnswers } from './program.js';

const indexUse = counter(
  'starling_imap_search_index_total',
  'Searches of texts: answered by the full-text index, without one, or in spite of a failing one',
  ['result'],
);

/** Texts of one program that the index is asked for, each of which costs milliseconds and memory; the summaries of the messages decide about further ones. */
const maxAskedTexts = 64;

const everywhere: readonly SearchField[] = ['header', 'body'];

function termOf(key: SearchKey): SearchTerm | undefined {
  switch (key.kind) {
    case 'field':
      return key.text === '' ? undefined : { fields: [key.field], text: key.text };
    case 'body':
      return key.text === '' ? undefined : { fields: ['body'], text: key.text };
    case 'text':
      return key.text === '' ? undefined : { fields: everywhere, text: key.text };
    case 'header':
      // The names of fields are among the texts of `header`.
      return { fields: ['header'], text: key.text === '' ? `${key.name}:` : key.text };
    default:
      return undefined;
  }
}

function collect(key: SearchKey, into: Map<SearchKey, SearchTerm>): void {
  if (key.kind === 'and') for (const inner of key.keys) collect(inner, into);
  else if (key.kind === 'not') collect(key.key, into);
  else if (key.kind === 'or') {
    collect(key.left, into);
    collect(key.right, into);
  } else {
    const term = termOf(key);
    if (term) into.set(key, term);
  }
}

/**
 * Begins to open the index for a program that is nothing but a text, about which the columns of a mailbox say nothing: it is read along with what else is read
 * for the search.
 */
export function openAhead(
  { services }: SessionContext,
  accountId: AccountId,
  key: SearchKey,
): Promise<SearchView | undefined> | undefined {
  if (!termOf(key)) return undefined;
  const opening = services.search?.open(accountId);
  // Whoever needs it hears of its failure.
  opening?.catch(() => undefined);
  return opening;
}

/**
 * Undefined where no text is asked for, or nothing can be had from the index: then the messages are looked through. Never fails. `prepare` gets the index
 * before it is asked.
 */
export async function askIndex(
  context: SessionContext,
  accountId: AccountId,
  key: SearchKey,
  prepare: (view: SearchView) => Promise<void>,
  opening?: Promise<SearchView | undefined>,
): Promise<IndexAnswers | undefined> {
  const terms = new Map<SearchKey, SearchTerm>();
  collect(key, terms);
  const { search } = context.services;
  if (!search || terms.size === 0) return undefined;
  try {
    const view = await (opening ?? search.open(accountId));
    indexUse.inc({ result: view ? 'index' : 'none' });
    if (!view) return undefined;
    await prepare(view);
    return await answersOf(view, terms);
  } catch (error) {
    indexUse.inc({ result: 'failed' });
    context.logger.warn({ err: error }, 'the full-text index can not be read; messages are looked through instead');
    return undefined;
  }
}

async function answersOf(view: SearchView, terms: ReadonlyMap<SearchKey, SearchTerm>): Promise<IndexAnswers> {
  const of = new Map<SearchKey, TermAnswer>();
  const asked = new Map<string, Promise<TermAnswer>>();
  for (const [key, term] of terms) {
    const name = `${term.fields.join()} ${term.text}`;
    let answer = asked.get(name);
    if (!answer) {
      if (asked.size >= maxAskedTexts) continue;
      answer = view.substring(term);
      asked.set(name, answer);
    }
    of.set(key, await answer);
  }
  return {
    documentAt: (messages, at) => view.documentOf(messages.emailIdAt(at)),
    documentsOf: (messages) => knownNumbers(view, messages),
    of,
  };
}
