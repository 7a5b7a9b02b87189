/** What a change of flags did: gathered without an object per entry, and told as entries to whoever asks. */
import type { FlagResult, FlagState, MailboxEntry } from './contract.js';
import { decodeKeywords } from './keywords.js';
import { decodeEntry } from './records.js';

export class FlagOutcome implements FlagResult {
  readonly uids: number[] = [];
  readonly states: FlagState[] = [];
  readonly modified: number[] = [];
  /** A row is decoded when somebody asks. */
  private readonly sources: (Buffer | MailboxEntry)[] = [];
  /** By keyword bits and \Deleted, of one modseq at a time. */
  private readonly statesByFlags = new Map<number, FlagState>();
  private statesModseq = -1;

  get entries(): MailboxEntry[] {
    return this.sources.map((source, at) => (Buffer.isBuffer(source) ? decodeEntry(this.uids[at]!, source) : source));
  }

  add(uid: number, source: Buffer | MailboxEntry, state: FlagState): void {
    this.uids.push(uid);
    this.sources.push(source);
    this.states.push(state);
  }

  append(later: FlagOutcome): void {
    for (const uid of later.uids) this.uids.push(uid);
    for (const source of later.sources) this.sources.push(source);
    for (const state of later.states) this.states.push(state);
    for (const uid of later.modified) this.modified.push(uid);
  }

  stateOf(bits: number, isDeleted: boolean, modseq: number): FlagState {
    if (modseq !== this.statesModseq) {
      this.statesByFlags.clear();
      this.statesModseq = modseq;
    }
    const flags = bits * 2 + (isDeleted ? 1 : 0);
    let state = this.statesByFlags.get(flags);
    if (!state) {
      state = { keywords: decodeKeywords(bits, 0), isDeleted, modseq };
      this.statesByFlags.set(flags, state);
    }
    return state;
  }
}
