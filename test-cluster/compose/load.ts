/** Mail that goes on while things happen: rounds of the exact sender, one ledger over all, and how long nothing was acknowledged. */
import { type Ledger, sendUntilAcknowledged } from '../harness/smtp-load.js';

const messagesPerRound = 150;
const pauseMs = 250;

export class SteadyLoad {
  readonly ledger: Ledger = { acknowledged: new Set(), uncertain: new Set() };
  readonly #port: number;
  readonly #recipients: readonly string[];
  #isEnding = false;
  #ended: Promise<void> | undefined;
  #lastAckMs = performance.now();
  #longestGapMs = 0;

  constructor(port: number, recipients: readonly string[]) {
    this.#port = port;
    this.#recipients = recipients;
  }

  start(): void {
    this.#lastAckMs = performance.now();
    this.#ended = this.#run();
    // Told by `stop`.
    this.#ended.catch(() => undefined);
  }

  async #run(): Promise<void> {
    for (let round = 0; !this.#isEnding; round++) {
      const { acknowledged, uncertain } = await sendUntilAcknowledged({
        port: this.#port,
        recipients: this.#recipients,
        count: messagesPerRound,
        connections: 6,
        tokenPrefix: `r${round}`,
        onAcknowledged: () => this.#note(),
      });
      for (const copy of acknowledged) this.ledger.acknowledged.add(copy);
      for (const copy of uncertain) this.ledger.uncertain.add(copy);
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
    }
  }

  #note(): void {
    const nowMs = performance.now();
    this.#longestGapMs = Math.max(this.#longestGapMs, nowMs - this.#lastAckMs);
    this.#lastAckMs = nowMs;
  }

  /** The longest time without any acknowledgement since this was asked last; the sender's own pauses are 0.25 s. */
  takeLongestGapMs(): number {
    const gapMs = Math.max(this.#longestGapMs, performance.now() - this.#lastAckMs);
    this.#longestGapMs = 0;
    return Math.round(gapMs);
  }

  /** Ends after the round that is under way. Throws what the sender threw. */
  async stop(): Promise<Ledger> {
    this.#isEnding = true;
    await this.#ended;
    return this.ledger;
  }
}
