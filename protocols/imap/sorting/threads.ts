/**
 * The thread algorithms of RFC 5256 and THREAD=REFS, on columns. Messages are rows 0 to `rows` - 1 in the mailbox's order; a number from `rows` on stands for a
 * message that is not there (a dummy). Nothing here recurses: threads may be as deep as the mailbox is long.
 */

export interface ThreadInput {
  rows: number;
  /** Hash of each message's id; 0 for none. */
  ids: Float64Array;
  /** Hashes of the ids that it refers to: those of row i are [starts[i], starts[i + 1]). */
  references: Float64Array;
  starts: Uint32Array;
  /** Base subjects: equal numbers are equal subjects, 0 the empty one. */
  subjects: Uint32Array;
  isReply: Uint8Array;
  /** Rows ordered by sent date, then by row. */
  bySent: Uint32Array;
  /** INTERNALDATE, for REFS. */
  arrived: Float64Array;
}

/** Siblings are linked lists in their order; -1 ends them. */
export interface ThreadForest {
  roots: readonly number[];
  firstChild: Int32Array;
  nextSibling: Int32Array;
}

/** Messages between two looks at the clock. */
const rowsPerTurn = 8_192;
/** Steps up a thread that count as one message. */
const stepsPerTurn = 1_000_000;

/** Ids to nodes; open addressing over doubles. */
class IdTable {
  readonly #keys: Float64Array;
  readonly #nodes: Int32Array;
  readonly #mask: number;

  constructor(ids: number) {
    const size = 2 ** Math.ceil(Math.log2(Math.max(16, ids * 2)));
    this.#keys = new Float64Array(size);
    this.#nodes = new Int32Array(size);
    this.#mask = size - 1;
  }

  /** The node of an id; `fresh` is put there if there is none. */
  nodeOf(id: number, fresh: number): number {
    let slot = (id % 0x1_0000_0000) & this.#mask;
    for (; this.#keys[slot] !== 0; slot = (slot + 1) & this.#mask) if (this.#keys[slot] === id) return this.#nodes[slot]!;
    this.#keys[slot] = id;
    this.#nodes[slot] = fresh;
    return fresh;
  }
}

/** ORDEREDSUBJECT: a thread per base subject, flat behind its first message. */
export function threadBySubject({ rows, subjects, bySent }: ThreadInput): ThreadForest {
  const roots: number[] = [];
  const firstChild = new Int32Array(rows).fill(-1);
  const nextSibling = new Int32Array(rows).fill(-1);
  const rootOf = new Map<number, number>();
  const lastOf = new Map<number, number>();
  for (const row of bySent) {
    const subject = subjects[row]!;
    const root = rootOf.get(subject);
    if (root === undefined) {
      rootOf.set(subject, row);
      roots.push(row);
      continue;
    }
    const last = lastOf.get(subject);
    if (last === undefined) firstChild[root] = row;
    else nextSibling[last] = row;
    lastOf.set(subject, row);
  }
  return { roots, firstChild, nextSibling };
}

/**
 * REFERENCES, or with `refs` REFS: without the merging of subjects, the threads ordered by the latest arrival in them. Yields now and then so that the caller can
 * give others a turn.
 */
export function* threadByReferences(input: ThreadInput, refs: boolean): Generator<void, ThreadForest> {
  const links = new Links(input);
  yield* links.link();
  const parents = links.prunedParents();
  yield;
  const dummies = refs ? undefined : mergeSubjects(input, parents);
  yield;
  return forestOf(input, parents, dummies, refs);
}

/** Step 1 of RFC 5256: who is whose parent. */
class Links {
  readonly #input: ThreadInput;
  readonly #parent: Int32Array;
  readonly #children: Uint32Array;
  #nodes: number;

  constructor(input: ThreadInput) {
    this.#input = input;
    const most = input.rows + input.references.length;
    this.#parent = new Int32Array(most).fill(-1);
    this.#children = new Uint32Array(most);
    this.#nodes = input.rows;
  }

  *link(): Generator<void> {
    const { rows, ids, references, starts } = this.#input;
    const table = new IdTable(rows + references.length);
    // Of several messages with one id the first has it.
    for (let row = 0; row < rows; row++) if (ids[row] !== 0) table.nodeOf(ids[row]!, row);
    yield;
    let steps = 0;
    for (let row = 0; row < rows; row++) {
      let before = -1;
      for (let i = starts[row]!; i < starts[row + 1]!; i++) {
        const node = table.nodeOf(references[i]!, this.#nodes);
        if (node === this.#nodes) this.#nodes++;
        // (A) A parent that is known already stays.
        if (before >= 0 && this.#parent[node] === -1) steps += this.#join(before, node);
        before = node;
      }
      // (B) The last reference is the parent, whatever others said of this message.
      this.#part(row);
      if (before >= 0) steps += this.#join(before, row);
      if (steps < stepsPerTurn && row % rowsPerTurn !== rowsPerTurn - 1) continue;
      steps = 0;
      yield;
    }
  }

  /** Makes `parent` the parent of `child`, which has none, unless that makes a loop. Tells how many steps it took to find out. */
  #join(parent: number, child: number): number {
    if (parent === child) return 1;
    let steps = 1;
    // Who has no children is nobody's ancestor.
    if (this.#children[child]! > 0)
      for (let node = this.#parent[parent]!; node !== -1; node = this.#parent[node]!, steps++) if (node === child) return steps;
    this.#parent[child] = parent;
    this.#children[parent]!++;
    return steps;
  }

  #part(child: number): void {
    const parent = this.#parent[child]!;
    if (parent === -1) return;
    this.#children[parent]!--;
    this.#parent[child] = -1;
  }

  /**
   * Steps 2 and 3: for each message the message above it, -1 where it is a root itself, or a dummy that holds several messages together at the root. All other
   * dummies are gone.
   */
  prunedParents(): Int32Array {
    const { rows } = this.#input;
    const parent = this.#parent;
    // What a dummy stands for: the message above it, or the topmost dummy of its line.
    const path: number[] = [];
    for (let dummy = rows; dummy < this.#nodes; dummy++) {
      let node = dummy;
      while (node >= rows && parent[node] !== -1) {
        path.push(node);
        node = parent[node]!;
      }
      for (const one of path) parent[one] = node;
      path.length = 0;
    }
    const pruned = new Int32Array(rows);
    const held = new Uint32Array(this.#nodes);
    for (let row = 0; row < rows; row++) {
      let above = parent[row]!;
      if (above >= rows && parent[above] !== -1) above = parent[above]!;
      pruned[row] = above;
      if (above >= 0) held[above]!++;
    }
    for (let row = 0; row < rows; row++) if (pruned[row]! >= rows && held[pruned[row]!] === 1) pruned[row] = -1;
    return pruned;
  }
}

/** Roots in the order of their first messages; for a dummy its children decide. */
function rootsOf({ rows, bySent }: ThreadInput, parents: Int32Array): { roots: number[]; firstOf: Map<number, number> } {
  const roots: number[] = [];
  const firstOf = new Map<number, number>();
  for (const row of bySent) {
    const parent = parents[row]!;
    if (parent === -1) roots.push(row);
    else if (parent >= rows && !firstOf.has(parent)) {
      firstOf.set(parent, row);
      roots.push(parent);
    }
  }
  return { roots, firstOf };
}

/** Dummies at the root that took in another one: which. */
type Dummies = Map<number, number>;

function resolved(dummies: Dummies | undefined, node: number): number {
  let at = node;
  for (let next = dummies?.get(at); next !== undefined; next = dummies!.get(at)) at = next;
  return at;
}

/** Steps 4 and 5: threads of one base subject become one. Changes `parents` of roots. */
function mergeSubjects(input: ThreadInput, parents: Int32Array): Dummies {
  const { rows, subjects, isReply, references } = input;
  const { roots, firstOf } = rootsOf(input, parents);
  const subjectOf = (root: number) => subjects[root < rows ? root : firstOf.get(root)!]!;
  const isReplyOf = (root: number) => root < rows && isReply[root] === 1;
  const table = new Map<number, number>();
  for (const root of roots) {
    const subject = subjectOf(root);
    if (subject === 0) continue;
    const known = table.get(subject);
    const replaces = known === undefined || (known < rows && (root >= rows || (isReplyOf(known) && !isReplyOf(root))));
    if (replaces) table.set(subject, root);
  }
  const dummies: Dummies = new Map();
  let nextDummy = rows + references.length;
  for (const root of roots) {
    const subject = subjectOf(root);
    const known = table.get(subject);
    if (subject === 0 || known === undefined || known === root) continue;
    if (known >= rows && root >= rows) dummies.set(root, known);
    else if (known >= rows) parents[root] = known;
    else if (isReplyOf(root) && !isReplyOf(known)) parents[root] = known;
    else {
      const dummy = nextDummy++;
      parents[root] = parents[known] = dummy;
      table.set(subject, dummy);
    }
  }
  return dummies;
}

/** Step 6: siblings in the order of their dates; with `refs` roots by the latest arrival in their threads. */
function forestOf(input: ThreadInput, parents: Int32Array, dummies: Dummies | undefined, refs: boolean): ThreadForest {
  const { rows, bySent, references, arrived } = input;
  if (dummies && dummies.size > 0)
    for (let row = 0; row < rows; row++) if (parents[row]! >= rows) parents[row] = resolved(dummies, parents[row]!);
  const nodes = rows + references.length + rows;
  const firstChild = new Int32Array(nodes).fill(-1);
  const nextSibling = new Int32Array(nodes).fill(-1);
  for (let i = bySent.length - 1; i >= 0; i--) {
    const row = bySent[i]!;
    const parent = parents[row]!;
    if (parent === -1) continue;
    nextSibling[row] = firstChild[parent]!;
    firstChild[parent] = row;
  }
  const { roots } = rootsOf(input, parents);
  if (refs) sortByLatest(roots, { rows, parents, arrived });
  return { roots, firstChild, nextSibling };
}

function sortByLatest(
  roots: number[],
  { rows, parents, arrived }: { rows: number; parents: Int32Array; arrived: Float64Array },
): void {
  const rootOf = new Int32Array(rows).fill(-1);
  const latest = new Map<number, number>();
  const path: number[] = [];
  for (let row = 0; row < rows; row++) {
    let node = row;
    while (node < rows && rootOf[node] === -1 && parents[node] !== -1) {
      path.push(node);
      node = parents[node]!;
    }
    const root = node < rows && rootOf[node] !== -1 ? rootOf[node]! : node;
    for (const one of path) rootOf[one] = root;
    path.length = 0;
    latest.set(root, Math.max(latest.get(root) ?? 0, arrived[row]!));
  }
  const place = new Map(roots.map((root, i) => [root, i]));
  roots.sort((a, b) => latest.get(a)! - latest.get(b)! || place.get(a)! - place.get(b)!);
}

/** Text that is handed out at one time. */
const pieceChars = 16_384;

/** ` (2)(3 6 (4 23)(44 7 96))` in pieces, with what `numbers` has for each row. RFC 5256 section 4. */
export function* threadText(forest: ThreadForest, numbers: Uint32Array): Generator<string> {
  const { roots, firstChild, nextSibling } = forest;
  let text = roots.length > 0 ? ' ' : '';
  /** Siblings that are still to come, of each level that is open. */
  const open: number[] = [];
  for (const root of roots) {
    let node = root;
    text += '(';
    for (;;) {
      const isMessage = node < numbers.length;
      if (isMessage) text += numbers[node];
      const child = firstChild[node]!;
      if (child !== -1) {
        if (isMessage) text += ' ';
        if (nextSibling[child] !== -1) {
          open.push(nextSibling[child]!);
          text += '(';
        }
        node = child;
        continue;
      }
      text += ')';
      while (open.length > 0 && open.at(-1) === -1) {
        open.pop();
        text += ')';
      }
      if (text.length >= pieceChars) {
        yield text;
        text = '';
      }
      if (open.length === 0) break;
      node = open.pop()!;
      open.push(nextSibling[node]!);
      text += '(';
    }
  }
  if (text !== '') yield text;
}
