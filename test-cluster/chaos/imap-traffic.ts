/**
 * IMAP sessions on every node. One kind appends to a mailbox of its own and changes flags there; the other marks messages of a shared INBOX, into which mail
 * is being delivered, with a keyword of its own. What was acknowledged is remembered, and what the server says of UIDs and MODSEQ is written down.
 */
import type { Append, FlagChange } from '../checker/history.js';
import { ImapDialog } from '../harness/imap-dialog.js';
import { tokenMessage } from '../harness/smtp-load.js';
import { Pace, type Target, within } from './pace.js';
import type { Recorder } from './recorder.js';
import type { TrafficOptions } from './smtp-traffic.js';

const answerTimeoutMs = 5_000;
const messageBytes = 600;
const accounts = ['alice', 'bob', 'admin'] as const;
const ownFlags = ['\\Flagged', '\\Seen', '$Chaos'];
const rememberedUids = 50;

/** Throws when the answer to STATUS lacks it. */
export function statusValue(answer: string, name: string): number {
  const digits = new RegExp(`^\\* STATUS [^\\r\\n]*\\b${name} (\\d+)`, 'm').exec(answer)?.[1];
  if (digits === undefined) throw new Error(`STATUS without ${name}: ${answer.slice(0, 200)}`);
  return Number(digits);
}

interface Worker {
  name: string;
  account: string;
  mailbox: string;
  isOwner: boolean;
}

/** Resolves when the signal has come and every worker has ended. */
export async function runImapTraffic(options: TrafficOptions): Promise<void> {
  const workers = options.homes.flatMap((home) => {
    const account = accounts[home % accounts.length]!;
    return [
      { home, name: `i${home}`, account, mailbox: `Chaos-${home}`, isOwner: true },
      { home, name: `k${home}`, account, mailbox: 'INBOX', isOwner: false },
    ];
  });
  const intervalMs = (workers.length * 1000) / options.perSecond;
  await Promise.all(
    workers.map(({ home, ...worker }) =>
      new ImapWorker(options, worker, new Pace(home, options.nodes, intervalMs, options.signal)).run(),
    ),
  );
}

class ImapWorker {
  #open: { dialog: ImapDialog; node: number } | undefined;
  /** Of messages that are known to be in the mailbox. */
  #uids: number[] = [];
  #turn = 0;

  constructor(
    private readonly options: TrafficOptions,
    private readonly worker: Worker,
    private readonly pace: Pace,
  ) {}

  get #recorder(): Recorder {
    return this.options.recorder;
  }

  async run(): Promise<void> {
    for (; !this.pace.isOver; this.#turn++) {
      await this.pace.turn(this.options.random);
      const target = this.pace.target();
      if (this.#open?.node !== target.index) this.#close();
      try {
        this.#open ??= { dialog: await this.#connect(target), node: target.index };
        await this.#act();
      } catch (error) {
        this.#close();
        if (this.pace.isOver) break;
        this.#recorder.failed(target.index, 'IMAP', error);
        await this.pace.detour();
      }
    }
    this.#close();
  }

  #close(): void {
    this.#open?.dialog.close();
    this.#open = undefined;
  }

  async #connect(target: Target): Promise<ImapDialog> {
    const { account, mailbox, isOwner } = this.worker;
    const { password } = this.options;
    const connecting = ImapDialog.connect(target.port('imaps'), `${account}@example.test`, password, target.host);
    // One that comes too late has nobody to close it.
    let isLate = false;
    connecting.then((dialog) => isLate && dialog.close()).catch(() => undefined);
    const dialog = await within(answerTimeoutMs, connecting).catch((error: unknown) => {
      isLate = true;
      throw error;
    });
    try {
      if (isOwner) {
        const creating = dialog.command(`CREATE ${mailbox}`);
        await within(answerTimeoutMs, creating).catch((error: Error) => {
          if (!/ALREADYEXISTS|exists/i.test(error.message)) throw error;
        });
      }
      const selected = (await within(answerTimeoutMs, dialog.command(`SELECT ${mailbox}`))).toString('latin1');
      const uidNext = Number(/\[UIDNEXT (\d+)\]/.exec(selected)?.[1] ?? 1);
      // Nothing is ever expunged: every UID below is there.
      if (!isOwner) this.#uids = Array.from({ length: Math.min(rememberedUids, uidNext - 1) }, (_, index) => uidNext - 1 - index);
      return dialog;
    } catch (error) {
      dialog.close();
      throw error;
    }
  }

  async #command(text: string): Promise<string> {
    const { dialog, node } = this.#open!;
    const bytes = await within(answerTimeoutMs, dialog.command(text));
    this.#recorder.acknowledged(node, 'IMAP');
    return bytes.toString('latin1');
  }

  async #act(): Promise<void> {
    const step = this.#turn % 4;
    if (step === 3) return this.#observe();
    if (this.worker.isOwner && (step === 0 || this.#uids.length === 0)) return this.#append();
    if (this.#uids.length > 0) return this.#store();
    // An INBOX that was empty when it was opened: look again.
    this.#close();
  }

  async #append(): Promise<void> {
    const { account, mailbox, name } = this.worker;
    const append: Append = { account, mailbox, token: `${name}x${this.#turn}`, startedMs: this.#recorder.nowMs() };
    const message = tokenMessage(append.token, messageBytes);
    this.#recorder.appends.push(append);
    const answer = await this.#command(`APPEND ${mailbox} {${message.length}+}\r\n${message.toString('latin1')}`);
    append.acknowledgedMs = this.#recorder.nowMs();
    const [, uidValidity, uid] = /\[APPENDUID (\d+) (\d+)\]/.exec(answer) ?? [];
    if (uid === undefined) return;
    append.uidValidity = Number(uidValidity);
    append.uid = Number(uid);
    this.#uids = [...this.#uids.slice(1 - rememberedUids), append.uid];
  }

  async #store(): Promise<void> {
    const { account, mailbox, name, isOwner } = this.worker;
    const { random } = this.options;
    const uid = this.#uids[Math.floor(random() * this.#uids.length)]!;
    const flag = isOwner ? ownFlags[Math.floor(random() * ownFlags.length)]! : `$Marked-${name}`;
    const isSet = random() < 0.6;
    const change: FlagChange = { account, mailbox, uid, flag, isSet, startedMs: this.#recorder.nowMs() };
    this.#recorder.flagChanges.push(change);
    await this.#command(`UID STORE ${uid} ${isSet ? '+' : '-'}FLAGS (${flag})`);
    change.acknowledgedMs = this.#recorder.nowMs();
  }

  async #observe(): Promise<void> {
    const { account, mailbox } = this.worker;
    const startedMs = this.#recorder.nowMs();
    const answer = await this.#command(`STATUS ${mailbox} (UIDVALIDITY UIDNEXT HIGHESTMODSEQ)`);
    const value = (name: string) => statusValue(answer, name);
    this.#recorder.observations.push({
      account,
      mailbox,
      node: this.#open!.node,
      startedMs,
      endedMs: this.#recorder.nowMs(),
      uidValidity: value('UIDVALIDITY'),
      uidNext: value('UIDNEXT'),
      highestModseq: value('HIGHESTMODSEQ'),
    });
  }
}
