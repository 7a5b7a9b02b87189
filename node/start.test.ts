import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { silentLogger } from '../ops/telemetry/index.js';
import { NodeCluster } from './cluster.js';
import { checkConfig } from './config/load.js';
import type { Config, ConfigInput } from './config/schema.js';
import { LineListeners } from './line-listeners.js';
import { startNode } from './main.js';

let data: string;
let taken: Server | undefined;

beforeEach(async () => {
  data = await mkdtemp(join(tmpdir(), 'start-'));
});

afterEach(async () => {
  vi.restoreAllMocks();
  await new Promise((resolve) => (taken ? taken.close(resolve) : resolve(undefined)));
  taken = undefined;
  await rm(data, { recursive: true, force: true });
});

/** A port that is free now, or kept by somebody else. */
async function port(isKept = false): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port: found } = server.address() as { port: number };
  if (isKept) taken = server;
  else await new Promise((resolve) => server.close(resolve));
  return found;
}

const isOpen = (at: number) =>
  new Promise<boolean>((resolve) => {
    const socket = connect(at, '127.0.0.1');
    socket.on('connect', () => resolve(true)).on('error', () => resolve(false));
    socket.on('connect', () => socket.destroy());
  });

function configOf(smtpPort: number, more: ConfigInput = {}): Config {
  const listener = { name: 'smtp', protocol: 'smtp' as const, host: '127.0.0.1', port: smtpPort };
  return checkConfig({ data, listeners: [listener], drainTimeoutSeconds: 5, ...more });
}

describe('a start', () => {
  it('that fails half-way lets go of gossip and store, and can be made again', async () => {
    const gossip = { enabled: true, port: await port() };
    const kept = await port(true);
    await expect(startNode(configOf(kept, { gossip }), { logger: silentLogger })).rejects.toThrow(/cannot listen/);
    expect(await isOpen(gossip.port)).toBe(false);
    const node = await startNode(configOf(await port(), { gossip }), { logger: silentLogger });
    expect(await isOpen(gossip.port)).toBe(true);
    node.drain();
    await node.stopped;
    expect(await isOpen(gossip.port)).toBe(false);
  });

  it('in the middle of which the node is to stop is ended in order', async () => {
    const smtpPort = await port();
    let cluster!: NodeCluster;
    const joinFirst = NodeCluster.prototype.join;
    vi.spyOn(NodeCluster.prototype, 'join').mockImplementation(function (this: NodeCluster) {
      cluster = this;
      return joinFirst.call(this);
    });
    const listen = LineListeners.prototype.listen;
    vi.spyOn(LineListeners.prototype, 'listen').mockImplementation(async function (this: LineListeners) {
      cluster.fenced();
      await new Promise((resolve) => setTimeout(resolve, 50));
      return listen.call(this);
    });
    const node = await startNode(configOf(smtpPort), { logger: silentLogger });
    await node.stopped;
    expect(node.isFenced).toBe(true);
    expect(await isOpen(smtpPort)).toBe(false);
  });
});
