/** What must be true when everything has come to rest: nothing lost, nothing doubled without a reason, nothing left over, and all of one mind. */

import { silentLogger } from '../../ops/telemetry/index.js';
import { checkStore } from '../../store/transfer/index.js';
import { placeOf, type Submission } from './ledger.js';
import type { SimulatedNode } from './node.js';
import type { RemoteCopy } from './remote-hosts.js';
import type { World } from './world.js';

/** Why the run has not come to rest yet; undefined when it has. */
export function unrest(world: World): string | undefined {
  const { watch, alive } = world;
  const { due, claimed } = watch.unfinished;
  if (claimed > 0 || due > 0) return `${claimed} destinations are claimed and ${due} due`;
  if (watch.queued.size > 0) return `${watch.queued.size} messages are in the queue`;
  const ids = alive.map(({ nodeId }) => nodeId).sort();
  const nameOf = (id: string) => world.node(id)?.name ?? id;
  for (const [what, set] of [
    ['rows', watch.rows],
    ['fences', watch.fences],
  ] as const) {
    if (!isSame([...set].sort(), ids))
      return `there are ${what} of ${[...set].map(nameOf).join(' ')}; alive are ${ids.map(nameOf).join(' ')}`;
  }
  for (const node of alive) {
    if (node.stage !== 'serving') return `${node.name} is ${node.stage}`;
    if (node.membership.standing !== 'joined') return `${node.name} is ${node.membership.standing}`;
    if (!isSame(node.membership.members(), ids))
      return `${node.name} takes ${node.membership.members().map(nameOf).join(' ')} for the members`;
    if (node.runner.size > 0) return `${node.name} has ${node.runner.size} deliveries in hand`;
    const doubted = node.membership.nodes().find(({ verdict }) => verdict !== 'alive');
    if (doubted) return `${node.name} takes ${nameOf(doubted.nodeId)} for ${doubted.verdict}`;
  }
  for (const [job, { holder }] of watch.leases)
    if (!ids.includes(holder)) return `${job} is held by ${holder === '' ? 'nobody' : nameOf(holder)}`;
  return undefined;
}

const isSame = (one: readonly string[], other: readonly string[]): boolean =>
  one.length === other.length && one.every((item, at) => item === other[at]);

export interface Counts {
  submitted: number;
  acknowledged: number;
  /** Copies that remote hosts have beyond the first, each with a reason. */
  remoteDoubles: number;
  expunged: number;
  flags: number;
}

export async function lastChecks(world: World): Promise<Counts> {
  const { ledger } = world;
  const counts: Counts = {
    submitted: ledger.submissions.size,
    acknowledged: ledger.acknowledged.length,
    remoteDoubles: 0,
    expunged: ledger.gone.size,
    flags: 0,
  };
  const boxes = await readMailboxes(world);
  for (const submission of ledger.submissions.values()) counts.remoteDoubles += checkSubmission(world, submission, boxes);
  counts.flags = checkPlaces(world, boxes);
  for (const accountId of world.accounts) {
    const { differences } = await world.eye.mail.recount(accountId);
    for (const difference of differences) world.story.violate('recount', `${accountId}: ${difference}`, [accountId]);
  }
  await checkIndexes(world, boxes);
  await checkWholeStore(world);
  return counts;
}

interface Box {
  mailboxId: string;
  /** By UID: content and keywords. */
  messages: Map<number, { blobId: string; keywords: readonly string[] }>;
}

/** By account: its INBOX. */
async function readMailboxes(world: World): Promise<Map<string, Box>> {
  const { mail } = world.eye;
  const boxes = new Map<string, Box>();
  for (const accountId of world.accounts) {
    const inbox = (await mail.mailboxByPath(accountId, ['INBOX']))!;
    const mailboxId = inbox.mailbox.id;
    const entries = await mail.entries(accountId, mailboxId);
    const ids = entries.map(({ emailId }) => emailId);
    const messages = await mail.messages(accountId, ids);
    const box: Box = { mailboxId, messages: new Map() };
    entries.forEach(({ uid, keywords }, at) => {
      const message = messages[at];
      if (message) box.messages.set(uid, { blobId: message.blobId, keywords });
      else world.story.violate('entry-without-message', `UID ${uid} of ${accountId}/${mailboxId}`, [accountId]);
    });
    boxes.set(accountId, box);
  }
  return boxes;
}

/** Answers the copies beyond the first that remote hosts have of it. */
function checkSubmission(world: World, submission: Submission, boxes: ReadonlyMap<string, Box>): number {
  const { story, ledger, watch, remote } = world;
  const { token, local, state } = submission;
  const isAcknowledged = state === 'acknowledged';
  const blobId = ledger.blobOf(token);
  for (const accountId of local) {
    // Whoever expunged it saw it first; that nothing else goes away is judged with each commit.
    const hasCome = blobId !== undefined && watch.mail.hasSeen(accountId, blobId);
    if (isAcknowledged && !hasCome)
      story.violate('lost', `${token}, acknowledged by ${submission.node}, is not in ${accountId}`, [token]);
  }
  if (isAcknowledged && blobId !== undefined && local.length > 0) checkReadable(world, blobId, token, boxes);
  let doubles = 0;
  for (const address of submission.remote) {
    const name = `${token} ${address}`;
    const copies = remote.copies.get(name) ?? [];
    if (isAcknowledged && copies.length === 0 && !remote.refused.has(name))
      story.violate('lost', `${token}, acknowledged by ${submission.node}, never came to ${address}`, [token]);
    if (copies.length > 1) doubles += checkDoubles(world, name, token, copies);
  }
  return doubles;
}

function checkReadable(world: World, blobId: string, token: string, boxes: ReadonlyMap<string, Box>): void {
  const isKept = [...boxes.values()].some(({ messages }) => [...messages.values()].some((message) => message.blobId === blobId));
  if (isKept) world.toBeRead.set(blobId, token);
}

/** A copy may follow another one when nobody could know of that: the host had hung up, or the sender came to no save any more. */
function checkDoubles(world: World, name: string, token: string, copies: readonly RemoteCopy[]): number {
  const hasExcuse = ({ by, isUnsaid }: RemoteCopy) =>
    isUnsaid || (world.nodes.find((node) => node.name === by)?.hasBeenCutOff ?? true);
  const excused = copies.filter(hasExcuse).length;
  if (excused < copies.length - 1) {
    const told = copies.map(({ atMs, by, isUnsaid }) => `${by} at ${atMs.toFixed(0)}${isUnsaid ? ' unsaid' : ''}`).join(', ');
    world.story.violate('remote-double', `${name} was sent again without a reason: ${told}`, [token]);
  }
  return copies.length - 1;
}

/** What clients appended is there, and what they know of flags is so. Answers how many flags were compared. */
function checkPlaces(world: World, boxes: ReadonlyMap<string, Box>): number {
  const { ledger, story } = world;
  const isWanted = (place: string) => !ledger.unwanted.has(place);
  const at = (place: string) => {
    const [accountId, , uid] = place.split('/') as [string, string, string];
    return boxes.get(accountId)?.messages.get(Number(uid));
  };
  for (const { accountId, mailboxId, uid } of ledger.appended) {
    const place = placeOf(accountId, mailboxId, uid);
    if (isWanted(place) && !at(place)) story.violate('lost', `what was appended as ${place} is gone`, [place]);
  }
  for (const place of ledger.gone) if (at(place)) story.violate('expunged-again-there', `${place} was expunged`, [place]);
  let compared = 0;
  for (const [place, flags] of ledger.flags) {
    const message = at(place);
    if (!message && isWanted(place)) story.violate('lost', `the flagged message ${place} is gone`, [place]);
    for (const [keyword, isSet] of message ? flags : []) {
      if (isSet === 'never') continue;
      compared++;
      if (message!.keywords.includes(keyword) !== isSet)
        story.violate('flag-lost', `${place} ${isSet ? 'lacks' : 'still has'} ${keyword}`, [place, keyword]);
    }
  }
  return compared;
}

/** Every node's own view of a mailbox, brought up to date, is what the store holds. */
async function checkIndexes(world: World, boxes: ReadonlyMap<string, Box>): Promise<void> {
  const check = async (node: SimulatedNode, accountId: string, { mailboxId, messages }: Box) => {
    const index = await node.parts.mail.openIndex(accountId, mailboxId);
    await index.refresh();
    const uids = index.uids();
    const isRight = uids.length === messages.size && uids.every((uid) => messages.has(uid));
    if (!isRight)
      world.story.violate('index', `${node.name} sees ${uids.length} messages in ${accountId}, there are ${messages.size}`, [
        accountId,
      ]);
    index.release();
  };
  const checks = world.alive.flatMap((node) => [...boxes].map(([accountId, box]) => check(node, accountId, box)));
  let isDone = false;
  void Promise.all(checks).then(() => {
    isDone = true;
  });
  await world.time.until(() => isDone, 30_000);
}

/** Links, records and counters of the whole store fit, and every content that is wanted can be read. */
async function checkWholeStore(world: World): Promise<void> {
  const { kv, blobs } = world.eye;
  for (const [blobId, token] of world.toBeRead) {
    const content = await blobs.read(blobId).catch((error: unknown) => String(error));
    if (typeof content === 'string') world.story.violate('lost', `the content of ${token} can't be read: ${content}`, [token]);
  }
  const { findings } = await checkStore({ kv, blobs, clock: world.clock, logger: silentLogger });
  for (const { area, where, problem } of findings) world.story.violate('store-check', `${area}: ${where}: ${problem}`);
}
