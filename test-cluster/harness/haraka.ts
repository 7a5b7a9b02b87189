/**
 * A Haraka of the benchmark's own. It is no dependency: `STARLING_HARAKA` names a folder in which `npm install Haraka` was run. It takes what it is sent from
 * loopback and queues it on its disk, for a host that is given.
 */
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort } from './ports.js';
import { startProcess, waitFor } from './processes.js';
import { SmtpDialog } from './smtp-load.js';

export interface HarakaOptions {
  /** Where everything goes that it has taken. */
  sinkPort: number;
}

/** What stands in the folder's `plugins`: relays everything, all of it to one host. */
const onwards = (port: number) => `
exports.register = function () {
  this.register_hook('connect_init', 'trust');
  this.register_hook('rcpt', 'take');
  this.register_hook('get_mx', 'onwards');
};
exports.trust = (next, connection) => { connection.relaying = true; next(); };
exports.take = (next) => next(OK);
exports.onwards = (next) => next(OK, { priority: 0, exchange: '127.0.0.1', port: ${port} });
`;

export class Haraka {
  private constructor(
    private readonly folder: string,
    readonly port: number,
    private readonly running: ReturnType<typeof startProcess>,
  ) {}

  /** Undefined where there is none on this machine. */
  static async start({ sinkPort }: HarakaOptions): Promise<Haraka | undefined> {
    const installed = process.env['STARLING_HARAKA'];
    if (installed === undefined) return undefined;
    const folder = mkdtempSync(join(tmpdir(), 'starling-haraka-'));
    const port = await freePort();
    for (const name of ['config', 'plugins', 'queue']) mkdirSync(join(folder, name));
    const files: Record<string, string> = {
      'config/smtp.ini': `listen=127.0.0.1:${port}\nnodes=0\n`,
      'config/plugins': 'onwards\n',
      'config/me': 'haraka.test\n',
      'config/loglevel': 'CRIT\n',
      'config/outbound.ini': 'enable_tls=false\nconcurrency_max=100\n',
      'plugins/onwards.js': onwards(sinkPort),
    };
    for (const [name, content] of Object.entries(files)) writeFileSync(join(folder, name), content);
    // It does not start without its own.
    copyFileSync(join(installed, 'node_modules/Haraka/config/connection.ini'), join(folder, 'config/connection.ini'));
    const program = join(installed, 'node_modules', 'Haraka', 'bin', 'haraka');
    const haraka = new Haraka(folder, port, startProcess(process.execPath, [program, '-c', folder], {}));
    try {
      await waitFor('Haraka to listen', 20_000, async () => {
        (await SmtpDialog.connect(port)).close();
        return true;
      });
    } catch (error) {
      const { stdout, stderr } = haraka.running.output;
      await haraka.stop();
      throw new Error(`${(error as Error).message}\n${stdout.slice(-2000)}${stderr.slice(-2000)}`);
    }
    return haraka;
  }

  async stop(): Promise<void> {
    this.running.child.kill('SIGKILL');
    await this.running.ended;
    rmSync(this.folder, { recursive: true, force: true });
  }
}
