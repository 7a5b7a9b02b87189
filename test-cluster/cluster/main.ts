/** `npm run cluster`: several nodes on this machine on one shared store, in the foreground until SIGTERM or SIGINT. Exit codes: 0 drained, 1 failed, 2 usage. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { basePorts } from '../harness/node-process.js';
import { UsageError } from '../harness/usage.js';
import { type ClusterArguments, parseClusterArguments, usage } from './arguments.js';
import { clusterFileOf } from './cluster-file.js';
import { LocalCluster } from './local-cluster.js';

/** A signal to the process group comes twice: to npm, which passes it on, and to us. */
const secondSignalAfterMs = 1_000;

/** Resolves at the first signal; a later one ends everything at once. */
function untilSignalled(cluster: LocalCluster): Promise<void> {
  return new Promise((resolve) => {
    let firstMs: number | undefined;
    const onSignal = () => {
      firstMs ??= performance.now();
      resolve();
      if (performance.now() - firstMs < secondSignalAfterMs) return;
      cluster.killNodes();
    };
    for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, onSignal);
  });
}

function greeting(args: ClusterArguments, cluster: LocalCluster): string {
  const { state } = cluster;
  if (args.json) return `${JSON.stringify(state)}\n`;
  const ports = (portOffset: number) => Object.entries(basePorts).map(([name, port]) => `${name} ${port + portOffset}`);
  const first = state.nodes[0]!;
  return [
    '',
    `The cluster is ready: ${state.nodes.length} nodes on ${state.store}`,
    ...state.nodes.map(
      ({ index, id, pid, portOffset }) => `  node ${index}  pid ${pid}  id ${id}\n          ${ports(portOffset).join(' · ')}`,
    ),
    `  ${clusterFileOf(args.data)} is kept true`,
    '',
    'Accounts',
    ...passwords(args).map(([address, password]) => `  ${address.padEnd(22)} ${password}`),
    '',
    'Send a first message:',
    `  swaks --server 127.0.0.1:${basePorts.smtp + first.portOffset} --to alice@example.test --from you@elsewhere.test --header 'Subject: Hello'`,
    'and read it on another node:',
    `  curl -k --user alice@example.test 'imaps://127.0.0.1:${basePorts.imaps + state.nodes.at(-1)!.portOffset}/INBOX;UID=1'`,
    '',
    '',
  ].join('\n');
}

/** As the first node knows them: an account that was made before, with another password, keeps that. */
function passwords(args: ClusterArguments): [string, string][] {
  const text = readFileSync(join(args.data, 'node-0', 'quickstart.json'), 'utf8');
  const { accounts } = JSON.parse(text) as { accounts: { address: string; password?: string }[] };
  return accounts.map(({ address, password }) => {
    if (password === undefined) return [address, '(the password that it has had)'];
    return [address, args.password === undefined ? password : '(the password you gave)'];
  });
}

async function run(args: ClusterArguments): Promise<number> {
  const say = (sentence: string) => process.stderr.write(`cluster: ${sentence}\n`);
  const cluster = new LocalCluster(args, say);
  const signalled = untilSignalled(cluster);
  let isSignalled = false;
  void signalled.then(() => {
    isSignalled = true;
  });
  try {
    // Signalled meanwhile: what runs by then is stopped below.
    const started = cluster.start();
    started.catch(() => undefined);
    await Promise.race([started, signalled]);
    if (isSignalled) return 0;
    process.stdout.write(greeting(args, cluster));
    await Promise.race([signalled, cluster.abandoned]);
    if (isSignalled) return 0;
    say('no node runs any more');
    return 1;
  } catch (error) {
    say((error as Error).message);
    return 1;
  } finally {
    await cluster.stop();
  }
}

try {
  const args = parseClusterArguments(process.argv.slice(2));
  if (args) process.exitCode = await run(args);
  else process.stdout.write(`${usage}\n`);
} catch (error) {
  if (!(error instanceof UsageError)) throw error;
  process.stderr.write(`cluster: ${error.message}\n${usage}\n`);
  process.exitCode = 2;
}
