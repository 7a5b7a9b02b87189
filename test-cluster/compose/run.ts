/**
 * `node dist/test-cluster/compose/run.js`: makes the images on this machine, runs docker-compose.cluster.yml with them, sends mail through the balancer, kills a
 * node and drains another one meanwhile, counts, and takes everything down. Prints one JSON line; exit code 0 when all was as it must be, 2 for wrong usage.
 */
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { ComposeCluster, nodeNames, type StoreName } from './cluster.js';
import { type FoundationDbBinaries, imageBytes, isDockerRunning, makeImages } from './images.js';
import { type Findings, tellStory } from './story.js';

const usage = `node dist/test-cluster/compose/run.js [--store postgres|foundationdb] [--keep]

Needs root, a running docker, docker-compose or its plugin, debootstrap, openssl, curl. With --store foundationdb: FDB_SERVER_BINARY (and fdbcli beside it),
FDB_CLIENT_LIBRARY, FDB_PACKAGES (Debian packages that they need, if any). --keep leaves the cluster running.`;

const report = (line: string) => void process.stderr.write(`${new Date().toISOString().slice(11, 19)} ${line}\n`);

class UsageError extends Error {}

function parse(): { store: StoreName; isKept: boolean; foundationDb: FoundationDbBinaries | undefined } {
  const { values } = parseArgs({
    options: {
      store: { type: 'string', default: 'postgres' },
      keep: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h' },
    },
  });
  if (values.help) throw new UsageError(usage);
  const { store } = values;
  if (store !== 'postgres' && store !== 'foundationdb') throw new UsageError(usage);
  if (store === 'postgres') return { store, isKept: values.keep, foundationDb: undefined };
  const { FDB_SERVER_BINARY: server, FDB_CLIENT_LIBRARY: clientLibrary, FDB_PACKAGES: packages = '' } = process.env;
  if (server === undefined || clientLibrary === undefined) throw new UsageError(usage);
  return { store, isKept: values.keep, foundationDb: { server, cli: join(dirname(server), 'fdbcli'), clientLibrary, packages } };
}

async function main(): Promise<number> {
  const { store, isKept, foundationDb } = parse();
  if (!(await isDockerRunning())) throw new Error('no docker daemon answers');
  const beginMs = performance.now();
  const images = await makeImages(foundationDb, report);
  const cluster = await ComposeCluster.prepare(store, images);
  let findings: Findings;
  try {
    report('docker-compose up');
    const upMs = performance.now();
    await cluster.up();
    await cluster.waitUntilReady(180_000);
    const readySeconds = Number(((performance.now() - upMs) / 1000).toFixed(1));
    findings = { readySeconds, ...(await tellStory(cluster, report)) };
  } catch (error) {
    for (const name of nodeNames)
      report(`${name}:\n${(await cluster.logs(name).catch(String)).split('\n').slice(-15).join('\n')}`);
    throw error;
  } finally {
    if (isKept) report(`kept: SMTP ${cluster.ports.smtp}, IMAPS ${cluster.ports.imaps}, Prometheus ${cluster.ports.prometheus}`);
    else await cluster.remove();
  }
  const isOk = findings.problems.length === 0;
  const seconds = Math.round((performance.now() - beginMs) / 1000);
  const line = { scenario: 'compose', store, ok: isOk, seconds, imageBytes: await imageBytes(images.starling), ...findings };
  process.stdout.write(`${JSON.stringify(line)}\n`);
  return isOk ? 0 : 1;
}

main().then(
  (code) => process.exit(code),
  (error: unknown) => {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    process.exit(error instanceof UsageError ? 2 : 1);
  },
);
