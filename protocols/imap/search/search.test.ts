/** SEARCH over the wire against a plain look at every message: without an index, with the real one half filled, with one that knows little, with one that fails. */
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { silentLogger, systemClock, systemRandom } from '../../../ops/telemetry/index.js';
import { openMemoryStore } from '../../../store/kv/index.js';
import type { EmailId } from '../../../store/mail/contract.js';
import type { SearchStore, SearchTerm, TermAnswer } from '../../../store/search/contract.js';
import { createSearchStore, type SearchDocument, SearchError } from '../../../store/search/index.js';
import { addressText, bodyText, headerText, parseMessage, subjectText, summarize } from '../../message/index.js';
import { searchText } from '../grammar/search-keys.js';
import { TestClient } from '../testing/client.js';
import { accountIdOf, startTestServer, type TestServer } from '../testing/server.js';

const words = ['alpha', 'Beta', 'ärger', 'delta-five', 'lunch', 'MEETING'];
const count = 60;

function textOf(i: number): string {
  const word = (n: number) => words[(i * n + (i >> 2)) % words.length]!;
  const extra = i % 5 === 0 ? `X-Mark: ${word(7)}\r\n` : '';
  const type = 'MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n';
  return `From: ${word(3)} <p${i % 9}@example.org>\r\nTo: t${i % 4}@example.net\r\nSubject: ${word(1)} ${word(2)} ${i}\r\nMessage-ID: <m${i}@x>\r\n${extra}${type}\r\n${word(5)} and ${word(11)} ${i}\r\n`;
}

/** Texts of each message as they are compared. */
const texts = Array.from({ length: count }, (_, i) => {
  const bytes = Buffer.from(textOf(i));
  const { envelope } = summarize(bytes);
  const structure = parseMessage(bytes);
  return {
    from: addressText(envelope.from),
    to: addressText(envelope.to),
    subject: subjectText(envelope.subject),
    header: headerText(bytes, structure),
    body: bodyText(bytes, structure),
    mark: /X-Mark: (.*)\r/.exec(textOf(i))?.[1],
    id: `<m${i}@x>`,
    isSeen: i % 3 === 0,
    isDeleted: i % 7 === 0,
  };
});

interface Key {
  text: string;
  holds(i: number): boolean;
}

const has = (text: string | undefined, part: string) => text !== undefined && searchText(text).includes(searchText(part));
const quoted = (text: string) =>
  /^[\x20-\x7e]*$/.test(text) ? `"${text}"` : `{${Buffer.byteLength(text)}+}\r\n${Buffer.from(text).toString('latin1')}`;
const part = fc.oneof(
  fc.constantFrom(...words, 'a', 'BE', 'ÄRG', 'ta', 'p3@', '1', 'm1', 'nothing', 'and ', 'delta-f', 'five'),
  fc.nat(count).map(String),
);
const leaf: fc.Arbitrary<Key> = fc.oneof(
  fc.constantFrom<Key>(
    { text: 'SEEN', holds: (i) => texts[i]!.isSeen },
    { text: 'UNSEEN', holds: (i) => !texts[i]!.isSeen },
    { text: 'DELETED', holds: (i) => texts[i]!.isDeleted },
    { text: 'ALL', holds: () => true },
  ),
  fc.tuple(fc.integer({ min: 1, max: count }), fc.integer({ min: 1, max: count })).map(([a, b]) => ({
    text: `UID ${a}:${b}`,
    holds: (i: number) => i + 1 >= Math.min(a, b) && i + 1 <= Math.max(a, b),
  })),
  part.chain((text) =>
    fc.constantFrom<Key>(
      { text: `FROM ${quoted(text)}`, holds: (i) => has(texts[i]!.from, text) },
      { text: `TO ${quoted(text)}`, holds: (i) => has(texts[i]!.to, text) },
      { text: `SUBJECT ${quoted(text)}`, holds: (i) => has(texts[i]!.subject, text) },
      { text: `BODY ${quoted(text)}`, holds: (i) => has(texts[i]!.body, text) },
      { text: `TEXT ${quoted(text)}`, holds: (i) => has(texts[i]!.body, text) || has(texts[i]!.header, text) },
      { text: `HEADER X-Mark ${quoted(text)}`, holds: (i) => has(texts[i]!.mark, text) },
      { text: 'HEADER X-Mark ""', holds: (i) => texts[i]!.mark !== undefined },
      { text: `HEADER Message-ID ${quoted(text)}`, holds: (i) => has(texts[i]!.id, text) },
    ),
  ),
);
const { key } = fc.letrec<{ key: Key }>((tie) => ({
  key: fc.oneof(
    { maxDepth: 3, withCrossShrink: true },
    leaf,
    tie('key').map((inner) => ({ text: `NOT ${inner.text}`, holds: (i: number) => !inner.holds(i) })),
    fc
      .tuple(tie('key'), tie('key'))
      .map(([a, b]) => ({ text: `OR ${a.text} ${b.text}`, holds: (i: number) => a.holds(i) || b.holds(i) })),
    fc
      .tuple(tie('key'), tie('key'))
      .map(([a, b]) => ({ text: `(${a.text} ${b.text})`, holds: (i: number) => a.holds(i) && b.holds(i) })),
  ),
}));

/** What the vague index was asked for, of what stands nowhere. */
const asked = new Set<string>();

/** An index that knows two thirds of the messages, and half of what it knows only perhaps. */
function vague(ids: () => readonly EmailId[]): SearchStore {
  const fieldText = (i: number, term: SearchTerm) =>
    term.fields.map((field) => (texts[i] as unknown as Record<string, string>)[field] ?? '').join('\n');
  const view = {
    documents: count,
    parts: [{ id: 'only', documents: count }],
    documentOf: (id: EmailId) => {
      const i = ids().indexOf(id);
      return i % 3 === 2 ? -1 : i;
    },
    substring: async (term: SearchTerm): Promise<TermAnswer> => {
      if (term.text.startsWith('never')) asked.add(term.text);
      const holds = (i: number) => has(fieldText(i, term), term.text);
      const surely = (i: number) => i % 2 === 0 && holds(i);
      const mayHave = (i: number) => i % 2 === 1 && (holds(i) || i % 5 === 0);
      const tell = (documents: Int32Array, into: Uint8Array) =>
        documents.forEach((i, at) => {
          into[at] = i < 0 ? 2 : surely(i) ? 1 : mayHave(i) ? 2 : 0;
        });
      return { has: surely, mayHave, tell };
    },
    words: () => Promise.reject(new Error('not asked')),
  };
  return { open: async () => view } as Partial<SearchStore> as SearchStore;
}

const failing = {
  open: async () => {
    throw new SearchError('damaged', 'in pieces');
  },
} as Partial<SearchStore> as SearchStore;

async function fill(server: TestServer): Promise<EmailId[]> {
  for (let i = 0; i < count; i++)
    await server.deliver('alice', 'INBOX', textOf(i), { keywords: texts[i]!.isSeen ? ['$seen'] : [] });
  const inbox = await server.mail.mailboxByPath(accountIdOf('alice'), ['INBOX']);
  const entries = await server.mail.entries(accountIdOf('alice'), inbox!.mailbox.id);
  return entries.map((entry) => entry.emailId);
}

async function indexed(store: SearchStore, ids: readonly EmailId[]): Promise<void> {
  const documents: SearchDocument[] = ids.slice(0, 40).map((emailId, i) => ({
    emailId,
    texts: (['from', 'to', 'subject', 'header', 'body'] as const).map((field) => ({ field, text: texts[i]![field] })),
    ...(i % 8 === 1 ? { isPartial: true } : {}),
  }));
  expect(await store.add(accountIdOf('alice'), documents, { fromModseq: 0, toModseq: 1 })).toBe(true);
}

describe.each(['none', 'real', 'vague', 'failing'])('SEARCH with this index: %s', (kind) => {
  let server: TestServer;
  let client: TestClient;
  let ids: EmailId[] = [];

  beforeAll(async () => {
    const kv = openMemoryStore({ clock: systemClock });
    const real = createSearchStore({ kv, clock: systemClock, random: systemRandom, logger: silentLogger });
    const search = kind === 'real' ? real : kind === 'vague' ? vague(() => ids) : kind === 'failing' ? failing : undefined;
    server = await startTestServer({ kv, ...(search ? { search } : {}) });
    ids = await fill(server);
    if (kind === 'real') await indexed(real, ids);
    client = await TestClient.login(server.port);
    await client.ok('SELECT INBOX');
    const deleted = texts.flatMap(({ isDeleted }, i) => (isDeleted ? [i + 1] : []));
    await client.ok(`STORE ${deleted.join()} +FLAGS.SILENT (\\Deleted)`);
  });
  afterAll(async () => {
    client.close();
    await server.close();
  });

  it('finds exactly what a look at every message finds', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(key, { minLength: 1, maxLength: 3 }), async (keys) => {
        const [line] = await client.ok(`UID SEARCH ${keys.map(({ text }) => text).join(' ')}`);
        const expected = texts.flatMap((_, i) => (keys.every((one) => one.holds(i)) ? [i + 1] : []));
        expect(line).toBe(`* SEARCH${expected.map((uid) => ` ${uid}`).join('')}`);
      }),
      { numRuns: kind === 'failing' ? 10 : 60 },
    );
  });

  it('finds it with more texts than the index is asked for', async () => {
    const never = Array.from({ length: 200 }, (_, i) => `SUBJECT never${i}`);
    const any = (keys: string[]): string => (keys.length === 1 ? keys[0]! : `OR ${keys[0]} ${any(keys.slice(1))}`);
    const groups = Array.from({ length: 10 }, (_, i) => any([...never.slice(i * 20, i * 20 + 20), 'SUBJECT lunch']));
    const [line] = await client.ok(`UID SEARCH ${groups.join(' ')}`);
    const expected = texts.flatMap((one, i) => (has(one.subject, 'lunch') ? [i + 1] : []));
    expect(line).toBe(`* SEARCH ${expected.join(' ')}`);
    if (kind === 'vague') expect(asked.size).toBeLessThanOrEqual(64);
  });

  it('finds what has just been delivered', async () => {
    await server.deliver('alice', 'INBOX', 'Subject: brandnew thing\r\n\r\nhello\r\n');
    const lines = await client.ok('SEARCH RETURN (COUNT) TEXT brandnew');
    expect(lines.at(-1)).toMatch(/ COUNT 1$/);
    await client.ok(`UID STORE ${count + 1} +FLAGS.SILENT (\\Deleted)`);
    await client.ok(`UID EXPUNGE ${count + 1}`);
  });
});

describe('hostile programs', () => {
  it('are answered, refused, or interrupted, and never too much for the stack', async () => {
    const server = await startTestServer();
    for (let i = 0; i < 5; i++) await server.deliver('alice', 'INBOX', textOf(i));
    const client = await TestClient.login(server.port);
    await client.ok('SELECT INBOX');
    const last = async (command: string) => (await client.command(command)).at(-1)!;
    expect(await last(`SEARCH ${'NOT '.repeat(10_000)}ALL`)).toMatch(/ NO \[LIMIT\]/);
    expect(await last(`SEARCH ${'('.repeat(1_000)}ALL${')'.repeat(1_000)}`)).toMatch(/ NO \[LIMIT\]/);
    expect(await last(`SEARCH ${'SEEN '.repeat(10_000).trim()}`)).toMatch(/ OK /);
    expect(await last(`SEARCH ${'UID 1 '.repeat(10_000).trim()}`)).toMatch(/ OK /);
    expect(await last(`SEARCH ${'TEXT x '.repeat(40).trim()}`)).toMatch(/ NO \[LIMIT\]/);
    client.close();
    await server.close();
  });
});
