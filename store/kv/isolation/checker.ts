/**
 * Whether an observed history can have come from a strictly serialisable store, by the method of Elle (Kingsbury, Alvaro 2020) for lists
 * that are appended to: the reads give the order of the appends, that gives who must come before whom, and a circle is a proof that no
 * order explains the history. Circles are named as by Adya (1999). Pure: knows nothing of stores.
 */
import { Graph, type Path } from './graph.js';
import { describe, type Lists, readLists } from './lists.js';
import type { Anomaly, AnomalyKind, ObservedTransaction } from './observed.js';

const ww = 1;
const wr = 2;
const rw = 4;
/** An anti-dependency over something that a range was seen not to hold. */
const rwRange = 8;
const time = 16;
const version = 32;
const anti = rw | rwRange;

const maxReported = 10;

/** Everything in the history that a strictly serialisable store can't have done; empty when there is nothing. At most ten circles. */
export function checkHistory(history: readonly ObservedTransaction[]): Anomaly[] {
  const lists = readLists(history);
  const committed = [...lists.committed];
  const graph = new Graph();
  const nodeOf = new Map(committed.map((each) => [each, graph.addNode()]));
  addListEdges(graph, lists, nodeOf);
  addTimeEdges(graph, committed, nodeOf);
  addVersionEdges(graph, committed, nodeOf);
  const circles = new CircleSearch(graph, committed).all();
  return [...lists.anomalies, ...circles];
}

/** Throws an error that shows what is wrong with the history, if anything is. `context` says how to run it again. */
export function assertStrictlySerialisable(history: readonly ObservedTransaction[], context: string): void {
  const anomalies = checkHistory(history);
  if (anomalies.length === 0) return;
  const shown = anomalies.slice(0, maxReported).map((anomaly) => anomaly.message);
  throw new Error(`not strictly serialisable (${context}): ${anomalies.length} anomalies\n${shown.join('\n')}`);
}

function addListEdges(graph: Graph, lists: Lists, nodeOf: ReadonlyMap<ObservedTransaction, number>): void {
  const writer = (value: number | undefined) => {
    const by = value === undefined ? undefined : lists.writerOf.get(value);
    return by && nodeOf.get(by);
  };
  for (const { order, reads, unseen } of lists.stories) {
    const edge = (from: number | undefined, to: number | undefined, kind: number) => {
      if (from !== undefined && to !== undefined) graph.addEdge(from, to, kind);
    };
    for (let at = 1; at < order.length; at++) edge(writer(order[at - 1]), writer(order[at]), ww);
    for (const append of unseen) edge(writer(order.at(-1)), nodeOf.get(append.by), ww);
    for (const read of reads) {
      const reader = nodeOf.get(read.by);
      const kind = read.byRange ? rwRange : rw;
      edge(writer(order[read.length - 1]), reader, wr);
      edge(reader, nextWriter(lists, read.by, order, read.length, nodeOf), kind);
      for (const append of unseen) edge(reader, nodeOf.get(append.by), kind);
    }
  }
}

/** Who appended first, of all others, behind what `reader` saw: its own appends stand in between. */
function nextWriter(
  lists: Lists,
  reader: ObservedTransaction,
  order: readonly number[],
  from: number,
  nodeOf: ReadonlyMap<ObservedTransaction, number>,
): number | undefined {
  for (let at = from; at < order.length; at++) {
    const writer = lists.writerOf.get(order[at]!);
    if (writer && writer !== reader) return nodeOf.get(writer);
  }
  return undefined;
}

/** What was answered before another began comes before it. One node per answer, in a chain, stands for all pairs. */
function addTimeEdges(graph: Graph, committed: readonly ObservedTransaction[], nodeOf: ReadonlyMap<ObservedTransaction, number>) {
  const ended = committed.filter((each) => each.outcome === 'ok').sort((a, b) => a.endedAt - b.endedAt);
  const begun = [...committed].sort((a, b) => a.begunAt - b.begunAt);
  let gate: number | undefined;
  let at = 0;
  for (const each of begun) {
    for (; at < ended.length && ended[at]!.endedAt < each.begunAt; at++) {
      const next = graph.addNode();
      if (gate !== undefined) graph.addEdge(gate, next, time);
      graph.addEdge(nodeOf.get(ended[at]!)!, next, time);
      gate = next;
    }
    if (gate !== undefined) graph.addEdge(gate, nodeOf.get(each)!, time);
  }
}

/** Writers in the order of their versions; who only read comes after the writers of the version it read, and before later ones. */
function addVersionEdges(
  graph: Graph,
  committed: readonly ObservedTransaction[],
  nodeOf: ReadonlyMap<ObservedTransaction, number>,
) {
  const versioned = committed.filter((each) => each.version !== undefined);
  const steps = new Map<string, { order: bigint; members: number[] }>();
  for (const each of versioned) {
    const writes = each.operations.some((operation) => operation.kind === 'append');
    const order = each.version! * 2n + (writes ? 0n : 1n);
    const step = steps.get(`${order}`);
    if (step) step.members.push(nodeOf.get(each)!);
    else steps.set(`${order}`, { order, members: [nodeOf.get(each)!] });
  }
  let gate: number | undefined;
  for (const { members } of [...steps.values()].sort((a, b) => (a.order < b.order ? -1 : 1))) {
    const next = graph.addNode();
    if (gate !== undefined) graph.addEdge(gate, next, version);
    for (const member of members) {
      if (gate !== undefined) graph.addEdge(gate, member, version);
      graph.addEdge(member, next, version);
    }
    gate = next;
  }
}

/** Looks for circles, the gravest first: with ever more kinds of edges, so that a circle is named by what it needs. */
class CircleSearch {
  readonly #found: Anomaly[] = [];
  /** Transactions that stand in a circle which was reported; the same trouble is not told twice. */
  readonly #told = new Set<number>();

  constructor(
    readonly graph: Graph,
    readonly transactions: readonly ObservedTransaction[],
  ) {}

  all(): Anomaly[] {
    this.#eachComponent(ww, (within, start) => this.#report('G0', this.#circle(start, ww, within)));
    this.#eachComponent(ww | wr, (within, start) => this.#report('G1c', this.#circle(start, ww | wr, within)));
    this.#eachComponent(ww | wr | anti, (within, start) => this.#reportAnti(within, start));
    this.#eachComponent(ww | wr | anti | time, (within, start) =>
      this.#report('real-time', this.#circle(start, ww | wr | anti | time, within)),
    );
    const everything = ww | wr | anti | time | version;
    this.#eachComponent(everything, (within, start) => this.#report('version-order', this.#circle(start, everything, within)));
    return this.#found;
  }

  #eachComponent(mask: number, look: (within: ReadonlySet<number>, start: number) => void): void {
    for (const component of this.graph.components(mask)) {
      if (this.#found.length >= maxReported) return;
      const members = component.filter((node) => node < this.transactions.length);
      if (members.length === 0 || members.some((node) => this.#told.has(node))) continue;
      for (const node of members) this.#told.add(node);
      look(new Set(component), Math.min(...members));
    }
  }

  /** One anti-dependency and a way back without any is a G-single; else there are several in every circle. */
  #reportAnti(within: ReadonlySet<number>, start: number): void {
    let best: Path | undefined;
    for (const from of within) {
      for (const edge of this.graph.edgesOf(from)) {
        if ((edge.kind & anti) === 0 || !within.has(edge.to)) continue;
        const back = this.graph.path(edge.to, from, ww | wr, within);
        if (!back || (best && best.nodes.length <= back.nodes.length + 1)) continue;
        best = { nodes: [from, ...back.nodes], kinds: [edge.kind, ...back.kinds] };
      }
    }
    if (best) {
      this.#report('G-single', best);
      return;
    }
    const circle = this.#circle(start, ww | wr | anti, within);
    this.#report(circle?.kinds.includes(rwRange) ? 'G2' : 'G2-item', circle);
  }

  /** The shortest circle through any of the first transactions of a component. */
  #circle(start: number, mask: number, within: ReadonlySet<number>): Path | undefined {
    let best: Path | undefined;
    let tried = 0;
    for (const node of [start, ...within]) {
      if (node >= this.transactions.length || tried++ > 50) continue;
      for (const edge of this.graph.edgesOf(node)) {
        if ((edge.kind & mask) === 0 || !within.has(edge.to)) continue;
        const back = this.graph.path(edge.to, node, mask, within, this.transactions.length);
        if (!back || (best && this.#weight(best) <= this.#weight(back) + 1)) continue;
        best = { nodes: [node, ...back.nodes], kinds: [edge.kind, ...back.kinds] };
      }
    }
    return best;
  }

  #weight(path: Path): number {
    return path.nodes.filter((node) => node < this.transactions.length).length;
  }

  #report(kind: AnomalyKind, circle: Path | undefined): void {
    if (!circle) throw new Error('a component of a graph without a circle: the checker is wrong');
    const involved: ObservedTransaction[] = [];
    const lines: string[] = [];
    for (let at = 0; at < circle.nodes.length; at++) {
      const each = this.transactions[circle.nodes[at]!];
      const joint = circle.kinds[at];
      if (!each) continue;
      // The last node of a circle is its first one.
      lines.push(`    ${at === circle.nodes.length - 1 ? `T${each.id} again` : describe(each)}`);
      if (joint !== undefined) lines.push(`      ${joints.get(joint)!}`);
      if (at < circle.nodes.length - 1) involved.push(each);
    }
    const message = [`${kind}: no order of these ${involved.length} transactions explains what they saw`, ...lines].join('\n');
    this.#found.push({ kind, message, transactions: involved.map((each) => each.id) });
  }
}

const joints = new Map([
  [ww, '│ww: appended right before, in the same list,'],
  [wr, '│wr: its append was seen by'],
  [rw, '│rw: did not see the append of'],
  [rwRange, '│rw: found no such list in a range, before it was made by'],
  [time, '│rt: was answered before the beginning of'],
  [version, '│version: was told a lower version than'],
]);
