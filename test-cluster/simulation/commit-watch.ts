/**
 * Judges every commit the moment it is made: fences, claims, leases and what is done under them. It keeps a small picture of its own of what stands in the
 * store, and knows from the author of a commit who has no right to it.
 */
import { unpack } from 'msgpackr';
import { subspace } from '../../store/keyspace.js';
import type { Destination } from '../../store/queue/contract.js';
import { decodeDestination } from '../../store/queue/records.js';
import { MailWatch } from './mail-watch.js';
import type { Commit, Write } from './observed-database.js';
import type { Story } from './story.js';

/** Subspace of what the simulated jobs do; outside of every real one. */
export const effectSpace = 99;

/** What a job writes for each step that it has done. */
export interface Effect {
  nodeId: string;
  epoch: number;
}

export interface LeaseRow {
  holder: string;
  epoch: number;
}

export interface CommitWatchOptions {
  story: Story;
  /** Name of a node in the story. */
  nameOf(nodeId: string): string;
  /** Id of the node whose store has this name; undefined for the simulator's own. */
  idOf(author: string): string | undefined;
  /** A fence was broken by another node than its own. */
  onVerdict(deadId: string, by: string): void;
}

interface DestinationState {
  destination?: Destination;
  /** The due times (s) under which it stands in a shard. */
  due: Set<number>;
  /** Ids of nodes whose claim entries name it. */
  claims: Set<string>;
  highestEpoch: number;
}

export class CommitWatch {
  readonly fences = new Set<string>();
  readonly rows = new Set<string>();
  readonly leases = new Map<string, LeaseRow>();
  readonly destinations = new Map<string, DestinationState>();
  readonly queued = new Set<string>();
  readonly effects = new Map<string, number>();
  readonly mail: MailWatch;
  /** Ids of nodes that another one has declared dead. */
  readonly fenced = new Set<string>();
  /** Holders of each epoch of each job. */
  readonly #holders = new Map<string, string>();
  readonly #o: CommitWatchOptions;
  commits = 0;

  constructor(options: CommitWatchOptions) {
    this.#o = options;
    this.mail = new MailWatch(options.story);
  }

  /** Claims of these nodes, and what is due, as the store has it. */
  get unfinished(): { due: number; claimed: number } {
    let due = 0;
    let claimed = 0;
    for (const state of this.destinations.values()) {
      due += state.due.size;
      claimed += state.claims.size;
    }
    return { due, claimed };
  }

  committed(commit: Commit): void {
    const { story } = this.#o;
    this.commits++;
    story.mix(`${commit.version}|${commit.author}|${commit.writes.length}`);
    const authorId = this.#o.idOf(commit.author);
    // As it was before this commit: a node may break its own fence and free its claims, but never the other way about.
    const hasFence = authorId === undefined || this.fences.has(authorId);
    const touched = new Map<string, { state: DestinationState; before: Destination | undefined }>();
    const mail: Write[] = [];
    for (const write of commit.writes) {
      const [space] = write.parts;
      if (space === subspace.mail) mail.push(write);
      else if (space === subspace.node) this.#node(commit, write, authorId, hasFence);
      else if (space === subspace.queue) this.#queue(write, touched);
    }
    // After the leases that stand in the same commit.
    for (const write of commit.writes) if (write.parts[0] === effectSpace) this.#effect(commit, write, authorId);
    for (const [ref, { state, before }] of touched) this.#judge(commit, ref, state, before, authorId, hasFence);
    if (mail.length > 0) this.mail.committed(commit, mail);
  }

  #node(commit: Commit, { parts, value }: Write, authorId: string | undefined, hasFence: boolean): void {
    const { story, nameOf } = this.#o;
    const [, kind, id] = parts as [number, string, string];
    if (kind === 'row') {
      if (value) {
        if (this.fenced.has(id) || (!hasFence && this.rows.has(id)))
          story.violate('fenced-node-acts', `${commit.author} wrote the row of ${nameOf(id)}, whose fence is broken`, [
            nameOf(id),
          ]);
        this.rows.add(id);
      } else this.rows.delete(id);
    } else if (kind === 'fence') {
      if (value) {
        if (this.fenced.has(id)) story.violate('fence-again', `the fence of ${nameOf(id)} was raised again`, [nameOf(id)]);
        this.fences.add(id);
      } else if (this.fences.delete(id)) {
        if (authorId === id) story.tell('node', commit.author, 'has left');
        else {
          this.fenced.add(id);
          story.tell('verdict', commit.author, `declares ${nameOf(id)} dead`);
          if (!hasFence)
            story.violate('fenced-node-acts', `${commit.author}, itself fenced, declared ${nameOf(id)} dead`, [commit.author]);
          this.#o.onVerdict(id, commit.author);
        }
      }
    } else if (kind === 'lease') this.#lease(commit, id, value, authorId, hasFence);
  }

  #lease(commit: Commit, job: string, value: Buffer | undefined, authorId: string | undefined, hasFence: boolean): void {
    const { story, nameOf } = this.#o;
    if (!value) {
      story.violate('lease-removed', `${commit.author} removed the lease ${job}`, [job]);
      return;
    }
    const [, holder, epoch] = unpack(value) as [number, string, number];
    const before = this.leases.get(job);
    this.leases.set(job, { holder, epoch });
    if (before && epoch < before.epoch)
      story.violate('epoch-descends', `the epoch of ${job} went from ${before.epoch} to ${epoch}`, [job]);
    if (holder === '') {
      if (before?.holder !== '') story.tell('lease', commit.author, `gives back ${job}, epoch ${epoch}`);
      return;
    }
    if (holder === authorId && !hasFence)
      story.violate('fenced-node-acts', `${commit.author}, whose fence is broken, wrote the lease ${job}`, [commit.author, job]);
    const name = `${job}/${epoch}`;
    const known = this.#holders.get(name);
    if (known === undefined) {
      this.#holders.set(name, holder);
      story.tell('lease', nameOf(holder), `takes ${job}, epoch ${epoch}`);
    } else if (known !== holder) {
      const text = `epoch ${epoch} of ${job} has been held by ${nameOf(known)} and by ${nameOf(holder)}`;
      story.violate('two-holders', text, [job, nameOf(known), nameOf(holder)]);
    } else if (before?.holder === '') {
      story.violate('epoch-taken-again', `${nameOf(holder)} took ${job} back without a new epoch`, [job]);
    }
  }

  /** Steps are done once, in their order, by whoever holds the job then. */
  #effect(commit: Commit, { parts, value }: Write, authorId: string | undefined): void {
    const { story, nameOf } = this.#o;
    const [, kind, job, step] = parts as [number, string, string, number];
    if (kind !== 'effect' || !value) return;
    const effect = unpack(value) as Effect;
    const lease = this.leases.get(job);
    const about = [job, commit.author];
    if (lease?.holder !== effect.nodeId || lease.epoch !== effect.epoch) {
      const held = lease ? `${nameOf(lease.holder)} holds epoch ${lease.epoch}` : 'nobody holds it';
      story.violate('fenced-effect', `step ${step} of ${job} by ${commit.author} in epoch ${effect.epoch}, while ${held}`, about);
    }
    if (effect.nodeId !== authorId) story.violate('forged-effect', `step ${step} of ${job} names another node`, about);
    const done = this.effects.get(job) ?? 0;
    if (step !== done + 1) story.violate('step-out-of-turn', `step ${step} of ${job} after step ${done}`, about);
    this.effects.set(job, step);
  }

  #queue(write: Write, touched: Map<string, { state: DestinationState; before: Destination | undefined }>): void {
    const { parts, value } = write;
    const [, kind] = parts as [number, string];
    if (kind === 'message') {
      if (value) this.queued.add(parts[2] as string);
      else this.queued.delete(parts[2] as string);
      return;
    }
    const at = kind === 'destination' ? 2 : kind === 'claim' ? 3 : kind === 'due' ? 4 : 0;
    if (at === 0) return;
    const [queueId, domain, part] = parts.slice(at) as [string, string, number];
    const ref = `${queueId}/${domain}/${part}`;
    let entry = touched.get(ref);
    if (!entry) {
      let state = this.destinations.get(ref);
      if (!state) this.destinations.set(ref, (state = { due: new Set(), claims: new Set(), highestEpoch: 0 }));
      touched.set(ref, (entry = { state, before: state.destination }));
    }
    const { state } = entry;
    if (kind === 'destination') state.destination = value && decodeDestination({ queueId, domain, part }, value);
    else if (kind === 'claim') value ? state.claims.add(parts[2] as string) : state.claims.delete(parts[2] as string);
    else value ? state.due.add(parts[3] as number) : state.due.delete(parts[3] as number);
  }

  /** A destination is due or claimed, never both; and only who holds a claim, with its fence standing, may save under it. */
  #judge(
    commit: Commit,
    ref: string,
    state: DestinationState,
    before: Destination | undefined,
    authorId: string | undefined,
    hasFence: boolean,
  ): void {
    const { story } = this.#o;
    const now = state.destination;
    const about = [ref.slice(0, ref.indexOf('/')), commit.author];
    const claims = [...state.claims];
    const isRight = !now
      ? state.due.size === 0 && claims.length === 0
      : now.state === 'claimed'
        ? state.due.size === 0 && claims.length === 1 && claims[0] === now.claim?.nodeId
        : state.due.size === 1 && state.due.has(now.dueAtSeconds) && claims.length === 0;
    if (!isRight) {
      const told = `${now ? now.state : 'gone'}, with ${state.due.size} due entries and claims of [${claims.map(this.#o.nameOf).join(' ')}]`;
      story.violate('due-xor-claimed', `after a commit of ${commit.author} ${ref} is ${told}`, about);
    }
    if (now && now.epoch < state.highestEpoch)
      story.violate('claim-epoch-descends', `the epoch of ${ref} went from ${state.highestEpoch} to ${now.epoch}`, about);
    state.highestEpoch = Math.max(state.highestEpoch, now?.epoch ?? 0);
    if (before?.claim) this.#judgeClaimant(commit, ref, before, now, authorId, hasFence, about);
    if (now?.state === 'claimed' && before?.state !== 'claimed') {
      const claimant = now.claim!.nodeId;
      if (!this.fences.has(claimant))
        story.violate('fenced-node-acts', `${commit.author} claimed ${ref}, although its fence is broken`, about);
      story.tell('commit', commit.author, `claims ${ref}, epoch ${now.epoch}`);
    }
    if (!now) this.destinations.delete(ref);
  }

  #judgeClaimant(
    commit: Commit,
    ref: string,
    before: Destination,
    now: Destination | undefined,
    authorId: string | undefined,
    hasFence: boolean,
    about: string[],
  ): void {
    const { story, nameOf } = this.#o;
    const claimant = before.claim!.nodeId;
    const isFreed = now !== undefined && now.state === 'due' && now.epoch > before.epoch && unchanged(before, now);
    if (claimant === authorId) {
      if (hasFence) story.tell('commit', commit.author, now ? `saves ${ref}: ${now.state}` : `is done with ${ref}`);
      else if (isFreed) story.tell('commit', commit.author, `frees ${ref}, epoch ${now.epoch}`);
      else story.violate('fenced-save', `${commit.author}, whose fence is broken, saved ${ref}`, about);
      return;
    }
    story.tell('commit', commit.author, `frees ${ref}, a claim of ${nameOf(claimant)}, epoch ${now?.epoch ?? 'none'}`);
    if (this.fences.has(claimant))
      story.violate('claim-taken-away', `${commit.author} took ${ref} from ${nameOf(claimant)}, whose fence stands`, about);
    else if (!isFreed)
      story.violate('claim-taken-away', `${commit.author} did more than free ${ref} of ${nameOf(claimant)}`, about);
  }
}

function unchanged(before: Destination, now: Destination): boolean {
  return (
    before.recipients.length === now.recipients.length &&
    before.recipients.every(({ status }, i) => status === now.recipients[i]?.status)
  );
}
