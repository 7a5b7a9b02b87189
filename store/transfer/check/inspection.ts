/**
 * What all parts of a check share. Whatever looks wrong is only a suspect: it is looked at again in one transaction, which also mends it where that is wanted
 * and safe, so that a check beside working nodes raises no false alarm and a mend never meets a state that it was not meant for.
 */
import type { Clock, Logger } from '../../../ops/telemetry/index.js';
import type { BlobStore } from '../../blobs/contract.js';
import type { KeyRange } from '../../keyspace.js';
import { type KeyValue, type KvReads, type KvStore, type KvTransaction, keyAfter } from '../../kv/contract.js';
import { TransferInterrupted } from '../contract.js';
import type { CheckArea, CheckProgress, CheckResult, Finding } from './contract.js';

const maxFindings = 1_000;
const maxNotes = 100;

export interface CheckOptions {
  kv: KvStore;
  blobs: Pick<BlobStore, 'link' | 'stream' | 'storages'>;
  clock: Clock;
  logger: Logger;
  /** Reads all bytes of all blobs and compares their SHA-256, and looks for chunks that belong to nothing. */
  deep?: boolean;
  /** Mends what may be mended safely; never removes mail. */
  repair?: boolean;
  onProgress?: (progress: CheckProgress) => void;
  signal?: AbortSignal;
}

export interface Suspect {
  area: CheckArea;
  where: string;
  problem: string;
  /** Whether it is (still) so. */
  isSo(tx: KvTransaction): Promise<boolean>;
  /** Puts it right, in the transaction that has just seen it. Absent where that could lose something or can't be known. */
  mend?(tx: KvTransaction): Promise<void> | void;
}

export class Inspection {
  readonly result: CheckResult = {
    accounts: 0,
    messages: 0,
    blobs: 0,
    queued: 0,
    differences: 0,
    mended: 0,
    findings: [],
    notes: [],
  };
  #items = 0;
  #area: CheckArea | undefined;

  constructor(readonly options: CheckOptions) {}

  get kv(): KvStore {
    return this.options.kv;
  }

  /** Looks again, mends where wanted, and notes what it was. */
  async suspect(suspect: Suspect): Promise<void> {
    const { repair, logger } = this.options;
    let isOwnMend = false;
    const outcome = await this.kv.transact(
      async (tx) => {
        // Gone because an earlier run of this body has mended it, unheard.
        if (!(await suspect.isSo(tx))) return tx.mayHaveCommitted && isOwnMend ? 'mended' : 'gone';
        if (!suspect.mend) return 'standing';
        if (!repair) return 'mendable';
        await suspect.mend(tx);
        isOwnMend = true;
        return 'mended';
      },
      { label: 'store-check' },
    );
    if (outcome === 'gone') return;
    const { area, where, problem } = suspect;
    this.found({ area, where, problem, state: outcome });
    if (outcome === 'mended') logger.warn({ area, where, problem }, 'store check: mended');
  }

  found(finding: Finding): void {
    if (finding.state === 'mended') this.result.mended++;
    else this.result.differences++;
    if (this.result.findings.length < maxFindings) this.result.findings.push(finding);
  }

  /** What `decode` gives; undefined, and a finding, where it can't be read. */
  readable<T>(area: CheckArea, where: string, decode: () => T): T | undefined {
    try {
      return decode();
    } catch (error) {
      const problem = `its record can not be read: ${error instanceof Error ? error.message : String(error)}`;
      this.found({ area, where, problem, state: 'standing' });
      return undefined;
    }
  }

  note(text: string): void {
    if (this.result.notes.length < maxNotes) this.result.notes.push(text);
  }

  /** A range page by page, each page a short read of its own. */
  async *pages(range: KeyRange, limit: number): AsyncGenerator<KeyValue[], void, undefined> {
    for (let begin = range.begin; ; ) {
      const from = begin;
      const rows = await this.read((reads) => reads.getRange(from, range.end, { limit }));
      if (rows.length > 0) yield rows;
      if (rows.length < limit) return;
      begin = keyAfter(rows.at(-1)!.key);
    }
  }

  read<T>(body: (reads: KvReads) => Promise<T>): Promise<T> {
    return this.kv.read(body, { label: 'store-check' });
  }

  /** To be called after each page; throws when the check is to stop. */
  progress(area: CheckArea, items: number): void {
    if (this.options.signal?.aborted) throw new TransferInterrupted('the check was interrupted; nothing is lost, begin it again');
    if (area !== this.#area) this.#items = 0;
    this.#area = area;
    this.#items += items;
    this.options.onProgress?.({ area, items: this.#items });
  }
}
