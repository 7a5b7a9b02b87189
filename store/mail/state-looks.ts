/** Looks at the states of accounts that may have changed: many in one read, one read at a time, and again after a pause when the store does not answer. */
import { counter } from '../../ops/telemetry/index.js';
import type { MailContext } from './context.js';
import type { AccountId } from './contract.js';

const looks = counter(
  'starling_mail_state_looks_total',
  'Account states read because of hints from other nodes, or after some were missed',
);
const accountsPerRead = 250;
const firstPauseMs = 250;
const longestPauseMs = 30_000;

export class StateLooks {
  private readonly wanted = new Set<AccountId>();
  private readonly closing = new AbortController();
  private isRunning = false;

  /** `see` gets the stored state, undefined when there is none. */
  constructor(
    private readonly context: Pick<MailContext, 'kv' | 'clock' | 'random' | 'logger' | 'keysOf'>,
    private readonly see: (accountId: AccountId, state: Buffer | undefined) => void,
  ) {}

  /** Each of them is read by a read that begins after this call. */
  want(accountIds: Iterable<AccountId>): void {
    for (const accountId of accountIds) this.wanted.add(accountId);
    if (!this.isRunning) void this.run();
  }

  forget(accountId: AccountId): void {
    this.wanted.delete(accountId);
  }

  close(): void {
    this.closing.abort();
    this.wanted.clear();
  }

  private async run(): Promise<void> {
    const { signal } = this.closing;
    let pauseMs = 0;
    this.isRunning = true;
    while (this.wanted.size > 0 && !signal.aborted) {
      const accountIds = this.takeSome();
      try {
        const states = await this.read(accountIds);
        if (signal.aborted) break;
        for (const [i, accountId] of accountIds.entries()) this.see(accountId, states[i]);
        pauseMs = 0;
      } catch (error) {
        if (signal.aborted) break;
        for (const accountId of accountIds) this.wanted.add(accountId);
        pauseMs = Math.min(longestPauseMs, Math.max(firstPauseMs, pauseMs * 2));
        this.context.logger.debug({ err: error, pauseMs }, 'looking at account states failed');
        await this.context.clock.sleep(pauseMs * (0.5 + this.context.random.float() / 2), signal).catch(() => undefined);
      }
    }
    this.isRunning = false;
  }

  private takeSome(): AccountId[] {
    const some: AccountId[] = [];
    for (const accountId of this.wanted) {
      this.wanted.delete(accountId);
      if (some.push(accountId) === accountsPerRead) break;
    }
    return some;
  }

  private read(accountIds: readonly AccountId[]): Promise<(Buffer | undefined)[]> {
    looks.inc(accountIds.length);
    const keys = accountIds.map((accountId) => this.context.keysOf(accountId).state);
    return this.context.kv.read((reads) => reads.getMany(keys), { label: 'mail-look', signal: this.closing.signal });
  }
}
