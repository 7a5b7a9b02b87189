/**
 * The `starling` command. `serve` and `quickstart` run a node in the foreground; everything else is an operation on a running node (through its control
 * socket) or, when none runs, on the store itself. Exit codes: 0 done, 1 refused or failed, 2 usage.
 */
import { ConfigError } from '../config/load.js';
import { StartError } from '../start-error.js';
import { UsageError } from './arguments.js';
import { printHelp } from './output.js';
import { tolerateClosedOutput } from './streams.js';

// Whatever this process makes is for its user alone: the store's files, above all.
process.umask(0o077);
tolerateClosedOutput();

/** What a command needs is loaded when it is asked for: an operation on a running node loads no node. */
async function main(argv: string[]): Promise<number> {
  const [command, ...rest] = argv;
  switch (command) {
    case undefined:
    case 'help':
    case '--help':
    case '-h':
      printHelp();
      return command === undefined ? 2 : 0;
    case 'quickstart':
      return (await import('./run-node.js')).runQuickstart(rest);
    case 'serve':
      return (await import('./run-node.js')).runServe(rest);
    case 'cluster-key':
      return (await import('./cluster-key.js')).runClusterKey(rest);
    case 'store':
      if (rest[0] === 'check') return (await import('./operate.js')).runOperation(argv);
      return (await import('./commands/store.js')).runStore(rest);
    default:
      return (await import('./operate.js')).runOperation(argv);
  }
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  if (error instanceof UsageError) {
    process.stderr.write(`starling: ${error.message}\nTry 'starling help'.\n`);
    process.exitCode = 2;
  } else {
    const known = error instanceof ConfigError || error instanceof StartError;
    process.stderr.write(
      `starling: ${known ? (error as Error).message : error instanceof Error ? error.stack : String(error)}\n`,
    );
    // Not by the exit code alone: what a failed start left running must not keep the process alive.
    process.exit(1);
  }
}
