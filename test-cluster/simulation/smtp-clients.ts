/** Clients that submit messages to whatever node lets them in, and note which of them were acknowledged. */
import { silentLogger } from '../../ops/telemetry/index.js';
import type { Reply } from '../../protocols/smtp/grammar/index.js';
import type { Envelope, SessionInfo } from '../../protocols/smtp/server/handler.js';
import { KvError } from '../../store/kv/index.js';
import type { Submission } from './ledger.js';
import { messageBytes } from './messages.js';
import type { SimulatedNode } from './node.js';
import type { SeededRandom } from './random.js';
import { remoteDomains } from './remote-hosts.js';
import { users } from './settings.js';
import { describe } from './story.js';
import type { World } from './world.js';

const clients = 3;
const storeTrouble: Reply = { code: 451, enhanced: '4.3.0', text: 'Store trouble' };
/** As long as a client waits for an answer. */
const patienceMs = 25_000;

export async function runSmtpClients(world: World): Promise<void> {
  await Promise.all(Array.from({ length: clients }, (_, at) => runClient(world, `c${at + 1}`)));
}

async function runClient(world: World, name: string): Promise<void> {
  const random = world.random.fork(name);
  for (let count = 1; ; count++) {
    await world.clock.sleep(random.between(100, 1_800));
    if (world.isClosing) return;
    const { open } = world;
    if (open.length > 0) await submit(world, random.pick(open), random, `${name}-${count}`);
  }
}

async function submit(world: World, node: SimulatedNode, random: SeededRandom, token: string): Promise<void> {
  const { ledger, story } = world;
  const from = random.below(users.length);
  const kind = random.float();
  const locals = kind < 0.45 ? [random.below(users.length)] : kind < 0.75 ? someOf(random, users.length) : [];
  const remoteCount = locals.length === 0 || random.chance(0.3) ? 1 + random.below(3) : 0;
  const remote = Array.from({ length: remoteCount }, (_, at) => `peer${at}@${random.pick(remoteDomains)}`);
  const submission: Submission = {
    token,
    from: users[from]!,
    local: locals.map((at) => world.accounts[at]!),
    remote: [...new Set(remote)],
    node: node.name,
    state: 'open',
  };
  ledger.submissions.set(token, submission);
  const recipients = [...locals.map((at) => users[at]!), ...submission.remote];
  story.tell('client', node.name, `${token} is submitted, to ${recipients.join(' ')}`);
  const body = messageBytes(
    token,
    submission.from,
    recipients,
    random.chance(0.02) ? random.between(5_000, 90_000) : random.between(10, 300),
  );
  const conversation = converse(node, world.accounts[from]!, submission.from, recipients, body, random).catch(
    (error: unknown) => {
      // What a handler throws the server answers with 451; only trouble with the store is expected.
      if (error instanceof KvError) return storeTrouble;
      throw error;
    },
  );
  const answer = await world.heard(conversation, patienceMs);
  if (answer && 'error' in answer) {
    story.violate('unforeseen', `${node.name}: accepting ${token} failed: ${describe(answer.error)}`, [token, node.name]);
    submission.state = 'unheard';
  } else if (!answer || node.isDead) submission.state = 'unheard';
  else submission.state = answer.value.code === 250 ? 'acknowledged' : 'refused';
  const said = answer && 'value' in answer ? `${answer.value.code} ${answer.value.text}` : 'nothing';
  story.tell('client', node.name, `${token}: ${submission.state}, ${said}`);
}

function someOf(random: SeededRandom, count: number): number[] {
  const all = Array.from({ length: count }, (_, at) => at);
  return random.shuffled(all).slice(0, 2 + random.below(count - 1));
}

/** One transaction of a session, as the SMTP server holds it with the node's handler. Answers the reply that ended it. */
async function converse(
  node: SimulatedNode,
  accountId: string,
  from: string,
  recipients: readonly string[],
  body: Buffer,
  random: SeededRandom,
): Promise<Reply> {
  const { handler } = node.receiver;
  const session = sessionOf(node, accountId, from);
  const mail = { address: from, parameters: { smtpUtf8: false } };
  const refusal = (await handler.greet?.(session)) ?? (await handler.mailFrom(session, mail));
  if (refusal) return refusal;
  const envelope: Envelope = { mail, recipients: recipients.map((address) => ({ address, parameters: {} })) };
  for (const recipient of envelope.recipients) {
    const refused = await handler.rcptTo(session, mail, recipient);
    if (refused) return refused;
  }
  await node.clock.sleep(random.between(1, 30));
  const sink = await handler.data(session, envelope);
  if ('code' in sink) return sink;
  const middle = Math.floor(body.length / 2);
  for (const chunk of [body.subarray(0, middle), body.subarray(middle)]) {
    await sink.write(chunk);
    await node.clock.sleep(random.between(0.1, 5));
  }
  const reply = await sink.finish({ sizeBytes: body.length, normalised: false });
  return Array.isArray(reply) ? reply[0]! : reply;
}

function sessionOf(node: SimulatedNode, accountId: string, login: string): SessionInfo {
  return {
    id: 'simulated',
    mode: 'submission',
    remoteAddress: '198.51.100.1',
    remotePort: 40_000,
    localAddress: '203.0.113.1',
    localPort: 587,
    secure: true,
    tls: { protocol: 'TLSv1.3', cipher: 'TLS_AES_256_GCM_SHA384' },
    greetingName: 'client.test',
    extended: true,
    principal: { accountId, login, name: login },
    messageCount: 0,
    startedAtMs: node.clock.nowMs(),
    logger: silentLogger,
    local: undefined,
  };
}
