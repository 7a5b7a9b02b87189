import { afterEach, describe, expect, it } from 'vitest';
import { parseMessage } from '../../protocols/message/index.js';
import { startTestServer, type TestHandler, type TestServer } from '../../protocols/smtp/testing/server.js';
import { openMemoryStore } from '../../store/kv/index.js';
import { breakFence } from '../../store/queue/test-fences.js';
import { post, queueLeftovers, startTestNode, type TestNode, type TestNodeOptions } from './testing/node.js';
import type { DeliveryJob } from './types.js';

const closing: { close(): Promise<void> }[] = [];
const password = 'correct horse battery';
const auth = { login: 'alice@example.test', password };

afterEach(async () => {
  for (const one of closing.splice(0)) await one.close();
});

async function peer(options: Parameters<typeof startTestServer>[0] = {}): Promise<TestServer> {
  const server = await startTestServer(options);
  closing.push(server);
  return server;
}

/** A node with alice, whose mail for `remote.test` goes to this server. */
async function openNode(target: TestServer, options: Partial<TestNodeOptions> = {}) {
  const kv = options.kv ?? openMemoryStore();
  const node = await startTestNode({ ...options, kv, settings: { smtpPort: target.port, ...options.settings } });
  closing.unshift(node);
  const alice = await node.account('alice@example.test', { password });
  node.resolver.mailHosts.set('remote.test', ['mx.remote.test']);
  node.resolver.addresses.set('mx.remote.test', '127.0.0.1');
  const { port } = await node.listen('submission');
  return { node, alice, port };
}

/** Until everything that can be done now is done. */
async function rest(node: TestNode): Promise<void> {
  await node.settled();
}

const send = (port: number, to: string | string[], more: object = {}) =>
  post(port, { from: 'alice@example.test', to, auth, text, ...more });
const text =
  'From: alice@example.test\r\nDate: Sun, 22 Nov 2026 05:00:00 +0000\r\nMessage-ID: <m@x>\r\nSubject: out\r\n\r\nText ü\r\n.dot\r\n';

/** Runs `then` when the peer has taken a message and not yet said so. */
function afterFinish(handler: TestHandler, then: () => void): void {
  const data = handler.data.bind(handler);
  handler.data = (session, envelope) => {
    const sink = data(session, envelope);
    if ('code' in sink) return sink;
    return {
      write: (chunk) => sink.write(chunk),
      abort: (reason) => sink.abort(reason),
      finish: async (facts) => {
        const reply = await sink.finish(facts);
        then();
        return reply;
      },
    };
  };
}

/** The fields of the delivery-status part of a report. */
function statusOf(report: string): string {
  const bytes = Buffer.from(report);
  const structure = parseMessage(bytes);
  expect([structure.type, structure.subtype]).toEqual(['multipart', 'report']);
  expect(structure.params).toMatchObject({ 'report-type': 'delivery-status' });
  expect(structure.children).toHaveLength(3);
  const part = structure.children![1]!;
  expect(part.subtype).toMatch(/delivery-status$/);
  return bytes.subarray(part.headerEnd, part.bodyEnd).toString();
}

describe('remote delivery', () => {
  it('relays without our Return-Path, byte for byte, over one connection for several messages', async () => {
    const target = await peer();
    const { node, port } = await openNode(target);
    const sent = Buffer.from(text).toString('utf8');
    for (let i = 0; i < 3; i++) {
      expect((await send(port, ['bob@remote.test', 'carl@remote.test']))[0]!.code).toBe(250);
      await rest(node);
    }
    expect(target.handler.messages).toHaveLength(3);
    const [first] = target.handler.messages;
    expect(first).toMatchObject({
      from: 'alice@example.test',
      recipients: ['bob@remote.test', 'carl@remote.test'],
      secure: true,
    });
    const content = first!.content.toString('utf8');
    expect(content).toMatch(/^Received: from client\.remote\.test \(\[127\.0\.0\.1\]\)\r\n/);
    expect(content.endsWith(`\r\n${sent}`)).toBe(true);
    expect(target.sessions).toHaveLength(1);
    expect(await queueLeftovers(node.kv)).toEqual([]);
  });

  it('bounces what the peer refuses for good, with the peer’s words, and keeps the others', async () => {
    const target = await peer();
    const { node, alice, port } = await openNode(target);
    const recipients = [
      { address: 'unknown1@remote.test', originalRecipient: { type: 'rfc822', address: 'old+x@remote.test' } },
      { address: 'bob@remote.test' },
      { address: 'unknown2@remote.test', notify: ['NEVER' as const] },
    ];
    await send(port, [], { recipients, envelopeId: 'env 17', ret: 'HDRS' });
    await rest(node);
    expect(target.handler.messages[0]!.recipients).toEqual(['bob@remote.test']);
    const [bounce, ...more] = await node.mailbox(alice);
    expect(more).toEqual([]);
    expect(bounce).toMatch(/^Return-Path: <>\r\n/);
    expect(bounce).toContain('\r\nFrom: Mail Delivery System <MAILER-DAEMON@mx.example.test>\r\n');
    expect(bounce).toContain('\r\nAuto-Submitted: auto-replied\r\n');
    const status = statusOf(bounce!);
    expect(status).toMatch(
      /^Reporting-MTA: dns; mx\.example\.test\r\nOriginal-Envelope-Id: env 17\r\nReceived-From-MTA: dns; client\.remote\.test\r\nArrival-Date: /,
    );
    expect(status).toContain(
      '\r\n\r\nOriginal-Recipient: rfc822; old+x@remote.test\r\nFinal-Recipient: rfc822; unknown1@remote.test\r\nAction: failed\r\n' +
        'Status: 5.1.1\r\nRemote-MTA: dns; mx.remote.test\r\nDiagnostic-Code: smtp; 550 5.1.1 No such mailbox\r\n',
    );
    expect(status).not.toContain('unknown2');
    expect(bounce).toContain('Content-Type: text/rfc822-headers');
    expect(bounce).not.toContain('.dot');
    expect(await queueLeftovers(node.kv)).toEqual([]);
  });

  it('returns the whole message when RET does not forbid it', async () => {
    const target = await peer();
    const { node, alice, port } = await openNode(target);
    await send(port, 'unknown@remote.test', { ret: 'FULL' });
    await rest(node);
    const [bounce] = await node.mailbox(alice);
    const structure = parseMessage(Buffer.from(bounce!));
    expect(structure.children![2]).toMatchObject({ type: 'message', subtype: 'rfc822', encoding: '8bit' });
    expect(bounce).toContain('Text ü\r\n.dot\r\n');
    expect(bounce).not.toContain('Return-Path: <alice');
  });

  it('tries again by the schedule, says once that it takes long, and gives up at the end', async () => {
    const target = await peer();
    const { node, alice, port } = await openNode(target, {
      settings: { retryDelaysSeconds: [60, 300, 7200], messageLifetimeSeconds: 86_400 },
    });
    const begunAtMs = node.clock.nowMs();
    await send(port, 'later@remote.test');
    await rest(node);
    const waits: number[] = [];
    for (let i = 0; i < 30; i++) {
      const [queued] = await node.queue.list();
      if (!queued?.destinations[0] || queued.message.from === '') break;
      const [destination] = queued.destinations;
      expect(destination).toMatchObject({
        state: 'due',
        attempts: i + 1,
        recipients: [{ status: 'pending', lastReply: { code: 451, enhanced: '4.7.1' } }],
      });
      waits.push(destination!.dueAtSeconds - node.clock.nowMs() / 1000);
      node.clock.shiftMs += Math.max(0, destination!.dueAtSeconds * 1000 - node.clock.nowMs()) + 1;
      node.runner.wake();
      await rest(node);
    }
    for (const [at, [low, high]] of [
      [54, 67],
      [270, 331],
      [6480, 7921],
      [6480, 7921],
    ].entries()) {
      expect(waits[at]).toBeGreaterThan(low! - 2);
      expect(waits[at]).toBeLessThan(high!);
    }
    expect(node.clock.nowMs() - begunAtMs).toBeGreaterThan(86_000_000);
    expect(node.clock.nowMs() - begunAtMs).toBeLessThan(90_000_000);
    const reports = await node.mailbox(alice);
    expect(reports.map((report) => /Action: (\w+)/.exec(statusOf(report))![1])).toEqual(['delayed', 'failed']);
    expect(statusOf(reports[0]!)).toMatch(/Status: 4\.7\.1\r\n[\s\S]*Will-Retry-Until: /);
    expect(statusOf(reports[1]!)).toContain('Status: 4.7.1\r\n');
    expect(await queueLeftovers(node.kv)).toEqual([]);
  });

  it('tries the next host when one does not answer', async () => {
    const target = await peer();
    const { node, port } = await openNode(target);
    node.resolver.mailHosts.set('remote.test', ['dead.remote.test', 'nowhere.remote.test', 'mx.remote.test']);
    node.resolver.addresses.set('dead.remote.test', '127.0.0.9');
    await send(port, 'bob@remote.test');
    await rest(node);
    expect(target.handler.messages).toHaveLength(1);
  });

  it('bounces at once for domains that do not exist, take no mail, or lead back here; waits when names can not be looked up', async () => {
    const target = await peer();
    const { node, alice, port } = await openNode(target);
    node.resolver.mailHosts.set('nomail.test', ['']);
    node.resolver.mailHosts.set('loop.test', ['MX.example.test'.toLowerCase(), 'backup.test']);
    await send(port, ['x@missing.test', 'x@nomail.test', 'x@loop.test']);
    await rest(node);
    const bounces = (await node.mailbox(alice)).map((one) =>
      /Final-Recipient: rfc822; (\S+)\r\nAction: failed\r\nStatus: (\S+)/.exec(statusOf(one))!.slice(1),
    );
    expect(bounces.sort()).toEqual([
      ['x@loop.test', '5.4.6'],
      ['x@missing.test', '5.1.2'],
      ['x@nomail.test', '5.1.10'],
    ]);
    node.resolver.isDown = true;
    await send(port, 'bob@remote.test');
    await rest(node);
    expect((await node.queue.list())[0]!.destinations[0]!.recipients[0]).toMatchObject({
      status: 'pending',
      lastReply: { enhanced: '4.4.3' },
    });
  });

  it('reports success when asked, for local and for relayed mail', async () => {
    const target = await peer();
    const { node, alice, port } = await openNode(target);
    await node.account('bob@example.test');
    await send(port, [], { recipients: [{ address: 'bob@example.test', notify: ['SUCCESS' as const] }] });
    await rest(node);
    const [report] = await node.mailbox(alice);
    expect(statusOf(report!)).toContain('Final-Recipient: rfc822; bob@example.test\r\nAction: delivered\r\nStatus: 2.1.5\r\n');
    await send(port, [], { recipients: [{ address: 'carl@remote.test', notify: ['SUCCESS' as const] }] });
    await rest(node);
    const passedOn = target.handler.messages[0]!.envelope.recipients[0]!.parameters.notify;
    const reports = await node.mailbox(alice);
    if (passedOn) expect(reports).toHaveLength(1);
    else expect(statusOf(reports[1]!)).toContain('Action: relayed\r\n');
  });

  it('never reports about a report', async () => {
    const target = await peer();
    const { node, port } = await openNode(target);
    const { port: mx } = await node.listen('mx');
    node.resolver.mailHosts.set('gone.test', ['mx.remote.test']);
    // A list's member is refused: the report goes to the postmaster, who does not exist either.
    await node.directory.createPrincipal({ kind: 'list', address: 'l@example.test', members: ['unknown@remote.test'] });
    await post(mx, { from: 'unknown@gone.test', to: 'l@example.test' });
    await send(port, 'unknown@remote.test', { from: '' });
    await rest(node);
    expect(target.handler.messages).toEqual([]);
    expect(await queueLeftovers(node.kv)).toEqual([]);
  });

  it('sends everything through a relay host that wants a login', async () => {
    const target = await peer({ mode: 'submission' });
    const relayHost = {
      host: '127.0.0.1',
      port: target.port,
      tls: 'opportunistic' as const,
      user: 'alice@example.test',
      password: 'wonder, land=1',
    };
    const { node, port } = await openNode(target, { settings: { relayHost } });
    await send(port, 'x@anything.test');
    await rest(node);
    expect(target.handler.messages).toMatchObject([{ login: 'alice@example.test', recipients: ['x@anything.test'] }]);
  });

  it('sends again when the answer to the whole message was lost: at least once', async () => {
    const target = await peer({ startTls: false });
    const { node, port } = await openNode(target);
    afterFinish(target.handler, () => {
      if (target.handler.messages.length === 1) target.sessions[0]!.connection.socket.destroy();
    });
    await send(port, 'bob@remote.test');
    await rest(node);
    expect(target.handler.messages).toHaveLength(1);
    const [queued] = await node.queue.list();
    expect(queued!.destinations[0]).toMatchObject({ state: 'due', attempts: 1, recipients: [{ status: 'pending' }] });
    node.clock.shiftMs += 120_000;
    node.runner.wake();
    await rest(node);
    expect(target.handler.messages).toHaveLength(2);
    expect(await queueLeftovers(node.kv)).toEqual([]);
  });

  it('keeps the result of a delivery through an outage of the store', async () => {
    const target = await peer();
    const kv = openMemoryStore();
    const { node, port } = await openNode(target, { kv });
    afterFinish(target.handler, () => {
      kv.faults.outage = true;
    });
    await send(port, 'bob@remote.test');
    for (let i = 0; i < 200 && target.handler.messages.length === 0; i++) await node.clock.sleep(10);
    await node.clock.sleep(100);
    kv.faults.clear();
    await rest(node);
    node.clock.shiftMs += 120_000;
    node.runner.wake();
    await rest(node);
    expect(target.handler.messages).toHaveLength(1);
    expect(await queueLeftovers(kv)).toEqual([]);
  });

  it('bounces once through conflicts and unknown commits', async () => {
    const target = await peer();
    const kv = openMemoryStore();
    const { node, alice, port } = await openNode(target, { kv });
    Object.assign(kv.faults, { conflict: 0.1, commitUnknownApplied: 0.2, commitUnknownLost: 0.1 });
    for (let i = 0; i < 12; i++) await send(port, `unknown${i}@remote.test`);
    await rest(node);
    kv.faults.clear();
    const bounced = (await node.mailbox(alice)).map((one) =>
      Number(/Final-Recipient: rfc822; unknown(\d+)@/.exec(statusOf(one))![1]),
    );
    expect(bounced.sort((x, y) => x - y)).toEqual(Array.from({ length: 12 }, (_, i) => i));
    expect(await queueLeftovers(kv)).toEqual([]);
  });

  it.each([
    ['short', 1],
    ['long', 20_000],
  ])('does not complete a %s message while another may be sending it, and does once it is sure', async (_what, lines) => {
    const target = await peer();
    let isSure = true;
    const { node, port } = await openNode(target, { maySend: () => isSure });
    isSure = false;
    await send(port, 'bob@remote.test', { text: text + `${'x'.repeat(70)}\r\n`.repeat(lines) });
    while (target.sessions.length < 2) await node.clock.sleep(5);
    expect(target.handler.messages).toHaveLength(0);
    const [queued] = await node.queue.list();
    // No attempt: nothing of it was the peer's doing.
    expect(queued!.destinations).toMatchObject([{ state: 'claimed', attempts: 0 }]);
    isSure = true;
    await rest(node);
    expect(target.handler.messages).toHaveLength(1);
    expect(await queueLeftovers(node.kv)).toEqual([]);
  });

  it('drops its work when the claim was taken over, and saves nothing', async () => {
    const target = await peer();
    const { node, port } = await openNode(target, { limits: { maxRemoteDeliveries: 0 } });
    await send(port, 'unknown@remote.test');
    const [claimed] = await node.queue.claimsOf(node.node, 1);
    await breakFence(node.kv, node.node.nodeId);
    const job: DeliveryJob = { claimed: claimed! };
    await expect(node.delivery.deliver(job, new AbortController().signal)).rejects.toThrow('lost');
    expect((await node.queue.list())[0]!.destinations[0]!.recipients[0]!.status).toBe('pending');
  });
});
