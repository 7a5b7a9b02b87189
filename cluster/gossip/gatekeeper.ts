/**
 * Who gets as far as a connection: those who know the cluster's key, unless they were cut off a moment ago. Tells of the others, with their address.
 */
import type { Clock } from '../../ops/telemetry/index.js';
import { parseMultiaddr } from './addresses.js';
import type { ConnectionGater, ConnectionProtector, RawConnection } from './libp2p-types.js';
import { connectionsRefused } from './metrics.js';
import type { RareWarnings } from './rarely.js';

const maxPenalties = 4_096;
/** Connections from one address that have not proven anything yet: far fewer than are allowed from all, so that one scanner can't keep the members out. */
const maxPendingPerAddress = 24;
/** Longer than libp2p lets a handshake take. */
const maxPendingMs = 10_000;

/** How far a connection has come. */
interface Attempt {
  hasSpoken: boolean;
  isSecured: boolean;
  /** When it began (monotonic). */
  sinceMs: number;
  /** Where it counts as pending; undefined once it does not any more. */
  pendingAt: string | undefined;
}

export class Gatekeeper {
  readonly #attempts = new WeakMap<object, Attempt>();
  /** Peer ids, and until when nothing is made of them. */
  readonly #penalties = new Map<string, number>();
  /** Inbound connections that have not proven anything yet, by address. */
  readonly #pending = new Map<string, Set<Attempt>>();

  /** A dial has come as far as an open TCP connection with this address. */
  onReached: ((remote: string) => void) | undefined;

  constructor(
    private readonly clock: Clock,
    private readonly warnings: RareWarnings,
  ) {}

  /** Until then no connection with this peer is opened or accepted. */
  refuseFor(peerId: string, durationMs: number): void {
    if (this.#penalties.size >= maxPenalties) this.#penalties.clear();
    this.#penalties.set(peerId, this.clock.monotonicMs() + durationMs);
  }

  pardon(peerId: string): void {
    this.#penalties.delete(peerId);
  }

  isRefused(peerId: string): boolean {
    const untilMs = this.#penalties.get(peerId);
    if (untilMs === undefined) return false;
    if (this.clock.monotonicMs() < untilMs) return true;
    this.#penalties.delete(peerId);
    return false;
  }

  /** For libp2p: the second and third are asked once the peer has proven who it is. */
  readonly gater: ConnectionGater = {
    denyDialMultiaddr: () => false,
    denyInboundConnection: (raw) => this.#isCrowded(hostOf(raw)),
    denyInboundEncryptedConnection: (peerId, raw) => this.#secured(peerId.toString(), raw),
    denyOutboundEncryptedConnection: (peerId, raw) => this.#secured(peerId.toString(), raw),
  };

  /** Puts the key's check in front of everything, and watches what becomes of those that have to pass it. */
  guard(protector: ConnectionProtector): ConnectionProtector {
    return {
      protect: async (raw: RawConnection, options) => {
        const attempt: Attempt = { hasSpoken: false, isSecured: false, sinceMs: this.clock.monotonicMs(), pendingAt: undefined };
        if (raw.direction === 'inbound' && raw.status === 'open') this.#count(attempt, hostOf(raw));
        this.#attempts.set(raw, attempt);
        raw.addEventListener('close', () => this.#closed(raw, attempt), { once: true });
        if (raw.direction === 'outbound') this.onReached?.(raw.remoteAddr.toString());
        const guarded = await protector.protect(raw, options);
        attempt.hasSpoken = true;
        return guarded;
      },
    } as ConnectionProtector;
  }

  #secured(peerId: string, raw: object): boolean {
    const attempt = this.#attempts.get(raw);
    if (attempt) {
      attempt.isSecured = true;
      this.#settled(attempt);
    }
    if (!this.isRefused(peerId)) return false;
    connectionsRefused.inc({ reason: 'penalty' });
    return true;
  }

  #isCrowded(host: string): boolean {
    const pending = this.#pending.get(host);
    if (!pending || pending.size < maxPendingPerAddress) return false;
    // Whoever has been forgotten here must not count for ever.
    const nowMs = this.clock.monotonicMs();
    for (const attempt of pending) if (nowMs - attempt.sinceMs > maxPendingMs) pending.delete(attempt);
    if (pending.size < maxPendingPerAddress) return false;
    connectionsRefused.inc({ reason: 'crowded' });
    return true;
  }

  #count(attempt: Attempt, host: string): void {
    attempt.pendingAt = host;
    const pending = this.#pending.get(host);
    if (pending) pending.add(attempt);
    else this.#pending.set(host, new Set([attempt]));
  }

  #settled(attempt: Attempt): void {
    const { pendingAt } = attempt;
    const pending = pendingAt === undefined ? undefined : this.#pending.get(pendingAt);
    attempt.pendingAt = undefined;
    pending?.delete(attempt);
    if (pending?.size === 0) this.#pending.delete(pendingAt!);
  }

  #closed(raw: RawConnection, attempt: Attempt): void {
    this.#settled(attempt);
    if (attempt.isSecured) return;
    connectionsRefused.inc({ reason: attempt.hasSpoken ? 'key' : 'handshake' });
    // Whoever said nothing is a port scanner, or a peer that is paused.
    if (!attempt.hasSpoken) return;
    this.warnings.warn(
      raw.direction === 'inbound'
        ? "refused a gossip connection from somebody who does not know this cluster's key"
        : "an address for gossip is answered by somebody who does not know this cluster's key",
      { remote: raw.remoteAddr.toString() },
    );
  }
}

function hostOf(raw: RawConnection): string {
  const text = raw.remoteAddr.toString();
  return parseMultiaddr(text)?.host ?? text;
}
