/** A waiting line in which senders take turns: whoever has put in a hundred thousand waits behind each newcomer's first, not the other way about. */
import { Fifo } from './fifo.js';

export class FairLine<T> {
  readonly #bySender = new Map<number, Fifo<T>>();
  /** Each sender that has something here, once. */
  readonly #turns = new Fifo<number>();
  #size = 0;

  get size(): number {
    return this.#size;
  }

  push(sender: number, item: T): void {
    let own = this.#bySender.get(sender);
    if (!own) {
      this.#bySender.set(sender, (own = new Fifo()));
      this.#turns.push(sender);
    }
    own.push(item);
    this.#size++;
  }

  /** What `shift` would take. */
  peek(): T | undefined {
    const sender = this.#turns.peek();
    return sender === undefined ? undefined : this.#bySender.get(sender)!.peek();
  }

  shift(): T | undefined {
    const sender = this.#turns.shift();
    if (sender === undefined) return undefined;
    const own = this.#bySender.get(sender)!;
    const item = own.shift();
    this.#size--;
    if (own.size > 0) this.#turns.push(sender);
    else this.#bySender.delete(sender);
    return item;
  }

  /** Takes out all that are meant; the others keep their order. */
  take(isMeant: (item: T) => boolean): T[] {
    const taken: T[] = [];
    const kept: [number, T][] = [];
    for (let sender = this.#turns.shift(); sender !== undefined; sender = this.#turns.shift()) {
      for (const item of this.#bySender.get(sender)!.clear()) {
        if (isMeant(item)) taken.push(item);
        else kept.push([sender, item]);
      }
    }
    this.#bySender.clear();
    this.#size = 0;
    for (const [sender, item] of kept) this.push(sender, item);
    return taken;
  }
}
