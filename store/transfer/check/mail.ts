/** Checks the mail of all accounts, one after another, each at one version of the store. */
import { KvError } from '../../kv/contract.js';
import { TransferInterrupted } from '../contract.js';
import { openReader, type RowReader } from '../rows.js';
import { AccountCheck, AccountMoved } from './account.js';
import { mailAccounts } from './directory.js';
import type { Inspection } from './inspection.js';

/** A view costs the engine something as long as it is open; opening one for every account costs something, too. */
const viewLifetimeMs = 20_000;
/** Of an account that changes while it is counted (no view), or before its counts could be mended. */
const maxRuns = 8;

export async function checkMail(inspection: Inspection): Promise<void> {
  const views = new ViewLease(inspection);
  try {
    for await (const accountId of mailAccounts(inspection)) {
      await checkAccount(inspection, views, accountId);
      inspection.progress('mail', 1);
    }
  } finally {
    await views.close();
  }
}

async function checkAccount(inspection: Inspection, views: ViewLease, accountId: string): Promise<void> {
  for (let run = 1; ; run++) {
    const before = { ...inspection.result, findings: [...inspection.result.findings] };
    try {
      const messages = await new AccountCheck(inspection, await views.reader(), accountId).run();
      if (messages !== undefined) inspection.result.accounts++;
      inspection.result.messages += messages ?? 0;
      return;
    } catch (error) {
      if (isNotOfItsRecords(error)) throw error;
      if (!(error instanceof AccountMoved)) {
        // A record that can't be read must not keep the other accounts from being looked at.
        const problem = `a record can not be read: ${error instanceof Error ? error.message : String(error)}`;
        return inspection.found({ area: 'mail', where: accountId, problem, state: 'standing' });
      }
      // What was mended so far stays mended and counted; what only stood is found again.
      const mended = inspection.result.findings.filter(({ state }) => state === 'mended').slice(before.mended);
      Object.assign(inspection.result, before, { mended: inspection.result.mended, findings: [...before.findings, ...mended] });
      await views.renew();
      if (run === maxRuns) return inspection.note(`account ${accountId} keeps changing; it was not counted to the end`);
    }
  }
}

const isNotOfItsRecords = (error: unknown) => error instanceof KvError || error instanceof TransferInterrupted;

/** Opens views and opens them again when they are old. */
class ViewLease {
  readonly #inspection: Inspection;
  #reader: RowReader | undefined;
  #openedAtMs = 0;

  constructor(inspection: Inspection) {
    this.#inspection = inspection;
  }

  async reader(): Promise<RowReader> {
    const { clock } = this.#inspection.options;
    if (this.#reader && clock.monotonicMs() - this.#openedAtMs > viewLifetimeMs) await this.close();
    if (!this.#reader) {
      this.#reader = await openReader(this.#inspection.kv);
      this.#openedAtMs = clock.monotonicMs();
    }
    return this.#reader;
  }

  async renew(): Promise<void> {
    await this.close();
  }

  async close(): Promise<void> {
    const reader = this.#reader;
    this.#reader = undefined;
    await reader?.close();
  }
}
