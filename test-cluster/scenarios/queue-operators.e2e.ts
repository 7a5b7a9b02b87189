/**
 * An operator's day with the queue: mail for an outside domain whose server says "later" is found, held, tried again, sent another way, cancelled with and
 * without a report, its domain paused; and `explain` tells the story of each message, also on the store of a stopped node.
 */
import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { messagesByImapflow } from '../harness/clients.js';
import { TestDns } from '../harness/dns.js';
import { machineHas } from '../harness/needs.js';
import { NodeProcess } from '../harness/node-process.js';
import { waitFor } from '../harness/processes.js';
import { SmtpDialog, tokenMessage } from '../harness/smtp-load.js';

type Row = Record<string, unknown>;

const later = '451 4.3.0 The librarian is at lunch';
const welcome = '250 2.1.5 Welcome';

/** A mail server outside that answers RCPT as it is told to, and keeps the subjects of what it took. */
class Outside {
  rcptReply = welcome;
  attempts = 0;
  readonly tokens: string[] = [];
  readonly #sockets = new Set<Socket>();

  private constructor(private readonly server: Server) {}

  static async start(): Promise<Outside> {
    const server = createServer();
    const outside = new Outside(server);
    server.on('connection', (socket) => void outside.#serve(socket));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return outside;
  }

  get port(): number {
    return (this.server.address() as { port: number }).port;
  }

  async stop(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    this.server.close();
    await once(this.server, 'close');
  }

  async #serve(socket: Socket): Promise<void> {
    this.#sockets.add(socket);
    socket.on('error', () => undefined); // the node hangs up when it stops
    socket.once('close', () => this.#sockets.delete(socket));
    const say = (line: string) => socket.write(`${line}\r\n`);
    say('220 mx.outside.test ESMTP');
    let isData = false;
    for await (const line of createInterface({ input: socket })) {
      if (isData) {
        const token = /^Subject: token (\S+)/.exec(line)?.[1];
        if (token !== undefined) this.tokens.push(token);
        if (line !== '.') continue;
        isData = false;
        say('250 2.0.0 Taken');
      } else if (/^EHLO/i.test(line)) say('250 mx.outside.test');
      else if (/^RCPT/i.test(line)) {
        this.attempts++;
        say(this.rcptReply);
      } else if (/^DATA/i.test(line)) {
        isData = true;
        say('354 Go on');
      } else if (/^QUIT/i.test(line)) {
        say('221 2.0.0 Bye');
        socket.end();
      } else say('250 2.0.0 OK');
    }
  }
}

const records = ['outside', 'elsewhere', 'quiet'].flatMap((name) => [
  `${name}.test. IN MX 10 mx.${name}.test.`,
  `mx.${name}.test. IN A 127.0.0.1`,
]);

describe.skipIf(!machineHas('unbound'))("an operator's day with the queue", () => {
  let node: NodeProcess;
  let outside: Outside;
  let other: Outside;
  let dns: TestDns;

  beforeAll(async () => {
    [outside, other, dns] = await Promise.all([Outside.start(), Outside.start(), TestDns.start(records)]);
    node = await NodeProcess.start({
      settings: `[dns]\nservers = ["${dns.address}"]\n`,
      clusterSettings: `[outbound]\nport = ${outside.port}\n`,
    });
  });
  afterAll(async () => {
    await node?.remove();
    await Promise.all([outside?.stop(), other?.stop(), dns?.stop()]);
  });

  /** Runs with `--json`; throws unless it succeeds. */
  async function done<T = Row>(...args: string[]): Promise<T> {
    const { code, stdout, stderr } = await node.cli(...args, '--json');
    if (code !== 0) throw new Error(`starling ${args.join(' ')} ended with ${code}: ${stdout}${stderr}`);
    return JSON.parse(stdout) as T;
  }

  /** What people see. */
  async function shown(...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await node.cli(...args);
    expect([code, stderr]).toEqual([0, '']);
    return stdout;
  }

  async function refused(...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await node.cli(...args);
    expect([code, stdout]).toEqual([1, '']);
    return stderr;
  }

  async function send(recipient: string, token: string): Promise<void> {
    const login = { user: 'alice@example.test', password: node.password };
    const smtp = await SmtpDialog.connect(node.port('submissions'), { isTls: true, login });
    try {
      await smtp.send(login.user, [recipient], tokenMessage(token));
    } finally {
      smtp.close();
    }
  }

  /** Sends, and waits until the first attempt was put off. Answers the id. */
  async function stuck(recipient: string, token: string): Promise<string> {
    outside.rcptReply = later;
    await send(recipient, token);
    const row = await waitFor('a first attempt', 30_000, async () => {
      const rows = await done<Row[]>('queue', 'list', '--recipient', recipient, '--state', 'due', '--text', 'librarian');
      return rows[0];
    });
    return String(row.id);
  }

  const isGone = async (id: string) => !(await done<Row[]>('queue', 'list')).some((row) => row.id === id);
  const stateOf = async (id: string) =>
    (await done<{ destinations: { state: string }[] }>('queue', 'show', id)).destinations[0]!.state;

  it('finds what is stuck, and says why', async () => {
    const id = await stuck('a@outside.test', 'first');
    const filters = ['--domain', 'OUTSIDE.test', '--sender', '@example.test', '--older-than', '1s'];
    // It may have been here for less than that.
    const row = await waitFor(
      'a message of a second ago',
      10_000,
      async () => (await done<Row[]>('queue', 'list', ...filters))[0],
    );
    expect(row).toMatchObject({
      id,
      domains: ['outside.test'],
      pending: 1,
      attempts: 1,
      lastReply: expect.stringContaining(later),
    });
    expect(Date.parse(String(row.nextAttemptAt))).toBeGreaterThan(Date.now());
    const list = await shown('queue', 'list');
    expect(list).toMatch(/^id +age +from +size +state +to +rcpts +tries +next +last reply$/m);
    expect(list).toContain(id);
    for (const filter of [
      ['--domain', 'elsewhere.test'],
      ['--state', 'held'],
      ['--text', 'no such reply'],
      ['--older-than', '1d'],
    ])
      expect(await done('queue', 'list', ...filter)).toEqual([]);
    expect(await shown('queue', 'show', id)).toContain('The librarian is at lunch');
    expect(await shown('explain', id)).toMatch(
      /accepted by submission from 127\.0\.0\.1 .*\n[\s\S]*attempt 1 to reach outside\.test[\s\S]*451 4\.3\.0[\s\S]*now:/,
    );
  });

  it('holds it, lets it go, and has it tried at once', async () => {
    const [row] = await done<Row[]>('queue', 'list', '--domain', 'outside.test');
    const id = String(row!.id);
    expect(await done('queue', 'hold', id, '--note', 'asking them')).toEqual({ id, destinations: 1 });
    expect(await stateOf(id)).toBe('held');
    expect(await refused('queue', 'hold', id)).toContain(id);
    outside.rcptReply = welcome;
    expect(await refused('queue', 'retry', id)).toContain(id);
    expect(await done('queue', 'unhold', id)).toEqual({ id, destinations: 1 });
    await waitFor('the mail', 30_000, async () => outside.tokens.includes('first') && (await isGone(id)));
    const story = await done<{ state: string; history: { event: Row }[] }>('explain', id);
    expect(story.state).toBe('done');
    const kinds = story.history.map(({ event }) => event.kind);
    expect(kinds[0]).toBe('accepted');
    expect(kinds.at(-1)).toBe('done');
    expect(kinds.filter((kind) => kind === 'attempt').length).toBeGreaterThanOrEqual(2);
    expect(story.history.map(({ event }) => event)).toContainEqual(
      expect.objectContaining({ kind: 'operator', action: 'hold', note: 'asking them', by: expect.stringMatching(/./) }),
    );
    expect(await shown('explain', id)).toMatch(/250 2\.1\.5|250 2\.0\.0/);
  });

  it('tries all of a domain at once', async () => {
    const id = await stuck('b@outside.test', 'second');
    outside.rcptReply = welcome;
    expect((await node.cli('queue', 'retry')).code).toBe(2);
    expect(await done('queue', 'retry', '--domain', 'outside.test')).toEqual({ destinations: 1 });
    await waitFor('the mail', 30_000, async () => outside.tokens.includes('second') && (await isGone(id)));
  });

  it('sends it another way', async () => {
    const id = await stuck('c@elsewhere.test', 'third');
    expect((await node.cli('queue', 'reroute', id)).code).toBe(2);
    await done('queue', 'reroute', id, '--host', '127.0.0.1', '--port', String(other.port));
    await waitFor('the mail', 30_000, async () => other.tokens.includes('third') && (await isGone(id)));
    expect(outside.tokens).not.toContain('third');
    expect(await shown('explain', id)).toContain('sent it another way');
  });

  it('cancels it, with a report that says why, or without a word', async () => {
    const silent = await stuck('d@outside.test', 'fourth');
    expect(await done('queue', 'cancel', silent)).toEqual({ id: silent, destinations: 1 });
    expect(await refused('queue', 'show', silent)).toContain(silent);
    const told = await stuck('e@outside.test', 'fifth');
    await done('queue', 'cancel', told, '--bounce', '--note', 'sent by mistake');
    const report = await waitFor('the report', 30_000, async () => {
      const login = { port: node.port('imaps'), user: 'alice@example.test', password: node.password };
      return (await messagesByImapflow(login)).map(String).find((message) => message.includes('sent by mistake'));
    });
    expect(report).toContain('e@outside.test');
    expect(await isGone(told)).toBe(true);
    expect(outside.tokens).not.toContain('fifth');
    const deep = await done<{ state: string; children: Row[] }>('explain', told, '--deep');
    expect(deep).toMatchObject({ state: 'done', children: [{ state: 'done' }] });
    expect(await shown('explain', told, '--deep')).toMatch(/a report of failure on 1 recipients was sent as/);
  });

  it('pauses a domain, and goes on', async () => {
    outside.rcptReply = welcome;
    expect(await done('queue', 'pause', 'quiet.test', '--note', 'they are moving')).toEqual({ paused: 'quiet.test' });
    const before = outside.attempts;
    await send('f@quiet.test', 'sixth');
    const row = await waitFor(
      'its place in line',
      30_000,
      async () => (await done<Row[]>('queue', 'list', '--state', 'waiting'))[0],
    );
    expect(row).toMatchObject({ states: ['waiting'], domains: ['quiet.test'] });
    expect(await done('queue', 'destinations')).toMatchObject([{ what: 'quiet.test', state: 'paused', why: 'they are moving' }]);
    expect(outside.attempts).toBe(before);
    expect(await done('queue', 'resume', 'quiet.test')).toEqual({ resumed: 'quiet.test' });
    expect(await refused('queue', 'resume', 'quiet.test')).toContain('not paused');
    await waitFor('the mail', 30_000, async () => outside.tokens.includes('sixth') && (await isGone(String(row.id))));
  });

  it('bans addresses, and keeps look-up lists', async () => {
    await done('ban', 'add', '192.0.2.0/24', '--for', '2h', '--note', 'scans');
    expect(await done('ban', 'list')).toMatchObject([{ network: '192.0.2.0/24', reason: 'operator', note: 'scans' }]);
    expect(await done('ban', 'lift', '192.0.2.0/24')).toEqual({ lifted: '192.0.2.0/24' });
    expect(await refused('ban', 'lift', '192.0.2.0/24')).toContain('not banned');
    await done('lookup', 'set', 'blocked', 'spammer@example.org', 'since Monday');
    expect(await done('lookup', 'lists')).toEqual(['blocked']);
    expect(await done('lookup', 'list', 'blocked')).toMatchObject([{ key: 'spammer@example.org', value: 'since Monday' }]);
    expect(await done('lookup', 'remove', 'blocked', 'spammer@example.org')).toEqual({ removed: 'spammer@example.org' });
  });

  it('does the same on the store of a stopped node', async () => {
    const id = await stuck('g@outside.test', 'seventh');
    expect(await node.stop()).toBe(0);
    expect((await done<Row[]>('queue', 'list', '--domain', 'outside.test')).map((row) => row.id)).toEqual([id]);
    expect(await shown('explain', id)).toContain('451 4.3.0');
    await done('queue', 'hold', '--all');
    await done('queue', 'pause', 'all');
    expect(await done('queue', 'destinations')).toMatchObject([{ what: '*', state: 'paused' }]);
    outside.rcptReply = welcome;
    await node.start();
    expect(await stateOf(id)).toBe('held');
    await done('queue', 'unhold', '--all');
    await waitFor(
      'its place in line',
      30_000,
      async () => (await done<Row[]>('queue', 'list', '--state', 'waiting')).length === 1,
    );
    expect(outside.tokens).not.toContain('seventh');
    await done('queue', 'resume', 'all');
    await waitFor('the mail', 30_000, async () => outside.tokens.includes('seventh') && (await isGone(id)));
    const unknown = await refused('explain', '00000000000000000000');
    expect(unknown).toMatch(/nothing is known of/);
    expect((await node.cli('explain')).code).toBe(2);
  });
});
