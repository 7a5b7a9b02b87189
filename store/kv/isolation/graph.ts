/** Directed graphs over small integers: strongly connected components and shortest circles. No recursion, so that size is no matter. */

/** Edge kinds are bits, so that a search can be told which ones to follow. */
export interface Edge {
  readonly to: number;
  readonly kind: number;
}

export class Graph {
  readonly #edges: Edge[][] = [];

  get size(): number {
    return this.#edges.length;
  }

  /** A new node; its number. */
  addNode(): number {
    return this.#edges.push([]) - 1;
  }

  /** Edges of several kinds may join the same nodes; edges from a node to itself are left out. */
  addEdge(from: number, to: number, kind: number): void {
    if (from === to) return;
    const edges = this.#edges[from]!;
    if (!edges.some((edge) => edge.to === to && edge.kind === kind)) edges.push({ to, kind });
  }

  edgesOf(node: number): readonly Edge[] {
    return this.#edges[node]!;
  }

  /** Components of more than one node that edges of the kinds `mask` make (Tarjan 1972, with a stack of its own). */
  components(mask: number): number[][] {
    const order = new Int32Array(this.size).fill(-1);
    const low = new Int32Array(this.size);
    const onStack = new Uint8Array(this.size);
    const stack: number[] = [];
    const found: number[][] = [];
    let next = 0;
    const enter = (node: number, path: { node: number; at: number }[]) => {
      order[node] = low[node] = next++;
      stack.push(node);
      onStack[node] = 1;
      path.push({ node, at: 0 });
    };
    for (let root = 0; root < this.size; root++) {
      if (order[root] !== -1) continue;
      const path: { node: number; at: number }[] = [];
      enter(root, path);
      while (path.length > 0) {
        const top = path.at(-1)!;
        const edge = this.#edges[top.node]![top.at++];
        if (edge === undefined) {
          path.pop();
          const parent = path.at(-1)?.node;
          if (parent !== undefined) low[parent] = Math.min(low[parent]!, low[top.node]!);
          if (low[top.node] === order[top.node]) {
            const component = popUntil(stack, onStack, top.node);
            if (component.length > 1) found.push(component);
          }
        } else if ((edge.kind & mask) !== 0) {
          if (order[edge.to] === -1) enter(edge.to, path);
          else if (onStack[edge.to]) low[top.node] = Math.min(low[top.node]!, order[edge.to]!);
        }
      }
    }
    return found;
  }

  /**
   * The shortest way from `from` to `to` along edges of the kinds `mask`, inside `within`: its nodes, both ends included, and the kinds of
   * its edges. Nodes from `freeFrom` on cost nothing to pass. `undefined` when there is none.
   */
  path(from: number, to: number, mask: number, within: ReadonlySet<number>, freeFrom = Infinity): Path | undefined {
    const cost = new Map<number, number>([[from, 0]]);
    const cameBy = new Map<number, { node: number; kind: number }>();
    let ring = [from];
    // Dijkstra with costs of 0 and 1: one ring after the other.
    for (let distance = 0; ring.length > 0; distance++) {
      const nextRing: number[] = [];
      for (let at = 0; at < ring.length; at++) {
        const node = ring[at]!;
        if (cost.get(node)! < distance) continue;
        if (node === to && cameBy.has(node)) return walkBack(from, to, cameBy);
        for (const edge of this.#edges[node]!) {
          if ((edge.kind & mask) === 0 || !within.has(edge.to)) continue;
          const through = distance + (edge.to >= freeFrom ? 0 : 1);
          if ((cost.get(edge.to) ?? Infinity) <= through) continue;
          cost.set(edge.to, through);
          cameBy.set(edge.to, { node, kind: edge.kind });
          (through === distance ? ring : nextRing).push(edge.to);
        }
      }
      ring = nextRing;
    }
    return undefined;
  }
}

export interface Path {
  readonly nodes: readonly number[];
  /** `kinds[i]` joins `nodes[i]` and `nodes[i + 1]`. */
  readonly kinds: readonly number[];
}

function popUntil(stack: number[], onStack: Uint8Array, last: number): number[] {
  const component: number[] = [];
  for (;;) {
    const node = stack.pop()!;
    onStack[node] = 0;
    component.push(node);
    if (node === last) return component;
  }
}

function walkBack(from: number, to: number, cameBy: ReadonlyMap<number, { node: number; kind: number }>): Path {
  const nodes = [to];
  const kinds: number[] = [];
  for (let node = to; node !== from; ) {
    const step = cameBy.get(node)!;
    nodes.push(step.node);
    kinds.push(step.kind);
    node = step.node;
  }
  return { nodes: nodes.reverse(), kinds: kinds.reverse() };
}
