/** What a node that knows it can do nothing now says to a new connection, before it hangs up. */
import { systemClock } from '../ops/telemetry/index.js';
import type { ListenerConnection } from './listeners/index.js';

/** How long a peer may take to read it. */
const lingerMs = 2_000;

/** With CRLF. RFC 5321 3.8 and 4.2.1, RFC 9051 7.1.5. */
export function unavailableLine(protocol: 'smtp' | 'submission' | 'lmtp' | 'imap', hostname: string): string {
  if (protocol === 'imap') return '* BYE [UNAVAILABLE] The server can not serve you now, please try again later\r\n';
  return `421 4.3.2 ${hostname} Service not available, please try again later\r\n`;
}

/** Says one line and hangs up, when the peer has taken it or its time is over. */
export function turnAway({ socket }: Pick<ListenerConnection, 'socket'>, line: string): void {
  socket.on('error', () => socket.destroy());
  socket.resume();
  socket.end(line);
  const timer = systemClock.setTimer(lingerMs, () => socket.destroy(), { background: true });
  socket.once('end', () => socket.destroySoon());
  socket.once('close', () => timer.cancel());
}
