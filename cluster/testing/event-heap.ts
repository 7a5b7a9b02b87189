/** What is to happen, the next first; of two at the same moment the one that was put in first. A binary heap. */
export interface HeapEvent {
  atMs: number;
  order: number;
}

const isBefore = (one: HeapEvent, other: HeapEvent): boolean =>
  one.atMs < other.atMs || (one.atMs === other.atMs && one.order < other.order);

export class EventHeap<T extends HeapEvent> {
  #heap: T[] = [];

  get size(): number {
    return this.#heap.length;
  }

  first(): T | undefined {
    return this.#heap[0];
  }

  push(event: T): void {
    const heap = this.#heap;
    let at = heap.length;
    heap.push(event);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!isBefore(event, heap[parent]!)) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = event;
  }

  pop(): T | undefined {
    const heap = this.#heap;
    const first = heap[0];
    const last = heap.pop();
    if (!last || heap.length === 0) return first;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child++;
      if (!isBefore(heap[child]!, last)) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = last;
    return first;
  }

  /** Forgets all others. */
  keep(isWanted: (event: T) => boolean): void {
    // Sorted is a heap.
    this.#heap = this.#heap.filter(isWanted).sort((a, b) => (isBefore(a, b) ? -1 : 1));
  }
}
