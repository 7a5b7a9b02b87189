/**
 * The first half of the checker: what became of each list. From the reads, of which each must begin with every shorter one, it takes the
 * order of the appends; what contradicts that, or what a transaction itself did, is an anomaly already.
 */
import type { Anomaly, AnomalyKind, List, ListName, ObservedTransaction } from './observed.js';

/** One read of one list by one transaction, its own appends cut off. */
export interface ListRead {
  readonly by: ObservedTransaction;
  readonly length: number;
  /** True when a range was seen not to hold the list. */
  readonly byRange: boolean;
}

/** One list, as all transactions together have shown it. */
export interface ListStory {
  readonly name: ListName;
  /** The longest list that was read. */
  readonly order: List;
  readonly reads: readonly ListRead[];
  /** Appends of committed transactions that no read has shown: they come after everything that was. */
  readonly unseen: readonly { readonly by: ObservedTransaction; readonly value: number }[];
}

export interface Lists {
  readonly stories: readonly ListStory[];
  readonly writerOf: ReadonlyMap<number, ObservedTransaction>;
  /** The `ok` ones, and of the unknown ones those whose appends were seen. */
  readonly committed: ReadonlySet<ObservedTransaction>;
  readonly anomalies: readonly Anomaly[];
}

export type Report = (kind: AnomalyKind, message: string, ...involved: (ObservedTransaction | undefined)[]) => void;

/** Reads the lists out of a history. */
export function readLists(history: readonly ObservedTransaction[]): Lists {
  const anomalies: Anomaly[] = [];
  const report: Report = (kind, message, ...involved) => {
    const present = involved.filter((each) => each !== undefined);
    const lines = present.map((each) => `    ${describe(each)}`);
    anomalies.push({ kind, message: [`${kind}: ${message}`, ...lines].join('\n'), transactions: present.map((each) => each.id) });
  };
  const { appends, writerOf } = collectAppends(history, report);
  const reads = collectReads(history, [...appends.keys()], report);
  const committed = new Set(history.filter((each) => each.outcome === 'ok'));
  for (const each of [...reads.values()].flat()) {
    for (const value of each.found) {
      const writer = writerOf.get(value);
      if (writer?.outcome === 'info') committed.add(writer);
    }
  }
  const stories: ListStory[] = [];
  for (const name of new Set([...appends.keys(), ...reads.keys()])) {
    // What a body saw before it failed is no promise; a commit that was not acknowledged but happened has read what it says.
    const counted = (reads.get(name) ?? []).filter((read) => committed.has(read.by));
    stories.push(tellStory(name, counted, appends.get(name) ?? [], { writerOf, committed, report }));
  }
  return { stories, writerOf, committed, anomalies };
}

/** `T7 client 2, ok: read a=[1 2], append a 5`. */
export function describe(each: ObservedTransaction): string {
  const operations = each.operations.map((operation) => {
    if (operation.kind === 'append') return `append ${operation.list} ${operation.value}`;
    if (operation.kind === 'read') return `read ${operation.list}=${shownList(operation.found)}`;
    const found = [...operation.found].map(([name, list]) => `${name}=${shownList(list)}`);
    return `range ${operation.begin}..${operation.end}={${found.join(' ')}}`;
  });
  const version = each.version === undefined ? '' : `, version ${each.version}`;
  const time = each.outcome === 'ok' ? `${each.begunAt}..${each.endedAt}` : `${each.begunAt}..`;
  return `T${each.id} (${each.client}, ${each.outcome}, ${time}${version}): ${operations.join(', ')}`;
}

function shownList(list: List): string {
  const shown = list.length > 12 ? ['…', ...list.slice(-12)] : list;
  return `[${shown.join(' ')}]`;
}

interface Append {
  readonly by: ObservedTransaction;
  readonly value: number;
}

function collectAppends(history: readonly ObservedTransaction[], report: Report) {
  const appends = new Map<ListName, Append[]>();
  const writerOf = new Map<number, ObservedTransaction>();
  for (const by of history) {
    for (const operation of by.operations) {
      if (operation.kind !== 'append') continue;
      const { list, value } = operation;
      const before = writerOf.get(value);
      if (before) report('duplicate-append', `the history itself appends ${value} twice`, before, by);
      writerOf.set(value, by);
      const ofList = appends.get(list);
      if (ofList) ofList.push({ by, value });
      else appends.set(list, [{ by, value }]);
    }
  }
  return { appends, writerOf };
}

interface RawRead {
  readonly by: ObservedTransaction;
  /** Without what the transaction itself had appended. */
  readonly found: List;
  readonly byRange: boolean;
}

function collectReads(history: readonly ObservedTransaction[], names: readonly ListName[], report: Report) {
  const reads = new Map<ListName, RawRead[]>();
  const sorted = [...names].sort((a, b) => (a < b ? -1 : 1));
  for (const by of history) {
    const first = new Map<ListName, List>();
    const own = new Map<ListName, number[]>();
    const note = (name: ListName, seen: List, byRange: boolean) => {
      const found = withoutOwn(seen, own.get(name) ?? []);
      const before = first.get(name);
      if (found === undefined) report('internal', `T${by.id} does not see what it has itself appended to ${name}`, by);
      else if (before && !sameList(before, found)) report('internal', `T${by.id} reads ${name} twice, and differently`, by);
      else if (!before) {
        first.set(name, found);
        const ofList = reads.get(name);
        if (ofList) ofList.push({ by, found, byRange });
        else reads.set(name, [{ by, found, byRange }]);
      }
    };
    for (const operation of by.operations) {
      if (operation.kind === 'append') own.set(operation.list, [...(own.get(operation.list) ?? []), operation.value]);
      else if (operation.kind === 'read') note(operation.list, operation.found, false);
      else {
        for (const [name, list] of operation.found) note(name, list, false);
        for (const name of sorted) {
          if (name < operation.begin || name >= operation.end || operation.found.has(name)) continue;
          note(name, [], true);
        }
      }
    }
  }
  return reads;
}

/** What was there before the transaction's own appends; `undefined` when they are not at the end. */
function withoutOwn(seen: List, own: List): List | undefined {
  const length = seen.length - own.length;
  if (length < 0 || own.some((value, at) => seen[length + at] !== value)) return undefined;
  return seen.slice(0, length);
}

function sameList(a: List, b: List): boolean {
  return a.length === b.length && isPrefix(a, b);
}

function isPrefix(short: List, long: List): boolean {
  for (let at = 0; at < short.length; at++) if (short[at] !== long[at]) return false;
  return true;
}

interface Verdicts {
  readonly writerOf: ReadonlyMap<number, ObservedTransaction>;
  readonly committed: ReadonlySet<ObservedTransaction>;
  readonly report: Report;
}

function tellStory(name: ListName, raw: readonly RawRead[], appends: readonly Append[], verdicts: Verdicts): ListStory {
  const { writerOf, committed, report } = verdicts;
  const longest = raw.reduce<RawRead | undefined>(
    (best, read) => (best && best.found.length >= read.found.length ? best : read),
    undefined,
  );
  const order = longest?.found ?? [];
  const places = new Map<number, number>();
  for (const [at, value] of order.entries()) {
    const writer = writerOf.get(value);
    if (places.has(value)) report('duplicate-append', `${value} is twice in ${name}`, longest!.by, writer);
    places.set(value, at);
    if (!writer) report('unknown-value', `${name} holds ${value}, which nobody has appended`, longest!.by);
    else if (writer.outcome === 'fail')
      report('G1a', `${name} holds ${value}, whose append was said not to have happened`, longest!.by, writer);
  }
  const reads: ListRead[] = [];
  for (const read of raw) {
    if (!isPrefix(read.found, order)) {
      report('incompatible-order', `two reads of ${name} of which neither begins with the other`, read.by, longest!.by);
      continue;
    }
    reads.push({ by: read.by, length: read.found.length, byRange: read.byRange });
    const last = read.found.at(-1);
    const writer = last === undefined ? undefined : writerOf.get(last);
    const next = writerOf.get(order[read.found.length] ?? Number.NaN);
    if (writer && next === writer && writer !== read.by)
      report('G1b', `T${read.by.id} sees ${name} as it was in the middle of T${writer.id}`, read.by, writer);
  }
  const unseen = appends.filter((append) => committed.has(append.by) && !places.has(append.value));
  for (const append of unseen) {
    const witness = raw.find((read) => append.by.outcome === 'ok' && read.by.begunAt > append.by.endedAt);
    if (witness)
      report(
        'lost-append',
        `T${append.by.id} appended ${append.value} to ${name}; what was read later is without it`,
        append.by,
        witness.by,
      );
  }
  return { name, order, reads, unseen };
}
