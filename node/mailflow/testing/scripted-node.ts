/** A test node whose stages are made of settings, with scripts among them; what its sessions log is kept. */
import pino from 'pino';
import { systemRandom } from '../../../ops/telemetry/index.js';
import { MemoryDatabase, openMemoryStore } from '../../../store/kv/index.js';
import { createLookups } from '../../../store/lookups/index.js';
import { createHistory } from '../../../store/queue/history.js';
import { createSealer, openSettings } from '../../../store/settings/index.js';
import { liveAcceptStages } from '../../settings/accept.js';
import { settingsRegistry } from '../../settings/sections.js';
import type { ReceiverDependencies } from '../index.js';
import { type Dialog, type DialogOptions, startDialog } from './dialog.js';
import { ShiftedClock, startTestNode, type TestNode } from './node.js';

type Row = Record<string, unknown>;

export interface ScriptedOptions {
  /** Stage → what `accept.STAGE.script` is set to. */
  at: Record<string, unknown>;
  /** Name → text. */
  sieve: Record<string, string>;
  /** More of the section `scripts`. */
  scripts?: Record<string, unknown>;
  /** Other sections, or more of `accept.STAGE`. */
  sections?: Record<string, Record<string, unknown>>;
  receiver?: Partial<ReceiverDependencies>;
  /** When false, what is queued stays there. */
  isRunning?: boolean;
}

/** What settings hold, to be changed as a whole. */
export function scriptSections({ at, sieve, scripts, sections = {} }: ScriptedOptions): Record<string, unknown> {
  const { accept = {}, ...others } = sections;
  const stages = new Set([...Object.keys(at), ...Object.keys(accept)]);
  const steps = [...stages].map((stage) => [stage, { ...(accept[stage] as object), ...(stage in at && { script: at[stage] }) }]);
  return { ...others, accept: Object.fromEntries(steps), scripts: { ...scripts, sieve } };
}

/** `alice@` and `bob@example.test` have accounts; alice's password is `wonderland`. */
export async function startScriptedNode(options: ScriptedOptions) {
  const kv = openMemoryStore({ database: new MemoryDatabase() });
  const clock = new ShiftedClock();
  const log: Row[] = [];
  const logger = pino({ level: 'debug' }, { write: (line: string) => void log.push(JSON.parse(line) as Row) });
  const parts = { kv, clock, random: systemRandom, logger };
  const sealer = createSealer([Buffer.alloc(32, 1)], systemRandom);
  const settings = await openSettings({ ...parts, sealer, registry: settingsRegistry });
  const change = (to: ScriptedOptions) => settings.change({ replace: scriptSections(to) }, { who: 'tester' });
  await change(options);
  const lookups = createLookups(parts);
  const history = createHistory({ kv });
  const stages = liveAcceptStages(settings, { logger, clock });
  const receiver = { stages, lookups, history, logger, ...options.receiver };
  const node: TestNode = await startTestNode({ kv, clock, isDirect: true, receiver, isRunning: options.isRunning });
  const alice = await node.account('alice@example.test', { password: 'wonderland' });
  const bob = await node.account('bob@example.test');
  const dialogs: Dialog[] = [];
  return {
    node,
    kv,
    clock,
    lookups,
    alice,
    bob,
    change,
    /** Lines of sessions and of the receiver. */
    log,
    /** A session that has said EHLO. */
    async talk({ helo = 'client.test', ...more }: Partial<DialogOptions> & { helo?: string } = {}): Promise<Dialog> {
      const dialog = await startDialog({ handler: node.receiver.handler, clock, logger, ...more });
      dialogs.push(dialog);
      if (dialog.greeting.startsWith('220')) await dialog.say(`${more.mode === 'lmtp' ? 'LHLO' : 'EHLO'} ${helo}`);
      return dialog;
    },
    /** The first event of the message that this answer is about. */
    async accepted(answer: string) {
      const id = /queued as ([a-z0-9]+)/.exec(answer)![1]!;
      return (await kv.read((reads) => history.read(reads, id)))[0]?.event;
    },
    async close() {
      for (const dialog of dialogs) await dialog.close();
      await node.close();
      await settings.close();
    },
  };
}

export type ScriptedNode = Awaited<ReturnType<typeof startScriptedNode>>;
