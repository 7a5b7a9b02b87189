/** The lines of a SASL exchange where challenge and response have a line each: AUTHENTICATE of IMAP (RFC 9051 6.2.2), AUTH of POP3 (RFC 5034 section 4). */
import type { Clock } from '../../ops/telemetry/index.js';
import { decodeBase64, maxSaslMessageBytes, type SaslExchange, type SaslStep } from '../sasl/index.js';
import type { Input } from './input.js';
import { ConnectionClosed, type Output } from './output.js';

/** As much of a session as an exchange goes on in. */
export interface SaslDialog {
  readonly input: Input;
  readonly output: Output;
  readonly isDraining: boolean;
  readonly services: { clock: Clock; limits: { loginTimeoutMs: number } };
}

/** How it ended: with the result of the exchange, or with a sentence for the client whose mistake it is. */
export type SaslOutcome = Exclude<SaslStep, { kind: 'challenge' }>;

/** `initial`: the initial response in base64, `=` for one of no bytes; undefined for none. Throws ConnectionClosed. */
export async function converseSasl(
  dialog: SaslDialog,
  exchange: SaslExchange,
  initial: string | undefined,
): Promise<SaslOutcome> {
  let message = initial === '=' ? '' : initial;
  for (;;) {
    const bytes = message === undefined ? undefined : decodeBase64(message);
    if (message !== undefined && bytes === undefined) return { kind: 'malformed', text: 'Bad base64' };
    const step = await exchange.step(bytes);
    if (step.kind !== 'challenge') return step;
    dialog.output.write(`+ ${step.bytes.toString('base64')}\r\n`);
    message = await nextSaslLine(dialog);
    // A client cancels with a single "*".
    if (message === '*') return { kind: 'malformed', text: 'Authentication cancelled' };
  }
}

async function nextSaslLine(dialog: SaslDialog): Promise<string> {
  const { input, output, services } = dialog;
  const deadlineMs = services.clock.monotonicMs() + services.limits.loginTimeoutMs;
  for (;;) {
    const event = input.reader.nextLine();
    if (event?.kind === 'line' && event.text.length <= maxSaslMessageBytes * 2) return event.text;
    if (event) throw new ConnectionClosed();
    output.flush();
    const result = await input.wait(Math.max(0, deadlineMs - services.clock.monotonicMs()));
    if (result === 'ended' || result === 'timeout' || dialog.isDraining) throw new ConnectionClosed();
  }
}
