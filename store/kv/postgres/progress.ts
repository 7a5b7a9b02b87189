/** How far this node has seen the store get: shared by its readers, its committer and its watches. */
export class Progress {
  #seen = 0;
  /** The highest version that any answer has shown. */
  get seen(): number {
    return this.#seen;
  }
  note(version: number): void {
    if (version > this.#seen) this.#seen = version;
  }
}
