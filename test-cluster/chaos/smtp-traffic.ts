/**
 * Mail to every node: unauthenticated to local recipients, one and several, and submitted to recipients outside. A message without its 250 is never sent
 * again: a double is always the cluster's doing.
 */
import type { Sent } from '../checker/history.js';
import { SmtpDialog, tokenMessage } from '../harness/smtp-load.js';
import { Pace, type Target } from './pace.js';
import type { Recorder } from './recorder.js';

const replyTimeoutMs = 5_000;
const messageBytes = 3_000;
const sender = 'alice@example.test';
const workersPerNode = { smtp: 2, submission: 2 } as const;

export interface TrafficOptions {
  recorder: Recorder;
  /** Grows when a node joins. */
  nodes: readonly Target[];
  /** Indexes of nodes to which traffic goes while they work. */
  homes: readonly number[];
  password: string;
  /** Of all workers together. */
  perSecond: number;
  random(): number;
  signal: AbortSignal;
}

/** Who gets message `turn` of a worker; recipients outside are of this message alone. */
const recipientsOf: Record<keyof typeof workersPerNode, (turn: number, token: string) => string[]> = {
  smtp: (turn) =>
    [
      ['alice@example.test'],
      ['alice@example.test', 'bob@example.test', 'admin@example.test'],
      ['bob@example.test'],
      ['bob@example.test', 'alice@example.test'],
    ][turn % 4]!,
  submission: (turn, token) =>
    [
      [`${token}.a@outside.test`],
      [`${token}.a@outside.test`, `${token}.b@outside.test`],
      [`${token}.a@outside.test`, 'bob@example.test'],
    ][turn % 3]!,
};

/** Resolves when the signal has come and every worker has ended. */
export async function runSmtpTraffic(options: TrafficOptions): Promise<void> {
  const kinds = Object.keys(workersPerNode) as (keyof typeof workersPerNode)[];
  const workers = options.homes.flatMap((home) =>
    kinds.flatMap((kind) => Array.from({ length: workersPerNode[kind] }, (_, number) => ({ home, kind, number }))),
  );
  const intervalMs = (workers.length * 1000) / options.perSecond;
  await Promise.all(
    workers.map(({ home, kind, number }) =>
      work(options, kind, `${kind[1]}${home}w${number}`, new Pace(home, options.nodes, intervalMs, options.signal)),
    ),
  );
}

async function work(options: TrafficOptions, kind: keyof typeof workersPerNode, name: string, pace: Pace): Promise<void> {
  const { recorder, random } = options;
  let open: { dialog: SmtpDialog; index: number } | undefined;
  for (let turn = 0; !pace.isOver; turn++) {
    await pace.turn(random);
    const target = pace.target();
    if (open?.index !== target.index) {
      open?.dialog.close();
      open = undefined;
    }
    try {
      open ??= { dialog: await connect(options, kind, target), index: target.index };
      await send(recorder, open.dialog, target.index, `${name}x${turn}`, recipientsOf[kind](turn, `${name}x${turn}`));
    } catch (error) {
      open?.dialog.close();
      open = undefined;
      if (pace.isOver) break;
      recorder.failed(target.index, 'SMTP', error);
      await pace.detour();
    }
  }
  open?.dialog.close();
}

function connect({ password }: TrafficOptions, kind: string, target: Target): Promise<SmtpDialog> {
  const { host } = target;
  if (kind === 'smtp') return SmtpDialog.connect(target.port('smtp'), { host, replyTimeoutMs });
  return SmtpDialog.connect(target.port('submissions'), { host, replyTimeoutMs, isTls: true, login: { user: sender, password } });
}

async function send(
  recorder: Recorder,
  dialog: SmtpDialog,
  node: number,
  token: string,
  recipients: readonly string[],
): Promise<void> {
  const sent: Sent = { token, node, recipients, startedMs: recorder.nowMs() };
  recorder.sent.push(sent);
  await dialog.send(sender, recipients, tokenMessage(token, messageBytes));
  sent.acknowledgedMs = recorder.acknowledged(node, 'SMTP');
}
