/**
 * The story of a message that several nodes had in hand: accepted by one, put off, taken up by others that are killed or drained on the way, delivered or
 * sent back. `explain` tells it whole and in order, on every node the same, with the names of the nodes and the words of the peer as that has written them down.
 */
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { Cluster } from '../harness/cluster.js';
import { TestDns } from '../harness/dns.js';
import { machineHas } from '../harness/needs.js';
import type { NodeProcess } from '../harness/node-process.js';
import { idOf } from '../harness/node-rows.js';
import { runCommand, waitFor } from '../harness/processes.js';
import { SmtpDialog, tokenMessage } from '../harness/smtp-load.js';

const folders = ['/usr/lib/x86_64-linux-gnu', '/usr/lib/aarch64-linux-gnu', '/usr/lib', '/usr/local/lib'];
const faketime = folders.map((folder) => `${folder}/faketime/libfaketimeMT.so.1`).find(existsSync);
/** Of the nodes' wall clocks, seconds, where there is libfaketime: a story must not depend on clocks that agree. */
const clockOffsets = ['+0', '-4', '+4'];

const later = '451 4.3.0 The librarian is at lunch';
const never = '550 5.1.1 The library has burnt down';
const welcome = '250 2.1.5 Welcome';
const taken = '250 2.0.0 On the shelf';

/** What one connection did for one recipient, as the peer has seen it. */
interface Visit {
  /** By the sender's EHLO, which names its node. */
  nodeId: string;
  said: string;
}

/** A mail server outside: answers each RCPT with the next of its script, then with `welcome`. An empty answer is none: the client is left to wait. */
class Library {
  readonly script: string[] = [];
  readonly visits: Visit[] = [];
  readonly #sockets = new Set<Socket>();

  private constructor(private readonly server: Server) {}

  static async start(): Promise<Library> {
    const server = createServer();
    const library = new Library(server);
    server.on('connection', (socket) => void library.#serve(socket));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return library;
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
    socket.on('error', () => undefined); // a node that is killed hangs up
    socket.once('close', () => this.#sockets.delete(socket));
    const say = (line: string) => socket.write(`${line}\r\n`);
    say('220 mx.outside.test ESMTP');
    let nodeId = '';
    let isContent = false;
    for await (const line of createInterface({ input: socket })) {
      if (isContent) {
        if (line !== '.') continue;
        isContent = false;
        say(taken);
      } else if (/^EHLO/i.test(line)) {
        nodeId = /^EHLO n-([0-9a-f]+)/i.exec(line)?.[1] ?? line;
        say('250 mx.outside.test');
      } else if (/^RCPT/i.test(line)) {
        const said = this.script.shift() ?? welcome;
        this.visits.push({ nodeId, said });
        if (said !== '') say(said);
      } else if (/^DATA/i.test(line)) {
        isContent = true;
        say('354 Go on');
      } else if (/^QUIT/i.test(line)) {
        say('221 2.0.0 Bye');
        socket.end();
      } else say('250 2.0.0 OK');
    }
  }
}

type Event = { kind: string } & Record<string, unknown>;
interface Story {
  id: string;
  state: string;
  history: { atMs: number; nodeId: string; event: Event }[];
  children?: Story[];
}

describe.skipIf(!machineHas('unbound'))('the story of a message that several nodes had in hand', () => {
  let cluster: Cluster;
  let library: Library;
  let dns: TestDns;
  let ids: string[];

  beforeAll(async () => {
    library = await Library.start();
    dns = await TestDns.start(['outside.test. IN MX 10 mx.outside.test.', 'mx.outside.test. IN A 127.0.0.1']);
    cluster = await Cluster.start({
      settings: `[log]\nlevel = "warn"\n[dns]\nservers = ["${dns.address}"]\n`,
      // A connection for each message, so that each visit has an EHLO of its own.
      clusterSettings: `[outbound]\nport = ${library.port}\nretryScheduleSeconds = [8]\nmaxMessagesPerConnection = 1\nheloName = "'n-' + node_id"\n`,
      nodeOptions: (index) => {
        if (!faketime || clockOffsets[index] === '+0') return {};
        return { env: { LD_PRELOAD: faketime, FAKETIME: clockOffsets[index]!, FAKETIME_DONT_FAKE_MONOTONIC: '1' } };
      },
    });
    ids = await Promise.all(cluster.nodes.map((node) => idOf(node)));
  });
  afterAll(async () => {
    await cluster?.remove();
    await library?.stop();
    await dns?.stop();
  });
  afterEach(({ task }) => {
    if (task.result?.state !== 'fail') return;
    process.stderr.write(`visits: ${JSON.stringify(library.visits)}\n`);
    for (const [index, { output }] of cluster.nodes.entries())
      process.stderr.write(`node ${index} (${ids[index]}):\n${output.stderr.slice(-4_000)}\n`);
  });

  /** A node that was killed, or has left, comes back under another name. */
  async function comesBack(node: NodeProcess): Promise<void> {
    await waitFor('the node to be back', 300_000, async () => {
      try {
        await node.start();
        await cluster.untilReady();
        ids[cluster.nodes.indexOf(node)] = await idOf(node);
        return true;
      } catch {
        // A machine with much else to do may have had it declared dead meanwhile.
        await node.kill();
        return false;
      }
    });
  }

  const indexOf = (nodeId: string): number => {
    const index = ids.indexOf(nodeId);
    if (index < 0) throw new Error(`no node is ${nodeId}`);
    return index;
  };

  /** Submits through a node; answers the id in the queue. */
  async function submit(through: NodeProcess, token: string): Promise<string> {
    const login = { user: 'alice@example.test', password: through.password };
    const smtp = await SmtpDialog.connect(through.port('submissions'), { isTls: true, login });
    try {
      await smtp.command(`MAIL FROM:<${login.user}>`, 250);
      await smtp.command('RCPT TO:<reader@outside.test>', 250);
      await smtp.command('DATA', 354);
      const reply = await smtp.command(Buffer.concat([tokenMessage(token), Buffer.from('.\r\n')]), 250);
      return /queued as (\w+)/.exec(reply)![1]!;
    } finally {
      smtp.close();
    }
  }

  /** Of a node that does not run, the store is asked, which takes the cluster's key. */
  async function explain(node: NodeProcess, ...args: string[]): Promise<string> {
    const env = { STARLING_STORE: cluster.storeAddress, STARLING_CLUSTER_KEY: readFileSync(cluster.keyFile, 'latin1').trim() };
    const { code, stdout, stderr } = await runCommand(process.execPath, node.cliArguments('explain', ...args), { env });
    if (code !== 0) throw new Error(`explain ended with ${code}: ${stdout}${stderr}`);
    return stdout;
  }

  const storyOn = async (node: NodeProcess, id: string) => JSON.parse(await explain(node, id, '--deep', '--json')) as Story;

  const untilDone = (node: NodeProcess, id: string) =>
    waitFor('the end of the story', 120_000, async () => {
      const story = await storyOn(node, id);
      return story.state === 'done' && (story.children ?? []).every(({ state }) => state === 'done');
    });

  /** The story, asked on each node, also on one that does not run: for programs and for people. */
  async function toldEverywhere(id: string, { nodes }: Cluster): Promise<{ story: Story; text: string }> {
    const stories = await Promise.all(nodes.map((node) => storyOn(node, id)));
    const texts = await Promise.all(nodes.map((node) => explain(node, id)));
    for (const story of stories) expect(story).toEqual(stories[0]);
    for (const text of texts) expect(text).toBe(texts[0]);
    return { story: stories[0]!, text: texts[0]! };
  }

  const visits = (count: number) =>
    waitFor(`visit ${count} of the library`, 120_000, async () => (library.visits.length >= count ? library.visits : undefined));

  /** Each fact once, in this order. */
  const expectInOrder = (text: string, parts: readonly string[]) => {
    let at = 0;
    for (const part of parts) {
      const found = text.indexOf(part, at);
      expect(found, `'${part}' after character ${at} of:\n${text}`).toBeGreaterThanOrEqual(at);
      at = found + part.length;
    }
  };
  const short = (nodeId: string) => nodeId.slice(0, 12);

  it('put off, then in the hands of a node that is killed: claimed by it, freed, delivered by another', async () => {
    library.visits.length = 0;
    library.script.push(later, '');
    const id = await submit(cluster.node(0), 'killed');
    const [first] = await visits(1);
    const [, second] = await visits(2);
    const victim = cluster.node(indexOf(second!.nodeId));
    await victim.kill();
    const [, , third] = await visits(3);
    const alive = cluster.nodes.find((node) => node !== victim)!;
    await untilDone(alive, id);
    expect(third!.nodeId).not.toBe(second!.nodeId);

    const { story, text } = await toldEverywhere(id, cluster);
    const told = story.history.map(({ nodeId, event }) => [event.kind, nodeId]);
    const freedBy = told[2]?.[1];
    expect(told).toEqual([
      ['accepted', ids[0]],
      ['attempt', first!.nodeId],
      ['freed', freedBy],
      ['attempt', third!.nodeId],
      ['done', third!.nodeId],
    ]);
    expect(freedBy).not.toBe(second!.nodeId);
    const [accepted, putOff, freed, relayed] = story.history.map(({ event }) => event);
    expect(accepted).toMatchObject({ protocol: 'submission', login: 'alice@example.test', recipients: ['reader@outside.test'] });
    const host = 'mx.outside.test';
    expect(putOff).toMatchObject({
      ...{ attempt: 1, domain: 'outside.test' },
      results: [{ address: 'reader@outside.test', verdict: 'deferred', code: 451, enhanced: '4.3.0', host }],
    });
    expect(freed).toMatchObject({ fromNode: second!.nodeId, reason: 'dead', domain: 'outside.test' });
    expect(relayed).toMatchObject({
      attempt: 2,
      results: [{ address: 'reader@outside.test', verdict: 'relayed', code: 250, enhanced: '2.0.0', host }],
    });
    expectInOrder(text, [
      ...[`${short(ids[0]!)}  accepted by submission`, `${short(first!.nodeId)}  attempt 1 to reach outside.test`],
      ...['The librarian is at lunch', `node ${short(second!.nodeId)} was declared dead`],
      ...[`${short(third!.nodeId)}  attempt 2 to reach outside.test`, 'On the shelf', 'done: nothing of it is left'],
    ]);
    await comesBack(victim);
  });

  it('put off by a node that is drained before the next attempt: delivered by another', async () => {
    library.visits.length = 0;
    library.script.push(later);
    const id = await submit(cluster.node(1), 'drained');
    const [first] = await visits(1);
    const leaving = cluster.node(indexOf(first!.nodeId));
    const staying = cluster.nodes.filter((node) => node !== leaving);
    // Until it is written down.
    await waitFor('the first attempt', 60_000, async () => (await storyOn(staying[0]!, id)).history.length >= 2);
    expect(await leaving.stop()).toBe(0);
    const [, second] = await visits(2);
    await untilDone(staying[0]!, id);
    expect(second!.nodeId).not.toBe(first!.nodeId);
    const { story, text } = await toldEverywhere(id, cluster);
    expect(story.history.map(({ nodeId, event }) => [event.kind, nodeId])).toEqual([
      ['accepted', ids[1]],
      ['attempt', first!.nodeId],
      ['attempt', second!.nodeId],
      ['done', second!.nodeId],
    ]);
    expectInOrder(text, [
      'The librarian is at lunch',
      `${short(second!.nodeId)}  attempt 2 to reach outside.test`,
      'On the shelf',
    ]);
    await comesBack(leaving);
  });

  it('put off by one, refused for good when another asks: sent back, and the story of the report below', async () => {
    library.visits.length = 0;
    library.script.push(later, never);
    const id = await submit(cluster.node(2), 'refused');
    const [first] = await visits(1);
    const leaving = cluster.node(indexOf(first!.nodeId));
    const staying = cluster.nodes.filter((node) => node !== leaving);
    await waitFor('the first attempt', 60_000, async () => (await storyOn(staying[0]!, id)).history.length >= 2);
    await leaving.kill();
    const [, second] = await visits(2);
    await untilDone(staying[0]!, id);
    const { story, text } = await toldEverywhere(id, cluster);
    expect(story.history.map(({ nodeId, event }) => [event.kind, nodeId])).toEqual([
      ['accepted', ids[2]],
      ['attempt', first!.nodeId],
      ['attempt', second!.nodeId],
      ['report', second!.nodeId],
      ['done', second!.nodeId],
    ]);
    expect(second!.nodeId).not.toBe(first!.nodeId);
    const [report] = story.children!;
    expect(story.history[3]!.event).toMatchObject({ report: 'failed', id: report!.id, recipients: 1 });
    const [delivered] = report!.history.filter(({ event }) => event.kind === 'attempt');
    expect(delivered!.event).toMatchObject({ isLocal: true, results: [{ address: 'alice@example.test', verdict: 'delivered' }] });
    expectInOrder(text, [
      'The librarian is at lunch',
      'The library has burnt down',
      'a report of failure on 1 recipients',
      'done:',
    ]);
  });
});
