/** Storage ids that have chunks, and which of them something knows: those known are let go of, so that only strays are left. */
export class StorageIdSet {
  readonly #ids = new Set<string>();

  add(id: Buffer): void {
    this.#ids.add(id.toString('latin1'));
  }

  /** Something knows this id; harmless for one that was not added. */
  mark(id: Buffer): void {
    this.#ids.delete(id.toString('latin1'));
  }

  /** Something may know any of these ids: from now on none counts as unmarked. */
  markAll(): void {
    this.#ids.clear();
  }

  unmarked(): Buffer[] {
    return [...this.#ids].map((id) => Buffer.from(id, 'latin1'));
  }
}
