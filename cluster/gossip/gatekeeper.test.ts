import { describe, expect, it } from 'vitest';
import { silentLogger } from '../../ops/telemetry/index.js';
import { VirtualTime } from '../testing/virtual-time.js';
import { Gatekeeper } from './gatekeeper.js';
import type { ConnectionProtector, RawConnection } from './libp2p-types.js';
import { RareWarnings } from './rarely.js';

/** A gatekeeper, and what connects to it without ever saying a word. */
function gate() {
  const time = new VirtualTime();
  const clock = time.clock();
  const gatekeeper = new Gatekeeper(clock, new RareWarnings(clock, silentLogger));
  const never = { protect: () => new Promise(() => undefined) } as unknown as ConnectionProtector;
  const protector = gatekeeper.guard(never);
  const from = (ip: string) =>
    Object.assign(new EventTarget(), {
      direction: 'inbound',
      status: 'open',
      remoteAddr: `/ip4/${ip}/tcp/4711`,
    }) as unknown as RawConnection & EventTarget;
  const isDenied = (raw: RawConnection) => gatekeeper.gater.denyInboundConnection!(raw) as boolean;
  /** False when it is turned away. */
  const call = (raw: RawConnection): boolean => {
    if (isDenied(raw)) return false;
    void protector.protect(raw, {});
    return true;
  };
  return { time, gatekeeper, from, call, isDenied };
}

describe('connections that prove nothing', () => {
  it('are few from one address, so that others get in, and count no more when they are closed', () => {
    const { call, from, isDenied } = gate();
    const taken = Array.from({ length: 100 }, () => from('10.0.0.1')).filter(call);
    expect(taken).toHaveLength(24);
    expect(isDenied(from('10.0.0.2'))).toBe(false);
    taken[0]!.dispatchEvent(new Event('close'));
    expect(call(from('10.0.0.1'))).toBe(true);
    expect(call(from('10.0.0.1'))).toBe(false);
  });

  it('count no more when they have proven who they are, nor when their end was never told', async () => {
    const { call, from, gatekeeper, isDenied, time } = gate();
    const taken = Array.from({ length: 24 }, () => from('10.0.0.1'));
    for (const raw of taken) expect(call(raw)).toBe(true);
    expect(isDenied(from('10.0.0.1'))).toBe(true);
    void gatekeeper.gater.denyInboundEncryptedConnection!('peer' as never, taken[3]! as never);
    expect(call(from('10.0.0.1'))).toBe(true);
    expect(isDenied(from('10.0.0.1'))).toBe(true);
    await time.advance(10_001);
    expect(isDenied(from('10.0.0.1'))).toBe(false);
  });
});
