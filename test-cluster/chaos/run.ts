/** One scenario from beginning to end: a cluster, traffic, the faults, rest, and the verdict. */
import { setMaxListeners } from 'node:events';
import { existsSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { History, RemoteCopy } from '../checker/history.js';
import { judge, type Verdict } from '../checker/judge.js';
import { ChaosCluster } from '../harness/chaos-cluster.js';
import { type ChaosNode, hostnameOf, type Life } from '../harness/chaos-node.js';
import type { Network } from '../harness/network.js';
import { repositoryRoot } from '../harness/node-process.js';
import { Sink, type SinkCopy } from '../harness/sink.js';
import { checkStore, readAllMailboxes, settle } from './collect.js';
import { runImapTraffic } from './imap-traffic.js';
import { Recorder, type TimelineEntry } from './recorder.js';
import { runSmtpTraffic } from './smtp-traffic.js';
import { type Need, type Scenario, Stage } from './stage.js';
import { logListener, watchNode, watchStore } from './watch.js';

export interface RunOptions {
  harness: Network['kind'];
  nodes: number;
  /** How long the load lasts; the scenario has what is between a calm beginning and a calm end. */
  seconds: number;
  seed: number;
  /** Root of the built checkout that `startsOld` scenarios start from. */
  from?: string;
  mailPerSecond?: number;
  imapPerSecond?: number;
  /** What the nodes have logged is kept also where nothing is wrong. */
  keepsLogs?: boolean;
  /** Breaks the run off; everything is taken down. */
  signal: AbortSignal;
}

export interface RunResult {
  scenario: string;
  seed: number;
  harness: Network['kind'];
  verdict: Verdict;
  timeline: TimelineEntry[];
  /** From the end of the last fault until every node took mail again; undefined without faults. */
  recoveryMs: number | undefined;
  messages: number;
  /** Folder with what the nodes have logged, where it was kept. */
  logs: string | undefined;
}

const usualMailPerSecond = 60;
const usualImapPerSecond = 30;
const restAfterFaultsMs = 2_000;
const supervisorPauseMs = 1_000;
const maxRecoveryMs = 45_000;
const maxCalmMs = 30_000;

/** From 0 up to 1, the same for the same seed (mulberry32). */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const libraryFolders = ['/usr/lib/x86_64-linux-gnu', '/usr/lib/aarch64-linux-gnu', '/usr/lib', '/usr/local/lib'];
const fakeTime = () => libraryFolders.map((folder) => `${folder}/faketime/libfaketimeMT.so.1`).find((path) => existsSync(path));

/** The wall clock of a process; intervals are left alone, as on a machine whose date is wrong. */
const clockEnv = (offset: string): NodeJS.ProcessEnv => ({
  LD_PRELOAD: fakeTime(),
  FAKETIME: offset,
  FAKETIME_DONT_FAKE_MONOTONIC: '1',
});

/** Why this scenario can't be played here; undefined when it can. */
export function missingFor({ needs = [] }: Scenario, harness: Network['kind']): string | undefined {
  const lacks: Record<Need, string | undefined> = {
    'cut-peers': harness === 'namespaces' ? undefined : 'needs network namespaces',
    'wrong-clock': fakeTime() ? undefined : 'needs faketime',
    'small-disk': process.getuid?.() === 0 ? undefined : 'needs root to mount a small disk',
  };
  return needs.map((need) => lacks[need]).find((lack) => lack !== undefined);
}

/** Retries come soon, and all goes to the server outside. */
const clusterSettings = (host: string, port: number) =>
  [
    '[outbound]\nretryScheduleSeconds = [1, 2, 2, 3]',
    `[outbound.relay]\nhost = "${host}"\nport = ${port}\ntls = "none"`,
    '[directory]\nminPasswordCharacters = 1\n',
  ].join('\n');

/** Plays it and judges it. Throws when the cluster can't be started or read, or the run is broken off. */
export async function runScenario(scenario: Scenario, options: RunOptions): Promise<RunResult> {
  const { harness, seed, signal } = options;
  const recorder = new Recorder();
  const random = seededRandom(seed);
  let sink: Sink | undefined;
  const run: { stage?: Stage; cluster?: ChaosCluster; isOver: boolean } = { isOver: false };
  let logsTo: string | undefined;
  try {
    const cluster = await ChaosCluster.start({
      harness,
      nodes: options.nodes,
      ...(scenario.startsOld && options.from ? { checkout: options.from } : {}),
      async clusterSettings(host) {
        sink = await Sink.start({ host, random: seededRandom(seed + 1), nowMs: () => recorder.nowMs() });
        return clusterSettings(host, sink.port);
      },
      ...scenario.cluster?.({ clockEnv }),
      onLine: logListener(recorder),
      onEnd: (index, life) => supervise(run, recorder, index, life),
    });
    run.cluster = cluster;
    await cluster.startNodes();
    signal.throwIfAborted();
    recorder.note(`${cluster.nodes.length} nodes are ready`);
    const recoveryMs = await strikeUnderLoad(scenario, options, { cluster, recorder, random, run });
    await settle(cluster, recorder);
    run.isOver = true;
    signal.throwIfAborted();
    const views = await readAllMailboxes(cluster);
    await checkStore(cluster, recorder);
    const history = historyOf(recorder, cluster, sink!, views);
    const verdict = judge(history);
    verdict.violations.unshift(...recorder.violations);
    if (options.keepsLogs || verdict.violations.length > 0) logsTo = mkdtempSync(join(tmpdir(), 'starling-chaos-logs-'));
    return {
      scenario: scenario.name,
      seed,
      harness,
      verdict,
      timeline: recorder.timeline,
      recoveryMs,
      messages: recorder.sent.length,
      logs: logsTo,
    };
  } finally {
    run.isOver = true;
    await run.cluster?.remove(logsTo);
    await sink?.stop();
  }
}

/** Who ends by itself is started again, as by a supervisor; unless it was declared dead, that it ended is a violation. */
function supervise(
  run: { stage?: Stage; cluster?: ChaosCluster; isOver: boolean },
  recorder: Recorder,
  index: number,
  { end }: Life,
): void {
  const node = run.cluster?.nodes[index];
  if (run.isOver || !node || run.stage?.isWantedDown(index)) return;
  recorder.note(`node ${index} has ended by itself with ${end?.signal ?? end?.code}`);
  if (end?.code !== 1) recorder.violate('ended', `node ${index} ended with ${end?.signal ?? end?.code}`);
  setTimeout(() => {
    if (run.isOver || node.isRunning) return;
    node.start().then(
      () => recorder.note(`node ${index} is ready again`),
      (error: Error) => run.isOver || recorder.violate('not-started', error.message),
    );
  }, supervisorPauseMs);
}

interface Playing {
  cluster: ChaosCluster;
  recorder: Recorder;
  random(): number;
  run: { stage?: Stage };
}

/** Answers how long it took after the last fault until every node took mail again. */
async function strikeUnderLoad(scenario: Scenario, options: RunOptions, playing: Playing): Promise<number | undefined> {
  const { cluster, recorder, random, run } = playing;
  const loadOver = new AbortController();
  const watchOver = new AbortController();
  // Each worker that waits for its turn listens.
  setMaxListeners(0, loadOver.signal, watchOver.signal);
  const broken = () => loadOver.abort();
  options.signal.addEventListener('abort', broken, { once: true });
  const nameOf = (id: string) => cluster.nodes.find(({ lives }) => lives.some(({ nodeId }) => nodeId === id))?.index;
  const watches = [watchStore(cluster, recorder, watchOver.signal)];
  const watch = (node: ChaosNode) => void watches.push(watchNode(node, recorder, nameOf, watchOver.signal));
  for (const node of cluster.nodes) watch(node);
  const shared = { recorder, nodes: cluster.nodes, password: cluster.password, random, signal: loadOver.signal };
  const traffic: Promise<void>[] = [];
  const load = (homes: readonly number[], share: number) => {
    const mailPerSecond = (options.mailPerSecond ?? usualMailPerSecond) * share;
    const imapPerSecond = (options.imapPerSecond ?? usualImapPerSecond) * share;
    const begun = [
      runSmtpTraffic({ ...shared, homes, perSecond: mailPerSecond }),
      runImapTraffic({ ...shared, homes, perSecond: imapPerSecond }),
    ];
    for (const one of begun) one.catch(() => undefined); // judged below
    traffic.push(...begun);
  };
  const first = cluster.nodes.map(({ index }) => index);
  load(first, 1);
  const loadMs = options.seconds * 1000;
  const startedMs = recorder.nowMs();
  const stage = new Stage({
    cluster,
    recorder,
    random,
    strikeMs: loadMs * 0.6,
    signal: loadOver.signal,
    checkout: repositoryRoot,
    onJoin(node) {
      watch(node);
      load([node.index], 1 / first.length);
    },
  });
  run.stage = stage;
  try {
    await Promise.all([stage.pause(loadMs * 0.15), untilWorking(stage)]);
    try {
      await scenario.run(stage);
    } finally {
      await stage.undoAll();
    }
    const healedMs = recorder.nowMs();
    recorder.note('the faults are over');
    await stage.pause(Math.max(restAfterFaultsMs, startedMs + loadMs - recorder.nowMs()));
    const recovery = await untilRecovered(stage, healedMs);
    loadOver.abort();
    await Promise.all(traffic);
    recorder.note('the load is over');
    return recovery;
  } finally {
    loadOver.abort();
    await Promise.allSettled(traffic);
    watchOver.abort();
    await Promise.all(watches);
    options.signal.removeEventListener('abort', broken);
  }
}

/** A run whose traffic does not work in peace proves nothing. */
async function untilWorking(stage: Stage): Promise<void> {
  const { recorder, nodes } = stage;
  const isTaken = (index: number) =>
    recorder.sent.some(({ node, acknowledgedMs }) => node === index && acknowledgedMs !== undefined);
  const deadlineMs = recorder.nowMs() + maxCalmMs;
  for (;;) {
    const silent = nodes.filter(({ index }) => !isTaken(index));
    if (silent.length === 0) return;
    if (recorder.nowMs() > deadlineMs)
      throw new Error(`no mail was taken before the first fault by ${silent.map(({ index }) => `node ${index}`).join(', ')}`);
    await stage.pause(100);
  }
}

/** The load goes on until every node takes mail again. Answers how long after the last fault that was. */
async function untilRecovered(stage: Stage, healedMs: number): Promise<number | undefined> {
  const { recorder, nodes } = stage;
  while (recorder.nowMs() < healedMs + maxRecoveryMs) {
    const firsts = nodes.map(({ index }) =>
      recorder.acknowledgements.find(({ node, atMs }) => node === index && atMs >= healedMs),
    );
    const times = firsts.map((first) => first?.atMs).filter((atMs) => atMs !== undefined);
    if (times.length === nodes.length) return Math.round(Math.max(...times) - healedMs);
    await stage.pause(250);
  }
  recorder.violate('not-recovered', `not every node takes mail ${maxRecoveryMs / 1000} s after the last fault`);
  return undefined;
}

function historyOf(recorder: Recorder, cluster: ChaosCluster, sink: Sink, views: History['views']): History {
  const lives = cluster.nodes.flatMap(({ index, lives: all }) => all.map((life) => ({ ...life, node: index })));
  const numberOf = (name: string) => cluster.nodes.find(({ index }) => hostnameOf(index) === name)?.index;
  const remoteCopies = sink.copies.map(({ from, ...copy }: SinkCopy): RemoteCopy => ({ ...copy, node: numberOf(from) }));
  return {
    faults: recorder.faults,
    sent: recorder.sent,
    remoteCopies,
    disturbed: sink.disturbed,
    observations: recorder.observations,
    appends: recorder.appends,
    flagChanges: recorder.flagChanges,
    views,
    leases: recorder.leases,
    deaths: recorder.deaths(lives),
    acknowledgements: recorder.acknowledgements,
    nodes: cluster.nodes.map(({ index }) => index),
    loadUntilMs: Math.max(0, ...recorder.acknowledgements.map(({ atMs }) => atMs)),
  };
}

/** A moment's rest between two runs: what the last one has left on the machine's CPUs. */
export const restBetweenRuns = (): Promise<void> => sleep(1_000);
