import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { silentLogger } from '../../ops/telemetry/index.js';
import { type ControlServer, maxSocketPathBytes, startControlServer } from './control.js';
import { ControlRefused, callControl, NoNodeRunning } from './control-client.js';
import type { NodeFace, OperationContext } from './operations.js';

let folder: string;
let path: string;
let server: ControlServer | undefined;
let describeNode: NodeFace['describe'];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'starling-control-'));
  path = join(folder, 'control.sock');
  describeNode = async () => ({ id: 'n1' });
});
afterEach(async () => {
  await server?.close();
  server = undefined;
  rmSync(folder, { recursive: true, force: true });
});

/** Only the node itself is asked here: the stores are the operations' business. */
async function start(at = path): Promise<void> {
  const node: NodeFace = {
    describe: () => describeNode(),
    nodes: async () => [],
    drain: () => {},
    requestDrain: async () => false,
    certificates: () => [],
  };
  server = await startControlServer(at, { stores: {} as OperationContext['stores'], node }, silentLogger);
}

const call = (name: string) => callControl(path, name, { positionals: [], flags: {} });

/** Any request, as a client of somebody else's making sends it. */
function send(method: string, url: string, body: string): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const sent = request({ socketPath: path, method, path: url }, async (response) => {
      let text = '';
      for await (const chunk of response) text += String(chunk);
      resolve({ status: response.statusCode!, text });
    });
    sent.on('error', reject);
    sent.end(body);
  });
}

const good = '{"positionals":[],"flags":{}}';

describe('the control socket', () => {
  it('is open to its user only, takes the place of a dead one, and goes away with the node', async () => {
    writeFileSync(path, 'left behind');
    await start();
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(await call('node show')).toEqual({ id: 'n1' });
    await server!.close();
    await expect(call('node show')).rejects.toBeInstanceOf(NoNodeRunning);
    expect(() => statSync(path)).toThrow(/ENOENT/);
  });

  it('refuses a path that the kernel would cut off', async () => {
    const fits = join(folder, 'x'.repeat(maxSocketPathBytes - folder.length - 1));
    await start(fits);
    expect(statSync(fits).isSocket()).toBe(true);
    await expect(startControlServer(`${fits}x`, {} as OperationContext, silentLogger)).rejects.toThrow(/longer than 107 bytes/);
  });

  it.each([
    ['POST', '/nonsense', good, 404],
    ['POST', '/constructor', good, 404],
    ['POST', '/__proto__', good, 404],
    ['GET', '/node%20show', '', 404],
    ['POST', '/%E0%A4%A', good, 400],
    ['POST', '/node%20show', '{', 400],
    ['POST', '/node%20show', 'null', 400],
    ['POST', '/node%20show', '{"positionals":[1],"flags":{}}', 400],
    ['POST', '/node%20show', '{"positionals":[],"flags":null}', 400],
    ['POST', '/node%20show', 'too long', 409],
  ])('answers %s %s %s with a sentence and lives on', async (method, url, body, status) => {
    await start();
    const sent = body === 'too long' ? ' '.repeat(1_048_577) : body;
    const answer = await send(method, url, sent).catch((error: NodeJS.ErrnoException) => error);
    // A request that is too long may be cut while it is still being sent.
    if (answer instanceof Error) expect([status, answer.code]).toEqual([409, 'EPIPE']);
    else {
      expect(answer.status).toBe(status);
      expect(JSON.parse(answer.text)).toEqual({ error: expect.stringMatching(/\w/) });
    }
    expect(await call('node show')).toEqual({ id: 'n1' });
  });

  it('answers what fails, and what has no JSON, and lives on', async () => {
    await start();
    describeNode = () => Promise.reject(new Error('the disk is gone'));
    await expect(call('node show')).rejects.toThrow(new ControlRefused('node show failed: the disk is gone'));
    describeNode = async () => ({ count: 1n });
    await expect(call('node show')).rejects.toThrow(/node show failed: .*BigInt/);
    describeNode = async () => ({ id: 'n2' });
    expect(await call('node show')).toEqual({ id: 'n2' });
  });

  it('closes although an operation never ends and a client only holds on', async () => {
    await start();
    describeNode = () => new Promise(() => {});
    const hanging = call('node show').catch((error: unknown) => error);
    const silent = connect(path);
    silent.on('error', () => undefined); // being cut off is what it waits for
    await new Promise((resolve) => silent.once('connect', resolve));
    const closed = new Promise((resolve) => silent.once('close', resolve));
    await server!.close();
    expect(await hanging).toBeInstanceOf(ControlRefused);
    await closed;
  });
});
