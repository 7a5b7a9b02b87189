import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Clock, silentLogger, systemClock, systemRandom } from '../../ops/telemetry/index.js';
import { type KvStore, MemoryDatabase, type MemoryFaultOptions, openMemoryStore } from '../kv/index.js';
import { foldText } from './analysis/index.js';
import { type SearchDocument, type SearchField, type SearchStore, searchFields } from './contract.js';
import { decodeHead } from './head.js';
import { createSearchStore, type SearchStoreOptions } from './index.js';
import { searchKeys, segmentIdOf } from './keys.js';

const account = 'alice';

class HandClock implements Clock {
  ms = 1_800_000_000_000;
  nowMs = () => this.ms;
  monotonicMs = () => this.ms;
  setTimer: Clock['setTimer'] = (_, callback) => systemClock.setTimer(0, callback);
  sleep: Clock['sleep'] = async () => undefined;
}

const emailId = (nth: number) => `01h${nth.toString(32).padStart(7, '0')}${(nth * 7_919).toString(32).padStart(10, '0')}`;

// Few letters, so that words meet, contain and begin one another; Han without spaces, and a long run.
const word = fc.oneof(
  { weight: 8, arbitrary: fc.string({ unit: fc.constantFrom('a', 'b', 'ä'), minLength: 1, maxLength: 4 }) },
  { weight: 2, arbitrary: fc.string({ unit: fc.constantFrom('漢', '字', '語'), minLength: 1, maxLength: 4 }) },
  { weight: 1, arbitrary: fc.constantFrom('x1', '𝒳y', 'A', 'E\u0301', 'ab'.repeat(60), '😀') },
);
const separator = fc.constantFrom(' ', ', ', '-', '', '\n', '.');
const text = fc
  .array(fc.tuple(word, separator), { maxLength: 6 })
  .map((parts) => parts.map(([one, between]) => one + between).join(''));
const field = fc.constantFrom<SearchField>('from', 'subject', 'body');
const content = fc.record({
  texts: fc.array(fc.record({ field, text }), { maxLength: 3 }),
  isPartial: fc.oneof({ weight: 8, arbitrary: fc.constant(false) }, { weight: 1, arbitrary: fc.constant(true) }),
});

type Operation =
  | { op: 'add'; contents: Omit<SearchDocument, 'emailId'>[]; again: number[]; by: number }
  | { op: 'race'; contents: Omit<SearchDocument, 'emailId'>[] }
  | { op: 'tidy' | 'tidy-both'; by: number; wait: number }
  | { op: 'destroy'; nth: number[] }
  | { op: 'remove' };

const by = fc.nat({ max: 1 });
const contents = fc.array(content, { minLength: 1, maxLength: 4 });
const operation: fc.Arbitrary<Operation> = fc.oneof(
  { weight: 10, arbitrary: fc.record({ op: fc.constant('add' as const), contents, again: fc.array(fc.nat({ max: 20 })), by }) },
  { weight: 2, arbitrary: fc.record({ op: fc.constant('race' as const), contents }) },
  {
    weight: 5,
    arbitrary: fc.record({
      op: fc.constantFrom('tidy' as const, 'tidy-both' as const),
      by,
      wait: fc.constantFrom(0, 61_000, 601_000, 8 * 86_400_000),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ op: fc.constant('destroy' as const), nth: fc.array(fc.nat({ max: 30 }), { maxLength: 6 }) }),
  },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('remove' as const) }) },
);

interface Model {
  /** Every message that there was, in the order of adding. */
  indexed: SearchDocument[];
  destroyed: Set<string>;
  modseq: number;
  exists: boolean;
}

interface House {
  kv: KvStore;
  clock: HandClock;
  nodes: SearchStore[];
}

function openHouse(faults?: MemoryFaultOptions): House {
  const clock = new HandClock();
  const database = new MemoryDatabase({ clock: systemClock });
  const kv = openMemoryStore({ database, ...(faults && { faults }) });
  const node = (more: Pick<SearchStoreOptions, 'cacheBytes' | 'transactionBytes'>) =>
    createSearchStore({ kv, clock, random: systemRandom, logger: silentLogger, ...more });
  // One has to read nearly everything anew, and writes all blocks ahead of the head; the other has room.
  return { kv, clock, nodes: [node({ cacheBytes: 2_000, transactionBytes: 1 }), node({})] };
}

let documentCount = 0;
const documentOf = (one: Omit<SearchDocument, 'emailId'>): SearchDocument => ({ ...one, emailId: emailId(++documentCount) });

async function apply({ nodes, clock, kv }: House, model: Model, step: Operation): Promise<void> {
  const isGone = async (ids: readonly string[]) => ids.map((id) => model.destroyed.has(id));
  const bounds = { fromModseq: model.modseq, toModseq: model.modseq + 1 };
  const added = (documents: SearchDocument[]) => {
    model.indexed.push(...documents);
    model.modseq++;
    model.exists = true;
  };
  switch (step.op) {
    case 'add': {
      const fresh = step.contents.map(documentOf);
      const again = step.again.flatMap((nth) => model.indexed[nth] ?? []);
      expect(await nodes[step.by]!.add(account, [...again, ...fresh], bounds)).toBe(true);
      const present = new Set(model.indexed);
      return added([...again.filter((one) => !present.has(one)), ...fresh]);
    }
    case 'race': {
      const lots = [step.contents.map(documentOf), step.contents.map(documentOf)];
      const done = await Promise.all(lots.map((lot, nth) => nodes[nth]!.add(account, lot, bounds)));
      expect(done.filter(Boolean)).toHaveLength(1);
      // Late ones are refused, too.
      expect(await nodes[0]!.add(account, lots[0]!, bounds)).toBe(false);
      return added(lots[done.indexOf(true)]!);
    }
    case 'tidy':
    case 'tidy-both': {
      clock.ms += step.wait;
      const chosen = step.op === 'tidy' ? [nodes[step.by]!] : nodes;
      await Promise.all(
        chosen.map(async (node) => {
          for (let turn = 0; await node.tidy(account, isGone); turn++) expect(turn).toBeLessThan(50);
        }),
      );
      return;
    }
    case 'destroy':
      for (const nth of step.nth) if (model.indexed[nth]) model.destroyed.add(model.indexed[nth].emailId);
      return;
    case 'remove':
      await nodes[0]!.remove(account);
      expect((await allRows(kv)).length).toBe(0);
      Object.assign(model, { indexed: [], destroyed: new Set(), modseq: 0, exists: false });
  }
}

async function allRows(kv: KvStore) {
  const { begin, end } = searchKeys.account(account);
  return kv.read((reads) => reads.getRange(begin, end));
}

async function compare({ nodes }: House, model: Model, queries: readonly (readonly [SearchField[], string])[]): Promise<void> {
  for (const node of nodes) {
    const view = await node.open(account);
    expect(view !== undefined).toBe(model.exists);
    if (!view) continue;
    expect((await node.progress(account))!.modseq).toBe(model.modseq);
    const numbers = model.indexed.map(({ emailId: id }) => view.documentOf(id));
    // Every message is there once; only destroyed ones may be missing.
    expect(new Set(numbers.filter((number) => number >= 0)).size).toBe(view.documents);
    for (const [nth, document] of model.indexed.entries()) {
      if (!model.destroyed.has(document.emailId)) expect(numbers[nth]).toBeGreaterThanOrEqual(0);
    }
    for (const [fields, query] of queries) {
      const answer = await view.substring({ fields, text: query });
      const folded = foldText(query);
      for (const [nth, { texts, isPartial }] of model.indexed.entries()) {
        const number = numbers[nth]!;
        if (number < 0) continue;
        const isIn = texts.some((one) => fields.includes(one.field) && foldText(one.text).includes(folded));
        const [has, mayHave] = [answer.has(number), answer.mayHave(number)];
        expect(has && mayHave).toBe(false);
        if (has) expect(isIn, `${query} is in ${JSON.stringify(texts)}`).toBe(true);
        if (isIn || isPartial) expect(has || mayHave, `${query} may be in ${JSON.stringify(texts)}`).toBe(true);
      }
    }
  }
}

/** All blocks belong to a segment of the head, or to one that a row says is on its way. */
async function expectNoOrphans(kv: KvStore): Promise<void> {
  const rows = await allRows(kv);
  const head = rows.find(({ key }) => key.equals(searchKeys.head(account)));
  const known = new Set(head ? decodeHead(head.value).segments.map(({ id }) => id) : []);
  const loose = searchKeys.allLoose(account);
  for (const { key } of rows) if (key.compare(loose.begin) >= 0 && key.compare(loose.end) < 0) known.add(segmentIdOf(key));
  const blocks = searchKeys.allBlocks(account);
  for (const { key } of rows) {
    if (key.compare(blocks.begin) >= 0 && key.compare(blocks.end) < 0) expect(known).toContain(segmentIdOf(key));
  }
}

const query = fc.tuple(
  fc.subarray([...searchFields], { minLength: 1 }),
  fc.oneof(
    word,
    fc.tuple(word, separator, word).map((parts) => parts.join('')),
    text,
  ),
);

async function run(
  steps: readonly Operation[],
  queries: readonly (readonly [SearchField[], string])[],
  faults?: MemoryFaultOptions,
) {
  const house = openHouse(faults);
  const model: Model = { indexed: [], destroyed: new Set(), modseq: 0, exists: false };
  for (const step of steps) await apply(house, model, step);
  await compare(house, model, queries);
  await expectNoOrphans(house.kv);
  await house.nodes[1]!.remove(account);
  expect(await allRows(house.kv)).toEqual([]);
  await house.kv.close();
}

describe('the search store against a scan', () => {
  it('agrees', async () => {
    const steps = fc.array(operation, { minLength: 1, maxLength: 20, size: 'max' });
    await fc.assert(
      fc.asyncProperty(steps, fc.array(query, { minLength: 1, maxLength: 6 }), (some, queries) => run(some, queries)),
      { numRuns: 60 },
    );
  });

  it('agrees with conflicts and unknown commits', async () => {
    const faults = { conflict: 0.1, commitUnknownApplied: 0.1, commitUnknownLost: 0.05 };
    const steps = fc.array(operation, { minLength: 1, maxLength: 14, size: 'max' });
    await fc.assert(
      fc.asyncProperty(steps, fc.array(query, { minLength: 1, maxLength: 3 }), (some, queries) => run(some, queries, faults)),
      { numRuns: 25 },
    );
  });
});
