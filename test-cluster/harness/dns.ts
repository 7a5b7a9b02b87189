/** An authoritative answer for the tests' outside domains: a real unbound with local data only. */

import { Resolver } from 'node:dns/promises';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort } from './ports.js';
import { searchPath, startProcess, waitFor } from './processes.js';

export class TestDns {
  private constructor(
    readonly address: string,
    private readonly folder: string,
    private readonly running: ReturnType<typeof startProcess>,
  ) {}

  /** `records` are lines such as `outside.test. IN MX 10 mx.outside.test.`; everything else under .test does not exist. */
  static async start(records: readonly string[]): Promise<TestDns> {
    const folder = mkdtempSync(join(tmpdir(), 'starling-dns-'));
    const port = await freePort();
    const settings = [
      'server:',
      `  directory: "${folder}"`,
      '  chroot: ""',
      '  username: ""',
      '  pidfile: ""',
      '  interface: 127.0.0.1',
      `  port: ${port}`,
      '  do-daemonize: no',
      '  use-syslog: no',
      '  module-config: "iterator"',
      '  access-control: 127.0.0.0/8 allow',
      '  local-zone: "test." static',
      ...records.map((record) => `  local-data: '${record}'`),
      'remote-control:',
      '  control-enable: no',
      '',
    ];
    writeFileSync(join(folder, 'unbound.conf'), settings.join('\n'));
    const running = startProcess('unbound', ['-d', '-c', join(folder, 'unbound.conf')], { env: { PATH: searchPath } });
    const dns = new TestDns(`127.0.0.1:${port}`, folder, running);
    const resolver = new Resolver({ timeout: 500, tries: 1 });
    resolver.setServers([dns.address]);
    await waitFor('unbound to answer', 10_000, async () => {
      try {
        await resolver.resolve4('absent.test');
      } catch (error) {
        return (error as NodeJS.ErrnoException).code === 'ENOTFOUND';
      }
      return true;
    }).catch((error: unknown) => {
      running.child.kill('SIGKILL');
      throw new Error(`${(error as Error).message}\n${running.output.stderr}`);
    });
    return dns;
  }

  async stop(): Promise<void> {
    this.running.child.kill('SIGTERM');
    await this.running.ended;
    rmSync(this.folder, { recursive: true, force: true });
  }
}
