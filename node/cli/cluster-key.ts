/** `starling cluster-key`: prints a new key for the nodes of a cluster. */
import { systemRandom } from '../../ops/telemetry/index.js';
import { makeClusterKey } from '../../store/settings/index.js';
import { parseArguments, refusePositionals } from './arguments.js';

export async function runClusterKey(args: string[]): Promise<number> {
  const { values, positionals } = parseArguments(args, { json: { type: 'boolean' } });
  refusePositionals('cluster-key', positionals);
  const key = makeClusterKey(systemRandom);
  process.stdout.write(`${values.json ? JSON.stringify({ clusterKey: key }) : key}\n`);
  return 0;
}
