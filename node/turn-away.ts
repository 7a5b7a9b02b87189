/** What a node that knows it can do nothing now says: to a new connection, before it hangs up, and to those who have a mailbox open. */
import type { Membership } from '../cluster/membership/contract.js';
import { type Clock, type Logger, systemClock } from '../ops/telemetry/index.js';
import type { ListenerConnection } from './listeners/index.js';
import type { OpenSessions } from './sessions.js';

/** How long a peer may take to read it. */
const lingerMs = 2_000;

/** What commands that run in vain have to come to an end by themselves. */
const turnAwayMs = 15_000;

/** With CRLF. RFC 5321 3.8 and 4.2.1, RFC 9051 7.1.5, RFC 3206. */
export function unavailableLine(protocol: 'smtp' | 'submission' | 'lmtp' | 'imap' | 'pop3', hostname: string): string {
  if (protocol === 'imap') return '* BYE [UNAVAILABLE] The server can not serve you now, please try again later\r\n';
  if (protocol === 'pop3') return '-ERR [SYS/TEMP] The server can not serve you now, please try again later\r\n';
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

export interface StorelessDependencies {
  membership: Pick<Membership, 'standing' | 'onStanding'>;
  sessions: Pick<OpenSessions, 'size' | 'turnAway' | 'cutTurnedAway'>;
  clock: Clock;
  logger: Logger;
}

/**
 * From now on, when this node has judged itself store-less, IMAP and POP3 clients are told to look for another node: an idle one would wait for news in vain.
 * Nothing happens while heartbeats are only late, and nothing more once they come through. Answers the way to stop it.
 */
export function turnAwayWhileStoreless({ membership, sessions, clock, logger }: StorelessDependencies): () => void {
  const isStill = () => membership.standing === 'storeless';
  return membership.onStanding((standing) => {
    if (standing !== 'storeless' || sessions.size === 0) return;
    logger.warn({ sessions: sessions.size }, 'sessions are turned away: the store can not be reached');
    void sessions.turnAway(isStill);
    clock.setTimer(turnAwayMs, () => isStill() && sessions.cutTurnedAway(), { background: true });
  });
}
